"""Position-sensitive RoI pooling, values and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.ops import ps_roi as ps_roi_ops
from tests import reference_position as position
from tests.checks import assert_forms_agree, gradients
from tests.fcis_oracle import cell_major, continuous, each_file_with, ref_major
from tests.litert import converted
from tests.oracle import inputs, outputs

STRIDE = 16
# Halves, beyond the border, one pixel, without area, outside, and on whole cells.
BOXES = np.array(
    [
        [[0, 0, 96, 80], [10.5, 20.5, 60.5, 70.5], [-9.5, -20, 41, 38], [33, 35, 34, 36]],
        [[60, 61, 50, 40], [380, 10, 410, 50], [16, 32, 64, 48], [3.2, 4.7, 88.1, 71.3]],
    ],
    np.float32,
)
FORMS = pytest.mark.parametrize(("group", "size"), [(7, 21), (7, 7), (1, 21), (3, 6)])


def some_maps(group: int, depth: int = 3) -> np.ndarray:
    return np.random.default_rng(group).normal(1.0, 1.0, [2, 5, 6, group**2 * depth]).astype(np.float32)


@FORMS
def test_values(group, size) -> None:
    maps = some_maps(group)
    result = ps_roi_ops.ps_roi_pool(maps, BOXES, stride=STRIDE, group=group, size=size)
    expected = position.pooled(maps, BOXES, STRIDE, group, size)
    assert (expected == 0).any()
    np.testing.assert_allclose(result, expected, atol=1e-5)


@FORMS
def test_gradient(group, size) -> None:
    maps = some_maps(group)
    upstream = np.random.default_rng(5).normal(size=[2, BOXES.shape[1], size, size, 3])
    (ours,) = gradients(
        lambda value: ps_roi_ops.ps_roi_pool(value, BOXES, stride=STRIDE, group=group, size=size), upstream, maps
    )
    np.testing.assert_allclose(ours, position.pooled_gradient(maps, BOXES, upstream, STRIDE, group, size), atol=1e-4)


def test_forms_agree() -> None:
    """XLA is free to order a sum otherwise, which moves regions on whole cells: it sees others."""
    boxes = BOXES[:, 3:] + np.float32(1.0)
    assert_forms_agree(
        lambda maps, regions: ps_roi_ops.ps_roi_pool(maps, regions, stride=STRIDE, group=7, size=21),
        some_maps(7),
        boxes,
    )
    assert_forms_agree(
        lambda maps, regions: ps_roi_ops.ps_roi_pool(maps, regions, stride=STRIDE, group=7, size=21),
        some_maps(7),
        BOXES,
        compiled=False,
    )


def test_one_cell_equals_plain_averaging() -> None:
    """With k = 1 every bin reads the same maps: the mean over a region of whole cells is that of its cells."""
    maps = some_maps(1)
    box = np.array([[[16, 16, 80, 64]]] * 2, np.float32)
    result = ps_roi_ops.ps_roi_pool(maps, box, stride=STRIDE, group=1, size=1)
    np.testing.assert_allclose(result[:, 0, 0, 0], maps[:, 1:4, 1:5].mean(axis=(1, 2)), atol=1e-5)


@pytest.mark.parametrize(("group", "size", "samples"), [(7, 21, 2), (7, 7, 1), (1, 4, 2)])
def test_bilinear_values(group, size, samples) -> None:
    maps = some_maps(group)
    result = ps_roi_ops.ps_roi_pool_bilinear(maps, BOXES, stride=STRIDE, group=group, size=size, samples=samples)
    expected = position.pooled_bilinear(maps, BOXES, STRIDE, group, size, samples)
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_channels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 7 x 7 channels, found 50"):
        ps_roi_ops.ps_roi_pool(np.zeros([1, 4, 4, 50]), BOXES[:1], stride=STRIDE, group=7, size=7)
    with pytest.raises(ValueError, match="a multiple of group"):
        ps_roi_ops.ps_roi_pool_bilinear(np.zeros([1, 4, 4, 49]), BOXES[:1], stride=STRIDE, group=7, size=8)


@each_file_with("psroi/rois")
@pytest.mark.parametrize("size", [21, 7])
def test_oracle_fcis_pooling(file, size) -> None:
    """Every region, those with edges on whole cells included, traced as in training."""
    given, stored = inputs(file), outputs(file)
    rois, maps = stored["psroi/rois"], given["psroi/maps"]
    upstream = given[f"psroi/top_gradient_{size}"].transpose(0, 2, 3, 1)
    boxes, images = continuous(rois[:, 1:]), rois[:, 0].astype(int)
    gradient = np.zeros_like(maps)
    for index in range(len(maps)):
        mine = np.flatnonzero(images == index)

        @tf.function
        def pool(value: tf.Tensor, regions: np.ndarray = boxes[None, mine]) -> tf.Tensor:
            return ps_roi_ops.ps_roi_pool(value, regions, stride=STRIDE, group=7, size=size)

        own = cell_major(maps[index])[None]
        expected = stored[f"psroi/out_{size}"][mine].transpose(0, 2, 3, 1)
        np.testing.assert_allclose(pool(tf.constant(own))[0], expected, rtol=1e-5, atol=1e-5)
        gradient[index] = ref_major(gradients(pool, upstream[None, mine], own)[0][0])
    expected = stored[f"psroi/gradient_{size}_every6th_channel"]
    np.testing.assert_allclose(gradient[:, ::6], expected, rtol=1e-4, atol=1e-4)
    sums = stored[f"psroi/gradient_{size}_channel_sums"]
    np.testing.assert_allclose(gradient.sum(axis=(2, 3)), sums, rtol=1e-4, atol=1e-3)


def test_builtin_operators_of_litert() -> None:
    """LiteRT divides by a constant as it likes, so no region here has an edge on a whole cell."""
    maps, boxes = some_maps(7)[:1], BOXES[:1] + np.array([1.0, 2.0, 4.0, 3.0], np.float32)

    def pool(maps: tf.Tensor, boxes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"pooled": ps_roi_ops.ps_roi_pool(maps, boxes, stride=STRIDE, group=7, size=21)}

    found = converted(pool, {"maps": maps, "boxes": boxes})
    np.testing.assert_allclose(found["pooled"], pool(maps, boxes)["pooled"], atol=1e-5)
