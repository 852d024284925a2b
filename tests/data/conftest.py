"""A few scenes on disk, for the tests of batches."""

from __future__ import annotations

import pytest

from maskx_tf.data.dataset import Dataset
from maskx_tf.data.pipeline import examples
from tests.data import scenes


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return scenes.dataset(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def images(dataset: Dataset) -> examples.Examples:
    return examples.from_dataset(dataset)
