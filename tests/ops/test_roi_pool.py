"""RoIPool and RoIWarp, values and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.ops import roi_pool as pool_ops
from tests import reference_pooling as pooling
from tests.checks import assert_forms_agree, gradients
from tests.pyramid import BOXES, LEVELS, SHAPES, STRIDES, feature_maps, tensors

SIZES = pytest.mark.parametrize("size", [2, 3, 7])
WARPS = [(1, "average"), (2, "average"), (2, "max")]


@SIZES
def test_roi_pool(size) -> None:
    maps = feature_maps()
    result = pool_ops.roi_pool(tensors(maps), BOXES, LEVELS, strides=STRIDES, size=size)
    bins = pooling.pool_bins(SHAPES, BOXES, LEVELS, STRIDES, size)
    expected = pooling.pooled(maps, bins, (2, BOXES.shape[1], size), "max")
    assert (expected == 0).any()
    np.testing.assert_allclose(result, expected, rtol=1e-6)


@SIZES
def test_roi_pool_gradient(size) -> None:
    maps = feature_maps()
    upstream = np.random.default_rng(5).normal(size=(2, BOXES.shape[1], size, size, 3))
    ours = gradients(
        lambda *levels: pool_ops.roi_pool(levels, BOXES, LEVELS, strides=STRIDES, size=size), upstream, *maps
    )
    bins = pooling.pool_bins(SHAPES, BOXES, LEVELS, STRIDES, size)
    for our, their in zip(ours, pooling.pooled_gradient(maps, bins, upstream, "max"), strict=True):
        np.testing.assert_allclose(our, their, atol=1e-5)


def test_roi_pool_of_a_known_region() -> None:
    """Corners at cells 1 and 4 (2 to 4.5 rounds up to 5 here): five columns in two bins share the middle one."""
    features = tf.reshape(tf.range(48, dtype=tf.float32), [1, 6, 8, 1])
    box = tf.constant([[[4, 8, 18, 8]]], tf.float32)  # columns 1 to 5, row 2
    result = pool_ops.roi_pool([features], box, tf.zeros([1, 1], tf.int32), strides=(4,), size=2)
    np.testing.assert_array_equal(result[0, 0, :, :, 0], [[2 * 8 + 3, 2 * 8 + 5]] * 2)


@pytest.mark.parametrize("size", [7, 14])
def test_roi_pool_bins_of_every_width(size) -> None:
    """A bin ends where whole numbers say, not one cell further because a product in float32 came out too large."""
    cells = 64
    features = tf.cast(tf.reshape(tf.range(cells), [1, 1, cells, 1]), tf.float32)
    widths = np.arange(1, cells + 1)
    boxes = np.stack([0 * widths, 0 * widths, widths - 1, 0 * widths], axis=1)[None].astype(np.float32)
    levels = np.zeros([1, len(widths)], np.int32)
    pool = tf.function(lambda *inputs: pool_ops.roi_pool([features], *inputs, strides=(1,), size=size))
    result = pool(boxes, levels)
    last_cells = [[-(-(index + 1) * width // size) - 1 for index in range(size)] for width in widths]
    np.testing.assert_array_equal(result[0, :, 0, :, 0], last_cells)


def test_roi_pool_no_boxes() -> None:
    maps = tensors(feature_maps())
    result = pool_ops.roi_pool(maps, tf.zeros([2, 0, 4]), tf.zeros([2, 0], tf.int32), strides=STRIDES, size=3)
    assert result.shape == (2, 0, 3, 3, 3)


@pytest.mark.parametrize(("samples", "reduce"), WARPS)
def test_roi_warp(samples, reduce) -> None:
    maps = feature_maps()
    result = pool_ops.roi_warp(tensors(maps), BOXES, LEVELS, strides=STRIDES, size=3, samples=samples, reduce=reduce)
    bins = pooling.warp_bins(SHAPES, BOXES, LEVELS, STRIDES, 3, samples)
    expected = pooling.pooled(maps, bins, (2, BOXES.shape[1], 3), reduce)
    np.testing.assert_allclose(result, expected, atol=2e-5)


@pytest.mark.parametrize(("samples", "reduce"), WARPS)
def test_roi_warp_gradient(samples, reduce) -> None:
    maps = feature_maps()
    upstream = np.random.default_rng(6).normal(size=(2, BOXES.shape[1], 3, 3, 3))
    options = {"strides": STRIDES, "size": 3, "samples": samples, "reduce": reduce}
    ours = gradients(lambda *levels: pool_ops.roi_warp(levels, BOXES, LEVELS, **options), upstream, *maps)
    bins = pooling.warp_bins(SHAPES, BOXES, LEVELS, STRIDES, 3, samples)
    for our, their in zip(ours, pooling.pooled_gradient(maps, bins, upstream, reduce), strict=True):
        np.testing.assert_allclose(our, their, atol=1e-4)


def test_roi_warp_reads_whole_cells() -> None:
    """A region of two by two whole cells pooled to two by two, one sample a bin, is those cells."""
    maps = feature_maps()
    box = tf.constant([[[9.9, 14.1, 14.0, 18.0]]] * 2, tf.float32)  # cells 2 to 4 and 4 to 5
    box = tf.concat([box, [[[8.0, 4.0, 12.0, 8.0]]] * 2], axis=1)  # cells 2 to 3 and 1 to 2
    result = pool_ops.roi_warp(tensors(maps), box, tf.zeros([2, 2], tf.int32), strides=STRIDES, size=2, samples=1)
    np.testing.assert_allclose(result[:, 1], maps[0][:, 1:3, 2:4], rtol=1e-5)


@pytest.mark.parametrize("operation", [pool_ops.roi_pool, pool_ops.roi_warp])
def test_forms(operation) -> None:
    """On regions within the map: a sample of RoIWarp can lie exactly where the map's reach ends, and go either way."""
    boxes = np.clip(BOXES, 0, [47, 31, 47, 31]).astype(np.float32)

    def pool(*inputs: tf.Tensor) -> tf.Tensor:
        return operation(inputs[:3], inputs[3], inputs[4], strides=STRIDES, size=3)

    assert_forms_agree(pool, *tensors(feature_maps()), boxes, LEVELS, compiled=False)
