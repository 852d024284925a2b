"""RoIAlign in both forms, values and gradients, and the choice of levels."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.ops import roi_align as align_ops
from tests import reference
from tests import reference_pooling as pooling
from tests.checks import assert_forms_agree, gradients
from tests.pyramid import BOXES, EDGE_BOXES, LEVELS, SHAPES, STRIDES, feature_maps, tensors

FORMS = pytest.mark.parametrize("form", [align_ops.roi_align, align_ops.roi_align_gather])
OPTIONS = pytest.mark.parametrize("samples", [1, 2])
ALIGNED = pytest.mark.parametrize("aligned", [True, False])
REDUCE = pytest.mark.parametrize("reduce", ["average", "max"])


@FORMS
@OPTIONS
@ALIGNED
@REDUCE
def test_values(form, samples, aligned, reduce) -> None:
    maps = feature_maps()
    options = {"strides": STRIDES, "size": 3, "samples": samples, "aligned": aligned}
    result = form(tensors(maps), BOXES, LEVELS, reduce=reduce, **options)
    expected = pooling.pooled(
        maps, pooling.align_bins(SHAPES, BOXES, LEVELS, **options), (2, BOXES.shape[1], 3), reduce
    )
    assert result.dtype == tf.float32
    assert (expected == 0).any()
    np.testing.assert_allclose(result, expected, atol=2e-5)


@FORMS
@OPTIONS
@ALIGNED
@REDUCE
def test_gradients(form, samples, aligned, reduce) -> None:
    maps = feature_maps()
    options = {"strides": STRIDES, "size": 3, "samples": samples, "aligned": aligned}
    upstream = np.random.default_rng(2).normal(size=(2, BOXES.shape[1], 3, 3, 3))
    ours = gradients(lambda *levels: form(levels, BOXES, LEVELS, reduce=reduce, **options), upstream, *maps)
    theirs = pooling.pooled_gradient(maps, pooling.align_bins(SHAPES, BOXES, LEVELS, **options), upstream, reduce)
    for our, their in zip(ours, theirs, strict=True):
        assert np.abs(their).max() > 0.1
        np.testing.assert_allclose(our, their, atol=1e-4)


@pytest.mark.parametrize("size", [7, 14])
@ALIGNED
def test_forms_agree_on_many_boxes(size, aligned) -> None:
    rng = np.random.default_rng(3)
    corner = rng.uniform(-20, 60, (2, 150, 2))
    boxes = np.concatenate([corner, corner + rng.exponential(20, (2, 150, 2))], axis=-1).astype(np.float32)
    levels = rng.integers(0, 3, (2, 150)).astype(np.int32)
    maps = tensors(feature_maps(channels=5))
    options = {"strides": STRIDES, "size": size, "samples": 2, "aligned": aligned}
    partition = align_ops.roi_align(maps, boxes, levels, **options)
    gathered = align_ops.roi_align_gather(maps, boxes, levels, **options)
    np.testing.assert_allclose(partition, gathered, atol=1e-4)


@FORMS
@ALIGNED
def test_samples_exactly_at_the_end_of_reach(form, aligned) -> None:
    """A sample at -1 or at the size of the map still reads the border; one beyond reads 0."""
    maps = feature_maps(1)[:1]
    half = 2.0 if aligned else 0.0  # half a cell of 4 pixels
    at = np.array([-4, -4.01, 48, 48.01]) + half
    boxes = np.stack([np.full(4, 18.0), at - 2, np.full(4, 22.0), at + 2], axis=1)[None].astype(np.float32)
    levels = np.zeros([1, 4], np.int32)
    options = {"strides": (4,), "size": 1, "samples": 1, "aligned": aligned}
    expected = pooling.pooled(maps, pooling.align_bins(SHAPES[:1], boxes, levels, **options), (1, 4, 1), "average")
    assert [bool(box.any()) for box in expected[0]] == [True, False, True, False]
    np.testing.assert_allclose(form(tensors(maps), boxes, levels, **options), expected, atol=1e-5)


@FORMS
def test_a_constant_map_gives_its_constant(form) -> None:
    maps = [tf.fill([2, height, width, 1], 3.0) for height, width in SHAPES]
    boxes = np.clip(BOXES, 0, [64, 48, 64, 48])
    inside = (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
    result = form(maps, boxes, LEVELS, strides=STRIDES, size=7).numpy()
    np.testing.assert_allclose(result[inside], 3.0, rtol=1e-5)


@FORMS
def test_a_ramp_gives_the_centres_of_the_bins(form) -> None:
    """A map that holds the x of each cell's centre in pixels reads back the x of each bin's centre."""
    centres = (np.arange(16) + 0.5) * 4
    ramp = tf.constant(np.tile(centres, (12, 1))[None, :, :, None], tf.float32)
    box = tf.constant([[[8, 8, 36, 40]]], tf.float32)
    result = form([ramp], box, tf.zeros([1, 1], tf.int32), strides=(4,), size=7, aligned=True)
    np.testing.assert_allclose(result[0, 0, 2, :, 0], 10 + 4 * np.arange(7), rtol=1e-5)


@FORMS
def test_no_boxes(form) -> None:
    maps = tensors(feature_maps())
    result = form(maps, tf.zeros([2, 0, 4]), tf.zeros([2, 0], tf.int32), strides=STRIDES, size=7)
    assert result.shape == (2, 0, 7, 7, 3)


@FORMS
def test_one_level(form) -> None:
    maps = feature_maps()[1:2]
    levels = np.zeros_like(LEVELS)
    options = {"strides": (8,), "size": 2, "samples": 2, "aligned": True}
    bins = pooling.align_bins(SHAPES[1:2], BOXES, levels, **options)
    expected = pooling.pooled(maps, bins, (2, BOXES.shape[1], 2), "average")
    np.testing.assert_allclose(form(tensors(maps), BOXES, levels, **options), expected, atol=2e-5)


@FORMS
def test_levels_of_one_cell(form) -> None:
    maps = [np.array([[[[2.0]]], [[[5.0]]]])]
    boxes = np.float32([[[0, 0, 64, 64]], [[10, 10, 20, 20]]])
    result = form(tensors(maps), boxes, np.zeros([2, 1], np.int32), strides=(64,), size=2)
    np.testing.assert_allclose(result[:, 0, :, :, 0], [np.full([2, 2], 2.0), np.full([2, 2], 5.0)])


@FORMS
def test_images_do_not_mix(form) -> None:
    maps = [np.stack([np.full([height, width, 1], value) for value in (1.0, 2.0)]) for height, width in SHAPES]
    boxes = np.tile(EDGE_BOXES[:2].astype(np.float32), (2, 1, 1))
    result = form(tensors(maps), boxes, np.int32([[0, 2], [1, 0]]), strides=STRIDES, size=3)
    np.testing.assert_allclose(result[0], 1.0, rtol=1e-6)
    np.testing.assert_allclose(result[1], 2.0, rtol=1e-6)


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
def test_half_precision(dtype) -> None:
    """`roi_align` computes in float32 whatever comes; the gather form keeps the features' type."""
    maps = [tf.cast(level, dtype) for level in tensors(feature_maps())]
    exact = align_ops.roi_align([tf.cast(level, tf.float32) for level in maps], BOXES, LEVELS, strides=STRIDES, size=3)
    partition = align_ops.roi_align(maps, BOXES, LEVELS, strides=STRIDES, size=3)
    assert partition.dtype == tf.float32
    np.testing.assert_array_equal(partition, exact)
    gathered = align_ops.roi_align_gather(maps, BOXES, LEVELS, strides=STRIDES, size=3)
    assert gathered.dtype == dtype
    np.testing.assert_allclose(tf.cast(gathered, tf.float32), exact, atol=0.06)


@FORMS
def test_unknown_options(form) -> None:
    maps = tensors(feature_maps())
    with pytest.raises(ValueError, match="samples is 3, expected 1 or 2"):
        form(maps, BOXES, LEVELS, strides=STRIDES, size=3, samples=3)
    with pytest.raises(ValueError, match="reduce is 'sum', expected average or max"):
        form(maps, BOXES, LEVELS, strides=STRIDES, size=3, reduce="sum")


@pytest.mark.parametrize(("form", "compiled"), [(align_ops.roi_align, False), (align_ops.roi_align_gather, True)])
def test_forms(form, compiled) -> None:
    def pool(*inputs: tf.Tensor) -> tf.Tensor:
        return form(inputs[:3], inputs[3], inputs[4], strides=STRIDES, size=3)

    assert_forms_agree(pool, *tensors(feature_maps()), BOXES, LEVELS, compiled=compiled)


@FORMS
def test_maps_of_a_size_known_at_run_time(form) -> None:
    maps = tensors(feature_maps())
    signature = [tf.TensorSpec([None, None, None, 3])] * 3
    pool = tf.function(lambda *levels: form(levels, BOXES, LEVELS, strides=STRIDES, size=3), input_signature=signature)
    np.testing.assert_allclose(pool(*maps), form(maps, BOXES, LEVELS, strides=STRIDES, size=3), atol=1e-5)


@FORMS
def test_batch_of_a_size_known_at_run_time(form) -> None:
    maps = tensors(feature_maps())
    signature = [tf.TensorSpec([None, len(BOXES[0]), 4]), tf.TensorSpec([None, len(BOXES[0])], tf.int32)]
    pool = tf.function(
        lambda boxes, levels: form(maps, boxes, levels, strides=STRIDES, size=3), input_signature=signature
    )
    assert pool.get_concrete_function().output_shapes[1:] == (len(BOXES[0]), 3, 3, 3)
    np.testing.assert_allclose(pool(BOXES, LEVELS), form(maps, BOXES, LEVELS, strides=STRIDES, size=3), atol=1e-5)


def squares(*sides: float) -> np.ndarray:
    return np.float32([[0, 0, side, side] for side in sides])


EPSILON = pytest.mark.parametrize("epsilon", align_ops.EPSILONS)


@EPSILON
def test_levels_exactly_at_the_boundaries(epsilon) -> None:
    """Areas of 112^2, 224^2 and 448^2 belong to the coarser level in every variant."""
    levels = align_ops.assign_levels(squares(56, 112, 224, 448, 896), epsilon=epsilon)
    np.testing.assert_array_equal(levels, [0, 1, 2, 3, 3])
    rectangles = np.float32([[0, 0, 56, 224], [9, 5, 9 + 128, 5 + 98], [0, 0, 128, 392], [0, 0, 512, 392]])
    np.testing.assert_array_equal(align_ops.assign_levels(rectangles, epsilon=epsilon), [1, 1, 2, 3])


@pytest.mark.parametrize(
    ("shortfall", "boundary", "expected"),
    [
        # A side short of the boundary by this share: lifted by torchvision up to 6.9e-7 and by Detectron up to
        # 1e-6 * 224 / side, by detectron2 not at all (1e-8 is less than float32 holds).
        (3.4e-7, 112, {"torchvision": 1, "detectron": 1, "detectron2": 0}),
        (1.4e-6, 112, {"torchvision": 0, "detectron": 1, "detectron2": 0}),
        (4e-6, 112, {"torchvision": 0, "detectron": 0, "detectron2": 0}),
        (3.4e-7, 224, {"torchvision": 2, "detectron": 2, "detectron2": 1}),
        (3e-6, 224, {"torchvision": 1, "detectron": 1, "detectron2": 1}),
        (3.4e-7, 448, {"torchvision": 3, "detectron": 3, "detectron2": 2}),
        (3e-6, 448, {"torchvision": 2, "detectron": 2, "detectron2": 2}),
    ],
)
@EPSILON
def test_levels_just_below_the_boundaries(epsilon, shortfall, boundary, expected) -> None:
    box = squares(boundary * (1 - shortfall))
    assert box[0, 2] < boundary
    assert reference.level(box[0], epsilon) == expected[epsilon]
    assert align_ops.assign_levels(box, epsilon=epsilon)[0] == expected[epsilon]


@EPSILON
@pytest.mark.parametrize(("lowest", "highest"), [(2, 5), (3, 4), (4, 4)])
def test_levels(epsilon, lowest, highest) -> None:
    rng = np.random.default_rng(4)
    corner = rng.uniform(-50, 500, (2, 50, 2))
    boxes = np.concatenate([corner, corner + rng.exponential(200, (2, 50, 2))], axis=-1).astype(np.float32)
    result = align_ops.assign_levels(boxes, lowest=lowest, highest=highest, epsilon=epsilon)
    assert result.dtype == tf.int32
    for image in range(2):
        expected = [reference.level(box, epsilon, lowest, highest) for box in boxes[image]]
        assert len(set(expected)) == highest - lowest + 1
        np.testing.assert_array_equal(result[image], expected)


@EPSILON
def test_levels_of_degenerate_and_huge_boxes(epsilon) -> None:
    boxes = np.float32([[5, 5, 5, 5], [9, 9, 2, 2], [0, 0, 100, 0], [0, 0, 1e5, 1e5], [0, 0, 1e-6, 1e-6]])
    expected = [0, 0, 0, 3, 0]
    np.testing.assert_array_equal(align_ops.assign_levels(boxes, epsilon=epsilon), expected)
    compiled = tf.function(lambda: align_ops.assign_levels(boxes, epsilon=epsilon), jit_compile=True)
    np.testing.assert_array_equal(compiled(), expected)


@EPSILON
def test_forms_of_levels(epsilon) -> None:
    boxes = squares(56, 112, 224, 448, 896, 100, 200, 400, 0, 3)[None]
    assert_forms_agree(lambda values: align_ops.assign_levels(values, epsilon=epsilon), boxes)


def test_unknown_epsilon() -> None:
    with pytest.raises(ValueError, match="epsilon is 'caffe', expected one of torchvision, detectron, detectron2"):
        align_ops.assign_levels(squares(10), epsilon="caffe")
