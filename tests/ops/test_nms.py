"""Non-maximum suppression in its three forms, and the choice of the best scores before it."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from maskx_tf.ops import nms as nms_ops
from tests import reference
from tests.checks import assert_forms_agree
from tests.strategies import boxes as drawn_boxes


def clusters(rng: np.random.Generator, count: int, extent: float = 60.0) -> np.ndarray:
    """Boxes around a few places, so that many overlap."""
    centre = rng.uniform(0, extent, (1 + count // 6, 2))[rng.integers(0, 1 + count // 6, count)]
    corner = centre + rng.normal(0, 3, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(5, 20, (count, 2))], axis=1).astype(np.float32)


def distinct(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Scores in 0..1, no two alike."""
    return ((rng.permutation(np.prod(shape)) + 1) / (np.prod(shape) + 1)).reshape(shape).astype(np.float32)


def kept_of(result: tuple[tf.Tensor, tf.Tensor], image: int) -> list[int]:
    """The kept indices of an image, after a look at the padding."""
    indices, valid = result[0][image].numpy(), result[1][image].numpy()
    count = valid.sum()
    assert valid[:count].all()
    assert (indices[count:] == 0).all()
    return indices[:count].tolist()


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("limit", [5, 40])
def test_nms(threshold, limit) -> None:
    rng = np.random.default_rng(1)
    boxes = np.stack([clusters(rng, 30) for _ in range(3)])
    scores, groups, valid = distinct(rng, 3, 30), rng.integers(1, 4, (3, 30)), rng.random((3, 30)) < 0.8
    result = nms_ops.nms(boxes, scores, groups, valid, iou_threshold=threshold, limit=limit)
    assert result[0].shape == result[1].shape == (3, limit)
    for image in range(3):
        expected = reference.nms(boxes[image], scores[image], groups[image], valid[image], threshold, limit)
        assert kept_of(result, image) == expected


def test_nms_suppresses_above_the_threshold_not_at_it() -> None:
    boxes = tf.constant(
        [[[0, 0, 20, 10], [0, 0, 10, 10], [0, 0, 10.25, 10]]], tf.float32
    )  # 1, .5 and .5125 of the first
    result = nms_ops.nms(boxes, [[0.9, 0.8, 0.7]], [[1, 1, 2]], [[True] * 3], iou_threshold=0.5, limit=3)
    assert kept_of(result, 0) == [0, 1, 2]
    result = nms_ops.nms(boxes, [[0.9, 0.2, 0.7]], [[1, 1, 1]], [[True] * 3], iou_threshold=0.5, limit=3)
    assert kept_of(result, 0) == [0, 1]


def test_nms_of_equal_scores_keeps_the_first() -> None:
    boxes = tf.constant([[[1, 0, 11, 10], [0, 0, 10, 10], [30, 0, 40, 10], [2, 0, 12, 10]]], tf.float32)
    result = nms_ops.nms(boxes, [[0.5] * 4], [[1] * 4], [[True] * 4], iou_threshold=0.5, limit=4)
    assert kept_of(result, 0) == [0, 2]


def test_nms_without_anything_valid() -> None:
    boxes = clusters(np.random.default_rng(2), 6)[None]
    result = nms_ops.nms(
        boxes, np.full([1, 6], 0.5), np.ones([1, 6]), np.zeros([1, 6], bool), iou_threshold=0.5, limit=4
    )
    assert kept_of(result, 0) == []


def test_nms_of_one_box() -> None:
    box = tf.constant([[[1, 2, 3, 4]]], tf.float32)
    assert kept_of(nms_ops.nms(box, [[0.0]], [[1]], [[True]], iou_threshold=0.5, limit=3), 0) == [0]


def test_nms_of_no_boxes() -> None:
    empty = tf.zeros([2, 0])
    result = nms_ops.nms(
        tf.zeros([2, 0, 4]), empty, tf.cast(empty, tf.int32), tf.cast(empty, tf.bool), iou_threshold=0.5, limit=3
    )
    assert kept_of(result, 0) == kept_of(result, 1) == []


def test_nms_of_no_images() -> None:
    empty = tf.zeros([0, 5])
    indices, valid = nms_ops.nms(
        tf.zeros([0, 5, 4]), empty, tf.cast(empty, tf.int32), tf.cast(empty, tf.bool), iou_threshold=0.5, limit=3
    )
    assert indices.shape == valid.shape == (0, 3)


def test_nms_of_degenerate_boxes() -> None:
    """They overlap nothing, themselves included, so none is suppressed."""
    boxes = tf.constant([[[5, 5, 5, 9], [5, 5, 5, 9], [8, 8, 2, 2], [0, 0, 10, 10]]], tf.float32)
    result = nms_ops.nms(boxes, [[0.9, 0.8, 0.7, 0.6]], [[1] * 4], [[True] * 4], iou_threshold=0.0, limit=4)
    assert kept_of(result, 0) == [0, 1, 2, 3]


def test_nms_of_a_chain() -> None:
    """Each box overlaps the next one alone: every second box stays, whichever block it is in."""
    left = 6.0 * np.arange(300, dtype=np.float32)
    boxes = np.stack([left, 0 * left, left + 10, 0 * left + 10], axis=-1)[None]
    scores = np.linspace(1, 0, 300, dtype=np.float32)[None]
    result = nms_ops.nms(
        boxes, scores, np.ones([1, 300], np.int32), np.ones([1, 300], bool), iou_threshold=0.2, limit=200
    )
    assert kept_of(result, 0) == list(range(0, 300, 2))


def test_nms_with_3000_classes() -> None:
    """As a loop over the classes, at pixels where an offset by the class id would move boxes by an eighth."""
    rng = np.random.default_rng(3)
    classes = np.append(rng.choice(np.arange(1, 3000), 59, replace=False), 3000)
    place = rng.integers(0, 60, (2, 400))
    groups = np.where(rng.random((2, 400)) < 0.8, classes[place], rng.integers(1, 3001, (2, 400)))
    # Shifts of a box of 100 that differ by a quarter of a pixel: IoU .501 and .498.
    shift = rng.choice([0, 33.25, 33.5, 66.0], (2, 400, 1)) * [1, 0]
    corner = rng.uniform(0, 1200, (60, 2))[place] + shift
    boxes = np.concatenate([corner, corner + 100], axis=-1).astype(np.float32)
    scores, valid = distinct(rng, 2, 400), rng.random((2, 400)) < 0.95
    suppress = tf.function(lambda *inputs: nms_ops.nms(*inputs, iou_threshold=0.5, limit=400))
    result = suppress(boxes, scores, groups, valid)
    for image in range(2):
        expected = reference.nms(boxes[image], scores[image], groups[image], valid[image], 0.5, 400)
        assert 150 < len(expected) < 300
        assert kept_of(result, image) == expected


LEVEL_FORMS = pytest.mark.parametrize("suppress", [nms_ops.nms_levels, nms_ops.nms_levels_portable])


def levels_reference(
    boxes: np.ndarray, scores: np.ndarray, valid: np.ndarray, threshold: float, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and scores kept of one image, [N, L] entries, each level by itself."""
    found: list[tuple[float, np.ndarray]] = []
    for level in range(scores.shape[1]):
        column = boxes[:, level], scores[:, level], np.zeros(len(scores)), valid[:, level]
        found += [(scores[index, level], boxes[index, level]) for index in reference.nms(*column, threshold, 10**6)]
    found = sorted(found, key=lambda item: -item[0])[:limit]
    return np.array([box for _, box in found]).reshape(-1, 4), np.array([score for score, _ in found])


@LEVEL_FORMS
@pytest.mark.parametrize("limit", [7, 30, 100])
@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_nms_levels(suppress, limit, threshold) -> None:
    rng = np.random.default_rng(4)
    boxes = np.stack([np.stack([clusters(rng, 25) for _ in range(3)], axis=1) for _ in range(2)])
    scores, valid = distinct(rng, 2, 25, 3), rng.random((2, 25, 3)) < 0.8
    result = suppress(boxes, tf.constant(scores), valid, iou_threshold=threshold, limit=limit)
    assert [part.shape for part in result] == [(2, limit, 4), (2, limit), (2, limit)]
    for image in range(2):
        kept_boxes, kept_scores = levels_reference(boxes[image], scores[image], valid[image], threshold, limit)
        count = len(kept_scores)
        assert count == result[2][image].numpy().sum()
        assert result[2][image].numpy()[:count].all()
        np.testing.assert_array_equal(result[0][image][:count], kept_boxes)
        np.testing.assert_array_equal(result[1][image][:count], kept_scores)
        assert not result[0][image].numpy()[count:].any()
        assert not result[1][image].numpy()[count:].any()


@LEVEL_FORMS
def test_nms_levels_without_anything_valid(suppress) -> None:
    boxes = tf.constant(clusters(np.random.default_rng(5), 12).reshape(2, 3, 2, 4))
    result = suppress(boxes, tf.fill([2, 3, 2], 0.5), tf.zeros([2, 3, 2], tf.bool), iou_threshold=0.5, limit=4)
    assert not any(part.numpy().any() for part in result)


@LEVEL_FORMS
def test_nms_levels_keeps_a_score_of_zero(suppress) -> None:
    """A sigmoid may underflow: only what is not valid goes."""
    box = tf.constant([[[[1, 2, 3, 4]]]], tf.float32)
    boxes, _, valid = suppress(box, tf.zeros([1, 1, 1]), tf.ones([1, 1, 1], tf.bool), iou_threshold=0.5, limit=2)
    np.testing.assert_array_equal(valid, [[True, False]])
    np.testing.assert_array_equal(boxes[0, 0], [1, 2, 3, 4])


@LEVEL_FORMS
def test_nms_levels_of_boxes_outside_and_without_area(suppress) -> None:
    """Boxes are not clipped to the unit square, as TensorFlow's kernel would by default."""
    boxes = tf.constant([[[[-50, -60, -20, -30]], [[5, 5, 5, 5]], [[900, 900, 950, 950]]]], tf.float32)
    result = suppress(boxes, [[[0.9], [0.8], [0.7]]] * tf.ones([1, 1, 1]), [[[True]] * 3], iou_threshold=0.5, limit=3)
    np.testing.assert_array_equal(result[0], boxes[:, :, 0])


@LEVEL_FORMS
def test_nms_levels_of_no_candidates(suppress) -> None:
    empty = tf.zeros([2, 0, 3])
    boxes, scores, valid = suppress(tf.zeros([2, 0, 3, 4]), empty, tf.cast(empty, tf.bool), iou_threshold=0.5, limit=4)
    assert (boxes.shape, scores.shape) == ((2, 4, 4), (2, 4))
    assert not valid.numpy().any()


def test_forms_of_nms_levels_agree() -> None:
    rng = np.random.default_rng(6)
    boxes = np.stack([clusters(rng, 40, 200.0) for _ in range(5)], axis=1)[None]
    scores, valid = distinct(rng, 1, 40, 5), rng.random((1, 40, 5)) < 0.9
    for limit in (1, 20, 150):
        kernel = nms_ops.nms_levels(boxes, scores, valid, iou_threshold=0.6, limit=limit)
        portable = nms_ops.nms_levels_portable(boxes, tf.constant(scores), valid, iou_threshold=0.6, limit=limit)
        for ours, theirs in zip(kernel, portable, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def tied_levels() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits in bfloat16 tie, and sigmoids saturate at 1."""
    rng = np.random.default_rng(7)
    boxes = np.stack([clusters(rng, 24), clusters(rng, 24)], axis=1)[None]
    return boxes, rng.integers(1, 4, (1, 24, 2)).astype(np.float32) / 4, np.ones([1, 24, 2], bool)


def test_nms_levels_portable_of_equal_scores_keeps_the_first() -> None:
    boxes, scores, valid = tied_levels()
    for limit in (5, 48):
        result = nms_ops.nms_levels_portable(boxes, tf.constant(scores), valid, iou_threshold=0.5, limit=limit)
        levels = boxes[0].swapaxes(0, 1).reshape(-1, 4), scores[0].T.ravel(), np.repeat([0, 1], 24)
        expected = reference.nms(*levels, valid.ravel(), 0.5, limit)
        np.testing.assert_array_equal(result[0][0][: len(expected)], levels[0][expected])


def test_nms_levels_of_equal_scores_keeps_some() -> None:
    """TensorFlow's kernel takes equal scores in any order: whatever it keeps must be a suppression all the same."""
    boxes, scores, valid = tied_levels()
    result = nms_ops.nms_levels(boxes, scores, valid, iou_threshold=0.5, limit=48)
    flat = boxes.reshape(-1, 4)
    count = int(result[2].numpy().sum())
    kept = [int(np.flatnonzero((flat == box).all(axis=1))[0]) for box in result[0][0][:count].numpy()]
    assert len(set(kept)) == count
    overlaps = reference.iou_matrix(flat, flat)
    for index in range(len(flat)):
        rivals = [
            other
            for other in kept
            if other % 2 == index % 2 and scores.flat[other] >= scores.flat[index] and overlaps[index, other] > 0.5
        ]
        assert rivals == [index] if index in kept else rivals


BLOCK = nms_ops.BLOCK
LENGTHS = [1, 2, 5, BLOCK - 1, BLOCK, BLOCK + 1, 4 * BLOCK, 4 * BLOCK + 1, 6 * BLOCK - 1, 6 * BLOCK, 40 * BLOCK + 1]


@pytest.mark.parametrize("limit", [1, 2, 7, 130])
@pytest.mark.parametrize("length", LENGTHS)
def test_top_scores(length, limit) -> None:
    scores = distinct(np.random.default_rng(length), 3, length)
    values, indices = nms_ops.top_scores(tf.constant(scores), limit)
    order = np.argsort(-scores, axis=1)[:, :limit]
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_array_equal(values, np.take_along_axis(scores, order, axis=1))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("highest", [0, 1, 5])
def test_top_scores_among_equals(length, highest) -> None:
    """Zeros count as much as anything, and the padding of the last block never shows."""
    scores = np.random.default_rng(length).integers(0, highest + 1, (2, length)).astype(np.float32)
    values, indices = (part.numpy() for part in nms_ops.top_scores(tf.constant(scores), 9))
    np.testing.assert_array_equal(values, -np.sort(-scores, axis=1)[:, :9])
    np.testing.assert_array_equal(np.take_along_axis(scores, indices, axis=1), values)
    for row in indices:
        assert len(set(row)) == min(9, length)


def test_top_scores_in_one_block() -> None:
    """All of the best may stand next to each other, and the best of all at a block's end."""
    scores = np.zeros([1, 50 * BLOCK], np.float32)
    scores[0, 17 * BLOCK - 6 : 17 * BLOCK] = [1, 2, 3, 4, 5, 6]
    _, indices = nms_ops.top_scores(tf.constant(scores), 6)
    np.testing.assert_array_equal(indices[0], 17 * BLOCK - 1 - np.arange(6))


def test_top_scores_in_the_last_block() -> None:
    """A best entry there brings its block to the front, whose padding must not pass for zeros."""
    scores = np.zeros([1, 50 * BLOCK + 2], np.float32)
    scores[0, -1] = 1
    values, indices = nms_ops.top_scores(tf.constant(scores), 6)
    np.testing.assert_array_equal(values, [[1, 0, 0, 0, 0, 0]])
    assert indices[0, 0] == 50 * BLOCK + 1
    assert (np.asarray(indices) < 50 * BLOCK + 2).all()


def test_forms() -> None:
    rng = np.random.default_rng(8)
    boxes = np.stack([clusters(rng, 20) for _ in range(2)])
    scores, groups, valid = distinct(rng, 2, 20), rng.integers(1, 4, (2, 20), np.int32), rng.random((2, 20)) < 0.8
    assert_forms_agree(lambda *inputs: nms_ops.nms(*inputs, iou_threshold=0.5, limit=9), boxes, scores, groups, valid)


@pytest.mark.parametrize(("suppress", "compiled"), [(nms_ops.nms_levels, False), (nms_ops.nms_levels_portable, True)])
def test_forms_of_nms_levels(suppress, compiled) -> None:
    rng = np.random.default_rng(9)
    boxes = np.stack([clusters(rng, 20).reshape(10, 2, 4) for _ in range(2)])
    scores, valid = distinct(rng, 2, 10, 2), rng.random((2, 10, 2)) < 0.8
    assert_forms_agree(
        lambda *inputs: suppress(*inputs, iou_threshold=0.5, limit=9), boxes, scores, valid, compiled=compiled
    )


@pytest.mark.parametrize("length", [50, 10 * BLOCK + 3])
def test_forms_of_top_scores(length) -> None:
    scores = distinct(np.random.default_rng(10), 2, length)
    assert_forms_agree(lambda values: nms_ops.top_scores(values, 4), scores)


@given(
    drawn_boxes(count=12),
    st.lists(st.integers(0, 8), min_size=12, max_size=12),
    st.lists(st.integers(1, 3), min_size=12, max_size=12),
    st.lists(st.booleans(), min_size=12, max_size=12),
    st.sampled_from([0.25, 0.5, 0.75]),
    st.sampled_from([3, 12]),
)
def test_invariants(boxes, eighths, groups, valid, threshold, limit) -> None:
    scores, groups, valid = np.float32(eighths) / 8, np.array(groups), np.array(valid)
    result = nms_ops.nms(boxes[None], scores[None], groups[None], valid[None], iou_threshold=threshold, limit=limit)
    kept = kept_of(result, 0)
    overlaps = reference.iou_matrix(boxes, boxes)
    assert valid[kept].all()
    assert len(set(kept)) == len(kept)
    assert list(scores[kept]) == sorted(scores[kept], reverse=True)
    if valid.any():
        assert scores[kept[0]] == scores[valid].max()
    for place, index in enumerate(kept):
        assert all(groups[index] != groups[other] or overlaps[index, other] <= threshold for other in kept[place + 1 :])
    for index in set(np.flatnonzero(valid)) - set(kept):
        better = [other for other in kept if groups[other] == groups[index] and scores[other] >= scores[index]]
        full = len(kept) == limit and scores[kept[-1]] >= scores[index]
        assert full or any(overlaps[index, other] > threshold for other in better)
    assert kept == reference.nms(boxes, scores, groups, valid, threshold, limit)
