"""RoIAlign in both forms, values and gradients, and the choice of levels."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.ops import roi_adaptive
from maskx_tf.ops import roi_align as align_ops
from tests import reference
from tests import reference_pooling as pooling
from tests.checks import assert_forms_agree, gradients
from tests.pyramid import BOXES, EDGE_BOXES, LEVELS, SHAPES, STRIDES, feature_maps, tensors

FORMS = pytest.mark.parametrize("form", [align_ops.roi_align, align_ops.roi_align_gather])
SAMPLES = pytest.mark.parametrize(
    ("samples", "reduce"), [(1, "average"), (1, "max"), (2, "average"), (2, "max"), (0, "average")]
)
ALIGNED = pytest.mark.parametrize("aligned", [True, False])


@FORMS
@SAMPLES
@ALIGNED
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
@SAMPLES
@ALIGNED
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
@pytest.mark.parametrize("samples", [2, 0])
@ALIGNED
def test_forms_agree_on_many_boxes(size, samples, aligned) -> None:
    rng = np.random.default_rng(3)
    corner = rng.uniform(-20, 60, (2, 150, 2))
    boxes = np.concatenate([corner, corner + rng.exponential(20, (2, 150, 2))], axis=-1).astype(np.float32)
    levels = rng.integers(0, 3, (2, 150)).astype(np.int32)
    maps = tensors(feature_maps(channels=5))
    options = {"strides": STRIDES, "size": size, "samples": samples, "aligned": aligned}
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


# What torchvision's kernel (0.28, on a CPU) makes of the map and the boxes below with sampling_ratio=0: 2 x 2 bins of
# each region, and the gradient of their sum.
TORCHVISION = {
    True: (
        """8.544379 8.806966 7.212675 9.590928  4.992894 8.032063 0.61058 2.119325  16 6 0 8
        5.750433 7.069119 5.855469 7.504232""",
        """0.258789 0.646398 0.387782 0.195855 0.191189 0.191189 0.191189 0.215386
        0.444227 0.620877 0.473958 0.344401 0.336372 0.336372 0.336371 0.367839
        0.083008 0.376172 0.227886 1.11556 1.113932 0.113932 0.113932 0.056966
        0.083008 0.376172 0.227886 1.11556 1.113932 0.113932 0.113932 0.056966
        0.077474 0.368576 0.219748 0.107856 0.106337 0.106337 0.106337 0.053168
        0.038737 0.426736 0.207704 0.053928 0.053168 0.053168 0.053168 0.026584""",
    ),
    False: (
        """8.014432 9.805664 7.146702 9.69542  8.502387 11.254775 1.916667 3.158334  7.5 10.75 7.75 12
        6.85026 8.438802 7.561198 7.576823""",
        """0.002062 0.107205 0.359158 0.025174 0.007595 0.007595 0.007595 0.007921
        0.238932 0.368576 0.566406 0.304167 0.290365 0.290365 0.290365 0.463325
        0.238932 0.368576 0.566406 0.554167 0.790365 0.540365 0.290365 0.463325
        0.028863 0.184549 0.382378 0.620139 1.106337 0.606337 0.106337 0.110894
        0.028863 0.184549 0.382378 0.370139 0.606337 0.356337 0.106337 0.110894
        0.030924 0.268142 0.658203 0.141146 0.113932 0.113932 0.113932 0.118815""",
    ),
}


@FORMS
@ALIGNED
def test_adaptive_sampling_is_torchvisions(form, aligned) -> None:
    rows, columns = np.mgrid[0:6, 0:8]
    level = ((rows * rows * 3 + columns * 5 + rows * columns) % 17.0)[None, :, :, None]
    boxes = np.float32([[[1, 2, 30, 22], [5.3, -3, 9, 40], [12, 8, 20, 16], [-6, 4, 37, 5]]])
    options = {"strides": (4,), "size": 2, "samples": 0, "aligned": aligned}
    values, gradient = (np.array(numbers.split(), float) for numbers in TORCHVISION[aligned])

    def pool(level: tf.Tensor) -> tf.Tensor:
        return form([level], boxes, np.zeros([1, 4], np.int32), **options)

    np.testing.assert_allclose(tf.reshape(pool(tf.constant(level, tf.float32)), [-1]), values, atol=2e-5)
    (found,) = gradients(pool, np.ones([1, 4, 2, 2, 1]), level)
    np.testing.assert_allclose(found.ravel(), gradient, atol=2e-5)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("size", [3, 7, 14])
def test_bins_are_measured_exactly(size, jit) -> None:
    """Lengths at a multiple of the bins, and the next numbers to either side, up to more cells than any map has."""
    multiples = (np.arange(1, 600) * size).astype(np.float32)
    extents = np.concatenate([multiples, np.nextafter(multiples, np.inf), np.nextafter(multiples, -np.inf)])
    expected = [math.ceil(Fraction(float(extent)) / size) for extent in extents]
    measure = tf.function(lambda values: roi_adaptive._length_of_bins(values, size), jit_compile=jit)
    np.testing.assert_array_equal(measure(extents), expected)


@FORMS
@ALIGNED
def test_boxes_of_whole_bins_have_no_sample_too_many(form, aligned) -> None:
    """Where the edges differ by whole bins in float32, in which kernels compute, a bin has no sample too many."""
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 20, [400, 2]).astype(np.float32)
    high = low + np.float32(28)
    shift = np.float32(0.5 if aligned else 0)
    whole = (high / 4 - shift) - (low / 4 - shift) == 7
    low = low[whole.all(axis=1)][:40]
    assert len(low) == 40
    maps = feature_maps(1)[:1]
    options = {"strides": STRIDES[:1], "size": 7, "samples": 0, "aligned": aligned}
    exact = np.concatenate([low.astype(np.float64), low.astype(np.float64) + 28], axis=1)[None]
    levels = np.zeros([1, 40], np.int32)
    bins = pooling.align_bins(SHAPES[:1], np.round(exact * 2**16) / 2**16, levels, **options)
    boxes = np.concatenate([low, low + np.float32(28)], axis=1)[None]
    expected = pooling.pooled(maps, bins, (1, 40, 7), "average")
    np.testing.assert_allclose(form(tensors(maps), boxes, levels, **options), expected, atol=1e-3)


@FORMS
def test_boxes_beyond_all_bounds_end(form) -> None:
    """Adaptively, a box has samples for its length: one that no image holds has no more than the map has cells."""
    maps = tensors(feature_maps(1))
    boxes = tf.constant([[[-1e9, -1e9, 1e9, 1e9], [0, 0, np.inf, 30], [0, 0, np.nan, 30], [8, 8, 24, 24]]], tf.float32)
    options = {"strides": STRIDES, "size": 2, "samples": 0}
    levels = tf.zeros([1, 4], tf.int32)
    result = form(maps, boxes, levels, **options).numpy()
    np.testing.assert_allclose(result[:, 3:], form(maps, boxes[:, 3:], levels[:, 3:], **options), atol=1e-6)
    assert not result[0, 0].any()


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
@pytest.mark.parametrize("samples", [2, 0])
def test_no_boxes(form, samples) -> None:
    maps = tensors(feature_maps())
    result = form(maps, tf.zeros([2, 0, 4]), tf.zeros([2, 0], tf.int32), strides=STRIDES, size=7, samples=samples)
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
@pytest.mark.parametrize("samples", [2, 0])
def test_half_precision(samples, dtype) -> None:
    """`roi_align` computes in float32 whatever comes; the gather form keeps the features' type."""
    maps = [tf.cast(level, dtype) for level in tensors(feature_maps())]
    options = {"strides": STRIDES, "size": 3, "samples": samples}
    exact = align_ops.roi_align([tf.cast(level, tf.float32) for level in maps], BOXES, LEVELS, **options)
    partition = align_ops.roi_align(maps, BOXES, LEVELS, **options)
    assert partition.dtype == tf.float32
    np.testing.assert_array_equal(partition, exact)
    gathered = align_ops.roi_align_gather(maps, BOXES, LEVELS, **options)
    assert gathered.dtype == dtype
    np.testing.assert_allclose(tf.cast(gathered, tf.float32), exact, atol=0.06)


@FORMS
def test_unknown_options(form) -> None:
    maps = tensors(feature_maps())
    with pytest.raises(ValueError, match="samples is 3, expected 0, 1 or 2"):
        form(maps, BOXES, LEVELS, strides=STRIDES, size=3, samples=3)
    with pytest.raises(ValueError, match="reduce is 'max', expected average, because samples is 0"):
        form(maps, BOXES, LEVELS, strides=STRIDES, size=3, samples=0, reduce="max")
    with pytest.raises(ValueError, match="reduce is 'sum', expected average or max"):
        form(maps, BOXES, LEVELS, strides=STRIDES, size=3, reduce="sum")


@pytest.mark.parametrize(("form", "compiled"), [(align_ops.roi_align, False), (align_ops.roi_align_gather, True)])
@pytest.mark.parametrize("samples", [2, 0])
def test_forms(form, compiled, samples) -> None:
    def pool(*inputs: tf.Tensor) -> tf.Tensor:
        return form(inputs[:3], inputs[3], inputs[4], strides=STRIDES, size=3, samples=samples)

    assert_forms_agree(pool, *tensors(feature_maps()), BOXES, LEVELS, compiled=compiled)


@FORMS
@pytest.mark.parametrize("samples", [2, 0])
def test_maps_of_a_size_known_at_run_time(form, samples) -> None:
    maps, options = tensors(feature_maps()), {"strides": STRIDES, "size": 3, "samples": samples}
    signature = [tf.TensorSpec([None, None, None, 3])] * 3
    pool = tf.function(lambda *levels: form(levels, BOXES, LEVELS, **options), input_signature=signature)
    np.testing.assert_allclose(pool(*maps), form(maps, BOXES, LEVELS, **options), atol=1e-5)


@FORMS
@pytest.mark.parametrize("samples", [2, 0])
def test_batch_of_a_size_known_at_run_time(form, samples) -> None:
    maps, options = tensors(feature_maps()), {"strides": STRIDES, "size": 3, "samples": samples}
    signature = [tf.TensorSpec([None, len(BOXES[0]), 4]), tf.TensorSpec([None, len(BOXES[0])], tf.int32)]
    pool = tf.function(lambda boxes, levels: form(maps, boxes, levels, **options), input_signature=signature)
    assert pool.get_concrete_function().output_shapes[1:] == (len(BOXES[0]), 3, 3, 3)
    np.testing.assert_allclose(pool(BOXES, LEVELS), form(maps, BOXES, LEVELS, **options), atol=1e-5)


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
