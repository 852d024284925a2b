"""A small pyramid of features, and regions on, across and beyond it, for the tests of pooling."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

STRIDES = (4, 8, 16)
SHAPES = [(12, 16), (6, 8), (3, 4)]  # of an image of 48 x 64


def feature_maps(batch: int = 2, channels: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(batch, height, width, channels)) for height, width in SHAPES]


def tensors(maps: list[np.ndarray]) -> list[tf.Tensor]:
    return [tf.constant(level, tf.float32) for level in maps]


# Inside, the whole image, touching the border, across it, outside in every direction, without area, thin, tiny.
EDGE_BOXES = np.array(
    [
        [10.3, 7.1, 41.9, 30.2],
        [0.0, 0.0, 64.0, 48.0],
        [40.0, 30.0, 64.0, 48.0],
        [-9.0, -7.0, 20.0, 18.0],
        [50.0, 33.0, 83.0, 71.0],
        [90.0, 70.0, 120.0, 99.0],
        [-60.0, 3.0, -30.0, 20.0],
        [30.0, 20.0, 30.0, 20.0],
        [12.0, 5.0, 13.5, 40.0],
        [5.1, 5.2, 5.3, 5.4],
    ]
)


def regions() -> tuple[np.ndarray, np.ndarray]:
    """Boxes [2, N, 4] and levels [2, N]: every edge case on the finest level, then on all of them, and random ones."""
    rng = np.random.default_rng(1)
    corner = rng.uniform(-8, 50, (2, 4, 2))
    random = np.concatenate([corner, corner + rng.uniform(1, 40, (2, 4, 2))], axis=-1)
    boxes = np.concatenate([np.stack([EDGE_BOXES, EDGE_BOXES[::-1]]), random], axis=1)
    levels = rng.integers(0, 3, boxes.shape[:2])
    levels[0, : len(EDGE_BOXES)] = 0
    return boxes.astype(np.float32), levels.astype(np.int32)


BOXES, LEVELS = regions()
