"""A few scenes on disk, for the tests of batches.

The process that hands out the tests reads this file, too, and runs none: TensorFlow is imported where it is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from maskx_tf.data.dataset import Dataset
    from maskx_tf.data.pipeline.examples import Examples


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    from tests.data import scenes

    return scenes.dataset(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def images(dataset: Dataset) -> Examples:
    from maskx_tf.data.pipeline import examples

    return examples.from_dataset(dataset)
