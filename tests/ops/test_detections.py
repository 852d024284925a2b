"""The steps after the heads: candidates, class-wise detections, and the RPN's proposals."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.ops import detections as detection_ops
from maskx_tf.ops import nms as nms_ops
from maskx_tf.ops.detections import Suppression
from maskx_tf.structures import Detections, Proposals
from tests import reference
from tests.checks import assert_forms_agree

SUPPRESS = pytest.mark.parametrize("suppress", [nms_ops.nms_levels, nms_ops.nms_levels_portable])
SIZES = np.float32([[30, 40], [17, 9]])


def probabilities(seed: int, *shape: int) -> np.ndarray:
    """Scores in 0..1, no two alike in an image."""
    rng = np.random.default_rng(seed)
    count = int(np.prod(shape[1:]))
    ranks = np.stack([rng.permutation(count) for _ in range(shape[0])])
    return ((ranks + 0.5) / count).astype(np.float32).reshape(shape)


@pytest.mark.parametrize(("classes", "limit"), [(1, 4), (4, 5), (4, 100), (3000, 6), (3000, 50)])
@pytest.mark.parametrize("threshold", [0.0, 0.6, 0.99999])
def test_candidates(classes, limit, threshold) -> None:
    scores = probabilities(classes, 2, 7, classes)
    valid = np.array([[True] * 7, [True, False, True, True, False, True, False]])
    result = detection_ops.candidates(tf.constant(scores), valid, threshold=threshold, limit=limit)
    width = min(limit, 7 * classes)
    assert [part.shape for part in result] == [(2, width)] * 4
    for image in range(2):
        expected = reference.candidates(scores[image], valid[image], threshold, limit)
        count = len(expected)
        np.testing.assert_array_equal(result.valid[image], np.arange(width) < count)
        found = zip(
            result.scores[image].numpy(), result.regions[image].numpy(), result.classes[image].numpy(), strict=True
        )
        assert list(found)[:count] == expected
        for part in result:
            assert not part[image].numpy()[count:].any()


def test_candidates_score_more_than_the_threshold() -> None:
    result = detection_ops.candidates(tf.constant([[[0.5, 0.25]]]), tf.constant([[True]]), threshold=0.25, limit=2)
    np.testing.assert_array_equal(result.valid, [[True, False]])
    np.testing.assert_array_equal(result.classes, [[1, 0]])


@pytest.mark.parametrize("valid", [True, False])
def test_candidates_where_nothing_scores(valid) -> None:
    flags = tf.fill([2, 5], valid)
    result = detection_ops.candidates(tf.zeros([2, 5, 300]), flags, threshold=0.0, limit=8)
    assert not any(part.numpy().any() for part in result)


def overlapping_boxes(seed: int, *shape: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-10, 40, (*shape, 2))
    return np.concatenate([corner, corner + rng.uniform(4, 30, (*shape, 2))], axis=-1).astype(np.float32)


def detection_inputs(classes: int, limit: int) -> tuple[np.ndarray, detection_ops.Candidates]:
    scores = probabilities(1, 2, 20, classes)
    chosen = detection_ops.candidates(tf.constant(scores), np.ones([2, 20], bool), threshold=0.2, limit=limit)
    return overlapping_boxes(2, 2, limit), chosen


@pytest.mark.parametrize("classes", [1, 4, 3000])
@pytest.mark.parametrize("limit", [3, 60])
def test_detections(classes, limit) -> None:
    boxes, chosen = detection_inputs(classes, 20 if classes == 1 else 60)
    result = detection_ops.detections(boxes, chosen, image_sizes=SIZES, iou_threshold=0.3, limit=limit)
    assert isinstance(result, Detections)
    assert result.masks is None
    assert [part.shape for part in result[:4]] == [(2, limit, 4), (2, limit), (2, limit), (2, limit)]
    for image in range(2):
        clipped = np.array([reference.clip(box, *SIZES[image]) for box in boxes[image]])
        valid = [bool(flag) and reference.area(box) > 0 for flag, box in zip(chosen.valid[image], clipped, strict=True)]
        assert not all(valid)
        kept = reference.nms(clipped, chosen.scores[image], chosen.classes[image], valid, 0.3, limit)
        count = len(kept)
        assert count
        np.testing.assert_array_equal(result.valid[image], np.arange(limit) < count)
        np.testing.assert_array_equal(result.boxes[image][:count], clipped[kept])
        np.testing.assert_array_equal(result.scores[image][:count], chosen.scores[image].numpy()[kept])
        np.testing.assert_array_equal(result.classes[image][:count], chosen.classes[image].numpy()[kept])
        for part in result[:3]:
            assert not part[image].numpy()[count:].any()


@pytest.mark.parametrize("soft", [None, "linear", "gaussian"])
@pytest.mark.parametrize("vote_iou", [None, 0.4])
def test_soft_suppression_and_votes(soft, vote_iou) -> None:
    """Against loops: scores that fall with the overlap, and boxes that are means of those of their class."""
    boxes, chosen = detection_inputs(3, 40)
    options = {"suppression": Suppression(soft, 0.4, vote_iou), "least": 0.2}
    result = detection_ops.detections(boxes, chosen, image_sizes=SIZES, iou_threshold=0.3, limit=12, **options)
    changed = 0
    for image in range(2):
        clipped = np.stack([reference.clip(box, *SIZES[image]) for box in boxes[image]])
        valid = chosen.valid[image].numpy() & (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
        given = clipped, chosen.scores[image].numpy(), chosen.classes[image].numpy(), valid
        if soft is None:
            kept = [(index, given[1][index]) for index in reference.nms(*given, 0.3, 12)]
        else:
            kept = reference.soft_nms(*given, 0.3 if soft == "linear" else None, 0.4, 0.2, 12)
        count = int(result.valid[image].numpy().sum())
        assert count == len(kept) > 0
        own = [index for index, _ in kept]
        np.testing.assert_array_equal(result.classes[image][:count], given[2][own])
        np.testing.assert_allclose(result.scores[image][:count], [score for _, score in kept], atol=1e-5)
        means = [clipped[index] if vote_iou is None else reference.voted_box(index, *given, vote_iou) for index in own]
        np.testing.assert_allclose(result.boxes[image][:count], means, atol=1e-4)
        changed += sum(score != given[1][index] for index, score in kept)
    assert (changed > 0) == (soft is not None)


def test_detections_of_nothing() -> None:
    nothing = detection_ops.candidates(tf.zeros([2, 5, 3]), tf.zeros([2, 5], tf.bool), threshold=0.05, limit=10)
    boxes = overlapping_boxes(3, 2, 10)
    result = detection_ops.detections(boxes, nothing, image_sizes=SIZES, iou_threshold=0.5, limit=4)
    assert not any(part.numpy().any() for part in result[:4])


def test_detections_drop_what_lies_outside() -> None:
    chosen = detection_ops.candidates(
        tf.constant([[[0.9], [0.8]]]), tf.constant([[True, True]]), threshold=0.05, limit=2
    )
    boxes = tf.constant([[[50, 5, 60, 10], [35, 5, 60, 10]]], tf.float32)
    result = detection_ops.detections(boxes, chosen, image_sizes=SIZES[:1], iou_threshold=0.5, limit=2)
    np.testing.assert_array_equal(result.boxes, [[[35, 5, 40, 10], [0, 0, 0, 0]]])


# Three levels, of which one holds fewer anchors than the candidates asked for.
ANCHORS = [overlapping_boxes(seed, count) for seed, count in ((4, 40), (5, 25), (6, 6))]


def heads(seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    logits = [rng.normal(0, 2, (2, len(level))).astype(np.float32) for level in ANCHORS]
    return logits, [rng.normal(0, 0.4, (2, len(level), 4)).astype(np.float32) for level in ANCHORS]


def tensors(arrays: list[np.ndarray]) -> list[tf.Tensor]:
    return [tf.constant(array) for array in arrays]


@SUPPRESS
@pytest.mark.parametrize(
    ("per_level", "limit", "min_side", "threshold"),
    [(12, 20, 0.0, 0.7), (12, 60, 5.0, 0.5), (1000, 15, 1e-3, 0.3), (1000, 200, 0.0, 0.7)],
)
def test_proposals(suppress, per_level, limit, min_side, threshold) -> None:
    logits, deltas = heads(7)
    result = detection_ops.proposals(
        tensors(logits),
        tensors(deltas),
        tensors(ANCHORS),
        image_sizes=tf.constant(SIZES),
        candidates_per_level=per_level,
        limit=limit,
        iou_threshold=threshold,
        min_side=min_side,
        suppress=suppress,
    )
    assert isinstance(result, Proposals)
    assert [part.shape for part in result] == [(2, limit, 4), (2, limit), (2, limit)]
    for image in range(2):
        boxes, scores = reference.proposals(
            [level[image] for level in logits],
            [level[image] for level in deltas],
            ANCHORS,
            tuple(SIZES[image]),
            per_level,
            limit,
            threshold,
            min_side,
        )
        count = len(scores)
        assert count
        np.testing.assert_array_equal(result.valid[image], np.arange(limit) < count)
        np.testing.assert_allclose(result.scores[image][:count], scores, rtol=1e-5)
        np.testing.assert_allclose(result.boxes[image][:count], boxes, atol=1e-4)
        assert not result.boxes[image].numpy()[count:].any()


@SUPPRESS
def test_proposals_where_every_box_is_outside(suppress) -> None:
    logits, _ = heads(8)
    result = detection_ops.proposals(
        tensors(logits),
        [tf.zeros([2, len(level), 4]) for level in ANCHORS],
        [tf.constant(level + 1000) for level in ANCHORS],
        image_sizes=tf.constant(SIZES),
        candidates_per_level=10,
        limit=5,
        iou_threshold=0.7,
        suppress=suppress,
    )
    assert not any(part.numpy().any() for part in result)


@SUPPRESS
def test_proposals_of_one_level(suppress) -> None:
    """The best anchor comes first, exactly where its deltas put it."""
    anchors = tf.constant([[0, 0, 10, 10], [20, 0, 30, 10]], tf.float32)
    result = detection_ops.proposals(
        [tf.constant([[0.0, 2.0]])],
        [tf.constant([[[0, 0, 0, 0], [0.1, 0.2, 0, np.log(2)]]], tf.float32)],
        [anchors],
        image_sizes=tf.constant([[100.0, 100.0]]),
        candidates_per_level=2,
        limit=3,
        iou_threshold=0.7,
        suppress=suppress,
    )
    np.testing.assert_allclose(result.boxes[0], [[21, 0, 31, 17], [0, 0, 10, 10], [0, 0, 0, 0]], atol=1e-5)
    np.testing.assert_allclose(result.scores[0], [1 / (1 + np.exp(-2)), 0.5, 0], rtol=1e-6)


def test_forms_of_detections() -> None:
    boxes, _ = detection_inputs(4, 30)

    def detect(scores: tf.Tensor, decoded: tf.Tensor, sizes: tf.Tensor) -> Detections:
        valid = tf.ones(tf.shape(scores)[:2], tf.bool)
        chosen = detection_ops.candidates(scores, valid, threshold=0.2, limit=30)
        return detection_ops.detections(decoded, chosen, image_sizes=sizes, iou_threshold=0.3, limit=8)[:4]

    assert_forms_agree(detect, probabilities(1, 2, 20, 4), boxes, SIZES)


@pytest.mark.parametrize(("suppress", "compiled"), [(nms_ops.nms_levels, False), (nms_ops.nms_levels_portable, True)])
def test_forms_of_proposals(suppress, compiled) -> None:
    def propose(logits: list[tf.Tensor], deltas: list[tf.Tensor], sizes: tf.Tensor) -> Proposals:
        return detection_ops.proposals(
            logits,
            deltas,
            tensors(ANCHORS),
            image_sizes=sizes,
            candidates_per_level=10,
            limit=8,
            iou_threshold=0.5,
            suppress=suppress,
        )

    assert_forms_agree(propose, *heads(9), SIZES, compiled=compiled, tolerance=1e-4)
