"""Fixtures that save time in the tests of importers: files that are not written, models that are built once.

The process that hands out the tests reads this file, too, and runs none: TensorFlow is imported where it is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import numpy as np

    from maskx_tf.config import ModelConfig

BUILT: dict[str, Any] = {}


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Path]:
    """Replaces the contents of a file; real files are tested in test_readers."""

    def put(content: Any) -> Path:
        for source in ("torchvision", "detectron2", "detectron"):
            monkeypatch.setattr(f"maskx_tf.importers.{source}.read", lambda _: content)
        (tmp_path / "weights").touch()
        return tmp_path / "weights"

    return put


@pytest.fixture(autouse=True)
def _without_random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    start_with_zeros(monkeypatch)


def start_with_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """New models begin with zeros: to draw the numbers of a ResNet-50, which a file replaces, takes half a second."""
    import keras

    for initializer in (keras.initializers.RandomNormal, keras.initializers.VarianceScaling):
        monkeypatch.setattr(initializer, "__call__", keras.initializers.Zeros().__call__)


@pytest.fixture
def reuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importers fill models that others have filled before, where the configuration is the same."""
    from maskx_tf.checkpoints.io import build_with
    from maskx_tf.importers import run as importing

    def build(config: ModelConfig, table: np.ndarray | None) -> Any:
        key = config.model_dump_json()
        if key not in BUILT:
            BUILT[key] = build_with(config, table)
        return BUILT[key]

    monkeypatch.setattr(importing, "build_with", build)
