"""Anchors in the variants of torchvision, detectron2 and Detectron."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.ops import anchors as anchor_ops
from tests import reference
from tests.checks import assert_forms_agree

RATIOS = (0.5, 1.0, 2.0)
STRIDES = (4, 8, 16, 32, 64)


def inclusive(anchors: np.ndarray) -> np.ndarray:
    """Detectron's corners of continuous boxes: 1 less at the right and at the bottom."""
    return anchors - [0, 0, 1, 1]


def test_detectron_p2() -> None:
    """Spec maskx.md, section 11."""
    cell = anchor_ops.cell_anchors([32], RATIOS, 4, rounding="detectron")
    np.testing.assert_array_equal(inclusive(cell), [(-22, -10, 25, 13), (-14, -14, 17, 17), (-10, -22, 13, 25)])


def test_detectron_c4() -> None:
    """The anchors of Faster R-CNN's first program in MATLAB, counted from 1, which Detectron's generator quotes."""
    cell = anchor_ops.cell_anchors([128, 256, 512], RATIOS, 16, rounding="detectron", order="ratio_major")
    expected = [
        (-83, -39, 100, 56),
        (-175, -87, 192, 104),
        (-359, -183, 376, 200),
        (-55, -55, 72, 72),
        (-119, -119, 136, 136),
        (-247, -247, 264, 264),
        (-35, -79, 52, 96),
        (-79, -167, 96, 184),
        (-167, -343, 184, 360),
    ]
    np.testing.assert_array_equal(inclusive(cell), np.array(expected) - 1)


def test_torchvision_levels() -> None:
    """32 to 512 on P2 to P6: corners rounded, around 0 (spec, section 7)."""
    expected = {
        32: [(-23, -11, 23, 11), (-16, -16, 16, 16), (-11, -23, 11, 23)],
        64: [(-45, -23, 45, 23), (-32, -32, 32, 32), (-23, -45, 23, 45)],
        128: [(-91, -45, 91, 45), (-64, -64, 64, 64), (-45, -91, 45, 91)],
        256: [(-181, -91, 181, 91), (-128, -128, 128, 128), (-91, -181, 91, 181)],
        512: [(-362, -181, 362, 181), (-256, -256, 256, 256), (-181, -362, 181, 362)],
    }
    for (size, corners), stride in zip(expected.items(), STRIDES, strict=True):
        cell = anchor_ops.cell_anchors([size], RATIOS, stride, rounding="torchvision")
        np.testing.assert_array_equal(cell, corners)


def test_detectron2_p2() -> None:
    cell = anchor_ops.cell_anchors([32], RATIOS, 4, rounding="none", order="size_major")
    root = 16 * np.sqrt(2)
    expected = [(-root, -root / 2, root, root / 2), (-16, -16, 16, 16), (-root / 2, -root, root / 2, root)]
    np.testing.assert_allclose(cell, expected, rtol=1e-6)


SIZES = (16, 33, 64, 100, 363, 512)
MORE_RATIOS = (0.25, 1 / 3, 0.5, 1.0, 2.0, 3.0)


def test_torchvision_order_and_rounding() -> None:
    cell = anchor_ops.cell_anchors(SIZES, MORE_RATIOS, 16, rounding="torchvision", order="ratio_major")
    np.testing.assert_array_equal(cell, reference.anchors_torchvision(SIZES, MORE_RATIOS))


def test_torchvision_rounds_every_size_as_float32_does() -> None:
    sizes = range(1, 1025)
    cell = anchor_ops.cell_anchors(sizes, RATIOS, 16, rounding="torchvision")
    np.testing.assert_array_equal(cell, reference.anchors_torchvision(sizes, RATIOS))


def test_detectron2_order() -> None:
    cell = anchor_ops.cell_anchors(SIZES, MORE_RATIOS, 16, rounding="none", order="size_major")
    np.testing.assert_allclose(cell, reference.anchors_detectron2(SIZES, MORE_RATIOS), rtol=1e-6)


@pytest.mark.parametrize("stride", STRIDES)
def test_detectron_rounding(stride) -> None:
    cell = anchor_ops.cell_anchors(SIZES, MORE_RATIOS, stride, rounding="detectron")
    expected = reference.anchors_detectron_inclusive(SIZES, MORE_RATIOS, stride)
    np.testing.assert_allclose(inclusive(cell), expected, atol=1e-4)


@pytest.mark.parametrize("rounding", anchor_ops.ROUNDINGS)
def test_orders_hold_the_same_anchors(rounding) -> None:
    ratio_major = anchor_ops.cell_anchors(SIZES, RATIOS, 8, rounding=rounding, order="ratio_major")
    size_major = anchor_ops.cell_anchors(SIZES, RATIOS, 8, rounding=rounding, order="size_major")
    shape = (len(RATIOS), len(SIZES), 4)
    np.testing.assert_array_equal(ratio_major.reshape(shape).transpose(1, 0, 2).reshape(-1, 4), size_major)


@pytest.mark.parametrize(("height", "width"), [(3, 5), (1, 1), (0, 4)])
def test_grid(height, width) -> None:
    cell = anchor_ops.cell_anchors([32, 64], RATIOS, 8)
    result = anchor_ops.grid(cell, height, width, 8)
    assert result.dtype == tf.float32
    assert result.shape == (height * width * 6, 4)
    np.testing.assert_allclose(result, reference.grid(cell, height, width, 8), atol=1e-5)


def test_grid_steps_to_the_right_first() -> None:
    result = anchor_ops.grid(np.float32([[-1, -2, 1, 2]]), 2, 2, 16)
    np.testing.assert_array_equal(result, [(-1, -2, 1, 2), (15, -2, 17, 2), (-1, 14, 1, 18), (15, 14, 17, 18)])


def test_grid_of_a_size_known_at_run_time() -> None:
    cell = anchor_ops.cell_anchors([32], RATIOS, 8)
    grid = tf.function(lambda shape: anchor_ops.grid(cell, shape[0], shape[1], 8))
    np.testing.assert_array_equal(grid(tf.constant([3, 2])), anchor_ops.grid(cell, 3, 2, 8))


def test_pyramid() -> None:
    shapes, sizes = [(5, 4), (3, 2), (2, 1)], [[32], [64, 80], [128]]
    for rounding in anchor_ops.ROUNDINGS:
        levels = anchor_ops.pyramid(shapes, (8, 16, 32), sizes, RATIOS, rounding=rounding, order="size_major")
        for level, (height, width), stride, size in zip(levels, shapes, (8, 16, 32), sizes, strict=True):
            cell = anchor_ops.cell_anchors(size, RATIOS, stride, rounding=rounding, order="size_major")
            np.testing.assert_allclose(level, reference.grid(cell, height, width, stride), atol=1e-4)


def test_pyramid_needs_as_many_strides_as_levels() -> None:
    with pytest.raises(ValueError, match="longer"):
        anchor_ops.pyramid([(2, 2)], (8, 16), [[32], [64]], RATIOS)


def test_unknown_variants() -> None:
    with pytest.raises(ValueError, match="rounding is 'caffe', expected one of none, torchvision, detectron"):
        anchor_ops.cell_anchors([32], RATIOS, 8, rounding="caffe")
    with pytest.raises(ValueError, match="order is 'x', expected one of ratio_major, size_major"):
        anchor_ops.cell_anchors([32], RATIOS, 8, order="x")


def test_forms() -> None:
    def level(moved: tf.Tensor) -> list[tf.Tensor]:
        return [anchors + moved for anchors in anchor_ops.pyramid([(3, 4), (2, 2)], (8, 16), [[32], [64]], RATIOS)]

    assert_forms_agree(level, np.zeros([1, 1], np.float32))
