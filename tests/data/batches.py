"""Batches of a few scenes, and settings to make them with."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from maskx_tf.config.data import DataConfig
from maskx_tf.config.detector import InputConfig
from maskx_tf.data.pipeline import batches as pipeline

INPUT = InputConfig(canvas=(96, 96), short_side=64, long_side=96)
PLAIN = DataConfig(flip=False, max_instances=8)
VARIED = DataConfig(
    max_instances=8,
    scale_jitter=(0.5, 2.0),
    crop=0.5,
    photometric={"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05},
    copy_paste=0.5,
    seed=5,
)
Batches = list[dict[str, np.ndarray]]


def take(dataset: tf.data.Dataset, count: int | None = None) -> Batches:
    with pipeline.bad_input():
        return [{key: value.numpy() for key, value in batch.items()} for batch in itertools.islice(dataset, count)]


def assert_equal(found: Iterable[dict[str, Any]], expected: Iterable[dict[str, Any]]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def turned(path: Path, orientation: int, pixels: np.ndarray) -> None:
    """Writes a picture that its EXIF data turn."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
