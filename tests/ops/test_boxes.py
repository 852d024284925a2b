"""Boxes: areas, overlap, clipping, coding and conversions."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from maskx_tf.ops import boxes as box_ops
from tests import reference
from tests.checks import assert_forms_agree, gradients
from tests.strategies import boxes as drawn_boxes

HEIGHT, WIDTH = 30.0, 40.0
HEAD_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
WEIGHTS = pytest.mark.parametrize("weights", [reference.ONES, HEAD_WEIGHTS])
# Inside, the whole image, touching the border, across it, outside, a line, a point, turned inside out, tiny, huge.
EDGE_BOXES = np.array(
    [
        [3.5, 4.25, 20.0, 17.5],
        [0.0, 0.0, 40.0, 30.0],
        [30.0, 20.0, 40.0, 30.0],
        [-5.0, -6.0, 7.0, 8.0],
        [35.0, 25.0, 55.0, 45.0],
        [50.0, 40.0, 60.0, 50.0],
        [-20.0, 3.0, -10.0, 9.0],
        [5.0, 5.0, 5.0, 12.0],
        [8.0, 8.0, 8.0, 8.0],
        [20.0, 18.0, 10.0, 9.0],
        [6.0, 6.0, 6.125, 6.0625],
        [-1e4, -1e4, 1e4, 1e4],
    ],
    np.float32,
)


def random_boxes(seed: int, count: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-5, 35, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(1, 20, (count, 2))], axis=1).astype(np.float32)


ALL_BOXES = np.concatenate([EDGE_BOXES, random_boxes(0, 20)])


def test_area_and_sides() -> None:
    np.testing.assert_allclose(box_ops.area(ALL_BOXES), [reference.area(box) for box in ALL_BOXES], rtol=1e-6)
    width, height = box_ops.sides(EDGE_BOXES)
    assert (np.asarray(width) >= 0).all()
    assert (np.asarray(height) >= 0).all()
    assert width[9] == height[9] == 0.0


def test_iou() -> None:
    others = np.concatenate([EDGE_BOXES, random_boxes(1, 9)])
    expected = reference.iou_matrix(ALL_BOXES, others)
    assert 0.1 < (expected > 0).mean() < 0.9
    np.testing.assert_allclose(box_ops.iou(ALL_BOXES, others), expected, atol=1e-6)


def test_iou_of_known_boxes() -> None:
    boxes = np.array([[0, 0, 10, 10]], np.float32)
    others = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [2, 2, 4, 4], [3, 3, 3, 3]], np.float32)
    np.testing.assert_allclose(box_ops.iou(boxes, others)[0], [1, 1 / 3, 0, 0.04, 0], rtol=1e-6)


def test_iou_in_batches() -> None:
    boxes = np.stack([random_boxes(seed, 7) for seed in (2, 3)])
    others = np.stack([random_boxes(seed, 5) for seed in (4, 5)])
    result = box_ops.iou(boxes, others)
    assert result.shape == (2, 7, 5)
    for image in range(2):
        np.testing.assert_allclose(result[image], reference.iou_matrix(boxes[image], others[image]), atol=1e-6)
    np.testing.assert_allclose(box_ops.iou(boxes, others[0])[1], reference.iou_matrix(boxes[1], others[0]), atol=1e-6)


def test_iou_of_no_boxes() -> None:
    assert box_ops.iou(np.zeros([0, 4], np.float32), ALL_BOXES).shape == (0, len(ALL_BOXES))
    assert box_ops.iou(ALL_BOXES, np.zeros([0, 4], np.float32)).shape == (len(ALL_BOXES), 0)


def test_iou_gradient() -> None:
    boxes, others = random_boxes(6, 5), random_boxes(7, 4)
    upstream = np.random.default_rng(8).normal(size=(5, 4))
    ours = gradients(box_ops.iou, upstream, boxes, others)
    theirs = [
        reference.numeric_gradient(lambda moved: np.sum(upstream * reference.iou_matrix(moved, others)), boxes),
        reference.numeric_gradient(lambda moved: np.sum(upstream * reference.iou_matrix(boxes, moved)), others),
    ]
    assert np.abs(theirs[0]).max() > 0.01
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(our, their, atol=1e-4)


def test_iou_gradient_is_finite_everywhere() -> None:
    upstream = np.ones([len(EDGE_BOXES), len(EDGE_BOXES)])
    for gradient in gradients(box_ops.iou, upstream, EDGE_BOXES, EDGE_BOXES):
        assert np.isfinite(gradient).all()


def test_clip() -> None:
    expected = [reference.clip(box, HEIGHT, WIDTH) for box in ALL_BOXES]
    np.testing.assert_allclose(box_ops.clip(ALL_BOXES, HEIGHT, WIDTH), expected, rtol=1e-6)
    outside = box_ops.clip(EDGE_BOXES[5:7], HEIGHT, WIDTH)
    np.testing.assert_array_equal(box_ops.area(outside), [0, 0])


def test_clip_to_each_image_of_a_batch() -> None:
    boxes = np.stack([ALL_BOXES, ALL_BOXES])
    result = box_ops.clip(boxes, np.array([[30.0], [12.0]]), np.array([[40.0], [9.0]]))
    for image, (height, width) in enumerate([(30, 40), (12, 9)]):
        expected = [reference.clip(box, height, width) for box in ALL_BOXES]
        np.testing.assert_allclose(result[image], expected, rtol=1e-6)


def test_margin() -> None:
    boxes = np.float32([[10, 20, 30, 60], [-5, 0, 5, 4], [7, 7, 7, 9], [0, 0, 0, 0]])
    expected = [[8, 16, 32, 64], [-6, -0.4, 6, 4.4], [7, 6.8, 7, 9.2], [0, 0, 0, 0]]
    np.testing.assert_allclose(box_ops.with_margin(boxes, 0.1), expected, rtol=1e-6)
    np.testing.assert_array_equal(box_ops.with_margin(boxes, 0.0), boxes)


def test_clip_gradient() -> None:
    boxes = random_boxes(9, 8)
    upstream = np.random.default_rng(10).normal(size=boxes.shape)
    theirs = reference.numeric_gradient(
        lambda moved: np.sum(upstream * [reference.clip(box, HEIGHT, WIDTH) for box in moved]), boxes
    )
    assert (theirs == 0).any()
    np.testing.assert_allclose(
        gradients(lambda b: box_ops.clip(b, HEIGHT, WIDTH), upstream, boxes)[0], theirs, atol=1e-6
    )


@WEIGHTS
def test_encode(weights) -> None:
    boxes, anchors = ALL_BOXES, np.roll(ALL_BOXES, 5, axis=0)
    expected = [reference.encode(box, anchor, weights) for box, anchor in zip(boxes, anchors, strict=True)]
    result = box_ops.encode(boxes, anchors, weights).numpy()
    assert np.isfinite(result).all()
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_encode_known_deltas() -> None:
    # The centre moves by half a width and a fifth of a height; the width doubles.
    result = box_ops.encode(np.float32([[0, 7, 20, 17]]), np.float32([[0, 5, 10, 15]]), HEAD_WEIGHTS)
    np.testing.assert_allclose(result, [[5.0, 2.0, 5 * np.log(2), 0.0]], rtol=1e-6)


@WEIGHTS
def test_encode_gradient(weights) -> None:
    boxes, anchors = random_boxes(11, 6), random_boxes(12, 6)
    upstream = np.random.default_rng(13).normal(size=boxes.shape)

    def total(moved_boxes: np.ndarray, moved_anchors: np.ndarray) -> float:
        rows = [reference.encode(*pair, weights) for pair in zip(moved_boxes, moved_anchors, strict=True)]
        return float(np.sum(upstream * rows))

    ours = gradients(lambda b, a: box_ops.encode(b, a, weights), upstream, boxes, anchors)
    theirs = [
        reference.numeric_gradient(lambda moved: total(moved, anchors), boxes),
        reference.numeric_gradient(lambda moved: total(boxes, moved), anchors),
    ]
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(our, their, rtol=1e-3, atol=1e-4)


def test_encode_gradient_is_finite_for_degenerate_boxes() -> None:
    for gradient in gradients(box_ops.encode, np.ones_like(EDGE_BOXES), EDGE_BOXES, EDGE_BOXES[::-1]):
        assert np.isfinite(gradient).all()


@WEIGHTS
def test_decode(weights) -> None:
    deltas = np.random.default_rng(14).normal(0, 2, ALL_BOXES.shape).astype(np.float32)
    # Far over the clip, just under it, and far below.
    deltas[:4, 2:] = [[60, 60], [4.1 * weights[2], 4.1 * weights[3]], [-50, -50], [1e4, -1e4]]
    expected = [reference.decode(delta, box, weights) for delta, box in zip(deltas, ALL_BOXES, strict=True)]
    result = box_ops.decode(deltas, ALL_BOXES, weights).numpy()
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-3)


def test_decode_grows_a_side_at_most_from_16_to_1000() -> None:
    result = box_ops.decode(np.float32([[0, 0, 99, 99]]), np.float32([[-8, -8, 8, 8]]))
    np.testing.assert_allclose(result, [[-500, -500, 500, 500]], rtol=1e-5)


@WEIGHTS
def test_decode_gradient(weights) -> None:
    anchors = random_boxes(15, 6)
    deltas = np.random.default_rng(16).normal(0, 0.7, anchors.shape).astype(np.float32)
    deltas[0, 2:] = 60.0  # clipped: no gradient
    upstream = np.random.default_rng(17).normal(size=anchors.shape)

    def total(moved_deltas: np.ndarray, moved_anchors: np.ndarray) -> float:
        rows = [reference.decode(*pair, weights) for pair in zip(moved_deltas, moved_anchors, strict=True)]
        return float(np.sum(upstream * rows))

    ours = gradients(lambda d, a: box_ops.decode(d, a, weights), upstream, deltas, anchors)
    theirs = [
        reference.numeric_gradient(lambda moved: total(moved, anchors), deltas),
        reference.numeric_gradient(lambda moved: total(deltas, moved), anchors),
    ]
    assert (theirs[0][0, 2:] == 0).all()
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(our, their, rtol=1e-3, atol=1e-3)


def test_conversions() -> None:
    boxes = np.float32([[3, 4, 13, 24], [0, 0, 0, 0]])
    np.testing.assert_array_equal(box_ops.swap_xy(boxes), [[4, 3, 24, 13], [0, 0, 0, 0]])
    np.testing.assert_array_equal(box_ops.swap_xy(box_ops.swap_xy(ALL_BOXES)), ALL_BOXES)
    np.testing.assert_allclose(box_ops.normalise(boxes, 48.0, 26.0)[0], [3 / 26, 4 / 48, 0.5, 0.5], rtol=1e-6)


def test_normalise_in_batches() -> None:
    boxes = np.stack([ALL_BOXES, ALL_BOXES])
    height, width = np.float32([[30], [12]]), np.float32([[40], [9]])
    norm = box_ops.normalise(boxes, height, width)
    np.testing.assert_allclose(norm[1], ALL_BOXES / np.float32([9, 12, 9, 12]), rtol=1e-6)
    np.testing.assert_allclose(box_ops.denormalise(norm, height, width), boxes, rtol=1e-5)


@pytest.mark.parametrize(
    "function",
    [
        lambda boxes, others: box_ops.iou(boxes, others),
        lambda boxes, others: box_ops.encode(boxes, others, HEAD_WEIGHTS),
        lambda boxes, others: box_ops.decode(others / 100.0, boxes, HEAD_WEIGHTS),
        lambda boxes, others: (
            box_ops.clip(boxes, HEIGHT, WIDTH),
            box_ops.area(boxes),
            box_ops.normalise(box_ops.swap_xy(boxes), HEIGHT, WIDTH),
        ),
    ],
)
def test_forms(function) -> None:
    boxes = ALL_BOXES[[*range(11), 20]]
    assert_forms_agree(function, boxes[None], boxes[None, ::-1])


@given(drawn_boxes(), drawn_boxes())
def test_iou_bounds_and_symmetry(boxes, others) -> None:
    overlaps = box_ops.iou(boxes, others).numpy()
    assert (overlaps >= 0).all()
    assert (overlaps <= 1).all()
    np.testing.assert_array_equal(overlaps.T, box_ops.iou(others, boxes))
    np.testing.assert_allclose(overlaps, reference.iou_matrix(boxes, others), atol=1e-6)


@given(drawn_boxes())
def test_iou_with_itself(boxes) -> None:
    own = np.diagonal(box_ops.iou(boxes, boxes))
    np.testing.assert_array_equal(own, box_ops.area(boxes).numpy() > 0)


@given(drawn_boxes(count=6, smallest_side=1), drawn_boxes(count=6, smallest_side=1), st.sampled_from([1.0, 5.0]))
def test_decode_inverts_encode(boxes, anchors, weight) -> None:
    weights = (2 * weight, 2 * weight, weight, weight)
    deltas = box_ops.encode(boxes, anchors, weights)
    np.testing.assert_allclose(box_ops.decode(deltas, anchors, weights), boxes, atol=1e-3)


@given(drawn_boxes(count=6, smallest_side=1), st.lists(st.floats(-1, 1, width=32), min_size=24, max_size=24))
def test_encode_inverts_decode(anchors, numbers) -> None:
    deltas = np.reshape(np.float32(numbers), [6, 4])
    boxes = box_ops.decode(deltas, anchors, HEAD_WEIGHTS)
    np.testing.assert_allclose(box_ops.encode(boxes, anchors, HEAD_WEIGHTS), deltas, atol=1e-3)


@given(drawn_boxes())
def test_clipping_twice_is_clipping_once(boxes) -> None:
    once = box_ops.clip(boxes, HEIGHT, WIDTH)
    np.testing.assert_array_equal(box_ops.clip(once, HEIGHT, WIDTH), once)
    assert (np.asarray(once) >= 0).all()
    assert (np.asarray(once) <= [WIDTH, HEIGHT, WIDTH, HEIGHT]).all()
    # What lies in the image stays in it.
    image = np.float32([[0, 0, WIDTH, HEIGHT]])
    inside = reference.iou_matrix(boxes, image)[:, 0] > 0
    np.testing.assert_array_equal(box_ops.area(once).numpy() > 0, inside)


def test_boxes_may_be_tensors_of_any_rank() -> None:
    assert box_ops.area(tf.zeros([2, 3, 5, 4])).shape == (2, 3, 5)
    assert box_ops.encode(tf.zeros([4]), tf.ones([4])).shape == (4,)


@pytest.mark.parametrize(
    "function",
    [
        lambda boxes: tf.stack(box_ops.sides(boxes)),
        box_ops.area,
        lambda boxes: box_ops.iou(boxes, boxes[1:]),
        lambda boxes: box_ops.clip(boxes, 30, 40),
        lambda boxes: box_ops.encode(boxes, boxes[::-1]),
        lambda boxes: box_ops.decode(tf.zeros([4, 4]), boxes),
        box_ops.swap_xy,
        lambda boxes: box_ops.normalise(boxes, 30, 40),
        lambda boxes: box_ops.denormalise(boxes, 30, 40),
    ],
)
@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint8])
def test_whole_numbers(function, kind) -> None:
    boxes = np.array([[0, 3, 10, 9], [5, 5, 5, 5], [30, 10, 50, 20], [20, 18, 10, 9]])
    found = function(boxes.astype(kind))
    assert found.dtype == tf.float32
    np.testing.assert_array_equal(found, function(boxes.astype(np.float32)))
