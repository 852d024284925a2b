"""The pooler against loops: levels by the boxes' size, and every option handed on."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.layers.roi_pool import RoiPooler
from tests import reference
from tests import reference_pooling as pooling

STRIDES = (8, 16, 32, 64)  # not P2 to P5: the levels are numbered by their stride
SIDES = (32, 16, 8, 4)  # of an image of 256 pixels


def features() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(2, side, side, 2)) for side in SIDES]


def boxes() -> np.ndarray:
    rng = np.random.default_rng(1)
    sides = np.array([4, 40, 111, 113, 223, 225, 300, 700]) * np.ones([2, 1])
    corner = rng.uniform(0, 20, (2, 8, 2))
    return np.concatenate([corner, corner + sides[..., None]], axis=-1).astype(np.float32)


def expected(pooler: RoiPooler, maps: list[np.ndarray], regions: np.ndarray, levels: np.ndarray) -> np.ndarray:
    shapes = [level.shape[1:3] for level in maps]
    where = (shapes, regions, levels, pooler.strides, pooler.size)
    if pooler.op == "pool":
        return pooling.pooled(maps, pooling.pool_bins(*where), (*levels.shape, pooler.size), "max")
    if pooler.op == "warp":
        bins = pooling.warp_bins(*where, pooler.samples)
    else:
        bins = pooling.align_bins(*where, pooler.samples, pooler.aligned)
    return pooling.pooled(maps, bins, (*levels.shape, pooler.size), pooler.reduce)


@pytest.mark.parametrize(
    ("options", "epsilon"),
    [
        ({}, "torchvision"),
        ({}, "detectron"),
        ({}, "detectron2"),
        ({"aligned": False}, "torchvision"),
        ({"samples": 1}, "detectron"),
        ({"samples": 0}, "detectron2"),
        ({"reduce": "max"}, "torchvision"),
        ({"gather": True}, "detectron"),
        ({"gather": True, "samples": 0}, "detectron2"),
        ({"gather": True, "aligned": False, "samples": 1, "reduce": "max"}, "torchvision"),
        ({"op": "pool"}, "detectron"),
        ({"op": "warp"}, "detectron2"),
        ({"op": "warp", "samples": 1}, "torchvision"),
        ({"op": "warp", "samples": 0}, "detectron"),
        ({"op": "warp", "reduce": "max"}, "detectron2"),
    ],
    ids=str,
)
def test_values(options, epsilon) -> None:
    maps, regions = features(), boxes()
    levels = np.array([[reference.level(box, epsilon, 3, 6) for box in image] for image in regions])
    assert set(levels.flat) == {0, 1, 2}
    pooler = RoiPooler(3, strides=STRIDES, level_epsilon=epsilon, **options)
    result = pooler([tf.constant(level, tf.float32) for level in maps], tf.constant(regions))
    assert result.shape == (2, 8, 3, 3, 2)
    np.testing.assert_allclose(result, expected(pooler, maps, regions, levels), atol=1e-4)


def test_one_map() -> None:
    """Without a pyramid every box reads the only map."""
    maps, regions = features()[1:2], boxes()
    pooler = RoiPooler(2, strides=(16,))
    result = pooler([tf.constant(maps[0], tf.float32)], tf.constant(regions))
    levels = np.zeros(regions.shape[:2], int)
    np.testing.assert_allclose(result, expected(pooler, maps, regions, levels), atol=1e-4)


def test_unknown_operations_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one of align, pool, warp"):
        RoiPooler(7, strides=(4,), op="crop")
    with pytest.raises(ValueError, match="only op align has a gather form, not pool"):
        RoiPooler(7, strides=(4,), op="pool", gather=True)


def test_no_weights() -> None:
    pooler = RoiPooler(2, strides=(4, 8))
    pooler([tf.zeros([1, 8, 8, 1]), tf.zeros([1, 4, 4, 1])], tf.ones([1, 1, 4]))
    assert pooler.weights == []
