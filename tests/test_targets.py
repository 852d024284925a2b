"""Targets of the RPN and of the heads on the regions."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf import targets as target_ops
from maskx_tf.structures import Proposals, Targets
from tests import reference
from tests.checks import assert_forms_agree

SEED = np.int32([3, 14])
IMAGES, TRUTHS, REGIONS, ANCHORS = 4, 5, 40, 60
HEAD_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def quarter_boxes(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """On a grid of quarters, so that equal overlaps are equal in float32 as well."""
    corner = rng.integers(0, 80, (*shape, 2))
    return (np.concatenate([corner, corner + rng.integers(10, 70, (*shape, 2))], axis=-1) / 4).astype(np.float32)


def near(rng: np.random.Generator, boxes: np.ndarray, count: int) -> np.ndarray:
    """Boxes [B, count, 4] that overlap those of each image a little or much, none twice."""
    chosen = boxes[:, rng.integers(0, boxes.shape[1], count)]
    moved = chosen + rng.integers(-12, 13, chosen.shape) / 4 + np.arange(count)[:, None] / 128 * [0, 0, 1, 1]
    moved[..., 2:] = np.maximum(moved[..., 2:], moved[..., :2] + 1)
    return moved.astype(np.float32)


def truth(valid: np.ndarray, crowd: np.ndarray, seed: int = 0) -> Targets:
    """Padding holds boxes and classes as well: nothing may read them."""
    rng = np.random.default_rng(seed)
    return Targets(
        boxes=tf.constant(quarter_boxes(rng, IMAGES, TRUTHS)),
        classes=tf.constant(rng.integers(1, 9, (IMAGES, TRUTHS)), tf.int32),
        valid=tf.constant(valid),
        crowd=tf.constant(crowd),
        masks=tf.zeros([IMAGES, TRUTHS, 2, 2]),
        has_mask=tf.constant(rng.random((IMAGES, TRUTHS)) < 0.5),
    )


# All there; some padding; a crowd among them; nothing but padding.
VALID = np.array([[True] * 5, [True, True, False, True, False], [True] * 5, [False] * 5])
CROWD = np.array([[False] * 5, [False] * 5, [True, False, True, False, False], [False] * 5])
CASES = pytest.mark.parametrize(
    ("valid", "crowd"),
    [
        (VALID, CROWD),
        (VALID, np.ones_like(CROWD)),  # all crowd
        (np.zeros_like(VALID), CROWD),  # all padding
        (np.zeros_like(VALID), np.ones_like(CROWD)),
    ],
    ids=["mixed", "crowd", "padding", "crowd in padding"],
)


def anchors_near(targets: Targets) -> np.ndarray:
    rng = np.random.default_rng(1)
    anchors = near(rng, targets.boxes.numpy(), ANCHORS)
    return np.concatenate([anchors[0, :30], anchors[1, :10], anchors[2, :10], quarter_boxes(rng, 10)])


def expected_anchor_labels(
    anchors: np.ndarray, targets: Targets, image: int, usable: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and matched truths of all anchors of an image."""
    there = targets.valid[image].numpy() & ~targets.crowd[image].numpy()
    # The best of a truth is the best of those that are used, as in Detectron.
    matched, overlap, best = reference.match(anchors * usable[:, None], targets.boxes[image], there)
    return reference.labels(overlap, (overlap >= 0.7) | best, (-1.0, 0.3), usable), matched


@CASES
@pytest.mark.parametrize("inside", [False, True])
def test_anchor_targets(valid, crowd, inside) -> None:
    """With room for all, each labelled anchor is there once, with its deltas."""
    targets = truth(valid, crowd)
    anchors = anchors_near(targets)
    usable = (
        np.random.default_rng(2).random((IMAGES, len(anchors))) < 0.7 if inside else np.ones([IMAGES, ANCHORS], bool)
    )
    result = target_ops.anchor_targets(
        anchors,
        targets,
        seed=SEED,
        size=2 * ANCHORS,
        foreground_fraction=1.0,
        inside=tf.constant(usable) if inside else None,
    )
    assert [part.shape for part in result] == [(IMAGES, 2 * ANCHORS)] * 3 + [(IMAGES, 2 * ANCHORS, 4)]
    for image in range(IMAGES):
        labels, matched = expected_anchor_labels(anchors, targets, image, usable[image])
        indices, foreground, taken, deltas = (part[image].numpy() for part in result)
        assert sorted(indices[taken & foreground]) == np.flatnonzero(labels == 1).tolist()
        assert sorted(indices[taken & ~foreground]) == np.flatnonzero(labels == 0).tolist()
        assert not foreground[~taken].any()
        assert not indices[~taken].any()
        assert not deltas[~foreground].any()
        for index, delta in zip(indices[foreground], deltas[foreground], strict=True):
            expected = reference.encode(targets.boxes[image].numpy()[matched[index]], anchors[index])
            np.testing.assert_allclose(delta, expected, atol=1e-5)


def test_anchor_labels_of_this_test_are_of_every_kind() -> None:
    targets = truth(VALID, CROWD)
    anchors = anchors_near(targets)
    usable = np.ones(ANCHORS, bool)
    labels = [expected_anchor_labels(anchors, targets, image, usable)[0] for image in range(IMAGES)]
    for image in range(3):
        assert {-1, 0, 1} == set(labels[image])
    assert set(labels[3]) == {0}


def test_every_truth_has_its_best_anchor_however_little_it_overlaps() -> None:
    targets = truth(VALID, CROWD)._replace(boxes=tf.tile(tf.constant([[[0, 0, 40, 40]]], tf.float32), [4, 5, 1]))
    anchors = np.float32([[0, 0, 4, 4], [36, 36, 40, 40], [0, 0, 3, 3], [50, 50, 60, 60]])
    result = target_ops.anchor_targets(anchors, targets, seed=SEED, size=8)
    assert set(result.indices[0].numpy()[result.foreground[0].numpy()]) == {0, 1}
    # Its IoU of .01 notwithstanding, a best anchor is no background.
    background = result.valid[0].numpy() & ~result.foreground[0].numpy()
    assert set(result.indices[0].numpy()[background]) == {2, 3}


def test_anchors_that_no_truth_touches_are_background() -> None:
    """A truth that overlaps no anchor does not make all of them its best."""
    targets = truth(np.ones_like(VALID), np.zeros_like(CROWD))
    anchors = quarter_boxes(np.random.default_rng(3), 20) + 1000
    result = target_ops.anchor_targets(anchors, targets, seed=SEED, size=20)
    assert not result.foreground.numpy().any()
    assert result.valid.numpy().all()


@pytest.mark.parametrize(("size", "fraction", "most"), [(16, 0.5, 8), (10, 0.25, 2), (30, 0.1, 3)])
def test_anchor_targets_sample(size, fraction, most) -> None:
    targets = truth(VALID, CROWD)
    anchors = anchors_near(targets)
    result = target_ops.anchor_targets(anchors, targets, seed=SEED, size=size, foreground_fraction=fraction)
    for image in range(IMAGES):
        labels, _ = expected_anchor_labels(anchors, targets, image, np.ones(ANCHORS, bool))
        foreground, taken = result.foreground[image].numpy(), result.valid[image].numpy()
        indices = result.indices[image].numpy()
        assert foreground.sum() == min(most, (labels == 1).sum())
        assert taken.sum() == min(size, foreground.sum() + (labels == 0).sum())
        assert (labels[indices[foreground]] == 1).all()
        assert (labels[indices[taken & ~foreground]] == 0).all()


def test_anchors_inside() -> None:
    anchors = np.float32([[0, 0, 40, 30], [-0.25, 0, 10, 10], [5, 5, 40.25, 10], [5, 5, 10, 30.25], [1, -1, 2, 2]])
    result = target_ops.anchors_inside(anchors, tf.constant([[30.0, 40.0], [40.0, 50.0], [9.0, 9.0]]))
    expected = [[True] + [False] * 4, [True, False, True, True, False], [False] * 5]
    np.testing.assert_array_equal(result, expected)


def proposals_near(targets: Targets) -> Proposals:
    """Some of each image's are padding, which holds boxes as well."""
    rng = np.random.default_rng(4)
    boxes = near(rng, targets.boxes.numpy(), REGIONS)
    boxes[:, 25:] += 200 * (rng.random((IMAGES, REGIONS - 25, 1)) < 0.5)
    valid = rng.random((IMAGES, REGIONS)) < 0.8
    return Proposals(tf.constant(boxes), tf.zeros([IMAGES, REGIONS]), tf.constant(valid))


def expected_regions(
    proposals: Proposals, targets: Targets, image: int, background: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All candidates of an image, truths among them, their labels and matched truths."""
    there = targets.valid[image].numpy() & ~targets.crowd[image].numpy()
    boxes = np.concatenate([proposals.boxes[image], targets.boxes[image]])
    usable = np.concatenate([proposals.valid[image], there])
    matched, overlap, _ = reference.match(boxes, targets.boxes[image], there)
    return boxes, reference.labels(overlap, overlap >= 0.5, background, usable), matched


@CASES
@pytest.mark.parametrize("background", [(0.0, 0.5), (0.1, 0.4)])
@pytest.mark.parametrize("weights", [HEAD_WEIGHTS, reference.ONES])
def test_region_targets(valid, crowd, background, weights) -> None:
    """With room for all, each labelled region is there once, with its class, truth, deltas and mask flag."""
    targets = truth(valid, crowd)
    proposals = proposals_near(targets)
    size = REGIONS + TRUTHS + 3
    result = target_ops.region_targets(
        proposals,
        targets,
        seed=SEED,
        size=size,
        foreground_fraction=1.0,
        background_iou=background,
        weights=weights,
    )
    assert [part.shape for part in result] == [
        (IMAGES, size, 4),
        *[(IMAGES, size)] * 3,
        (IMAGES, size, 4),
        (IMAGES, size),
    ]
    for image in range(IMAGES):
        boxes, labels, matched = expected_regions(proposals, targets, image, background)
        found = [part[image].numpy() for part in result]
        region, classes, taken, truths, deltas, has_mask = found
        assert taken.sum() == (labels >= 0).sum()
        for part in found:
            assert not part[~taken].any()
        index_of = {box.tobytes(): index for index, box in enumerate(boxes)}
        assert len(index_of) == len(boxes)
        indices = np.array([index_of[box.tobytes()] for box in region[taken]], int)
        assert len(set(indices)) == len(indices)
        foreground = labels[indices] == 1
        assert (labels[indices] >= 0).all()
        # Foreground first.
        assert list(foreground) == sorted(foreground, reverse=True)
        for slot, index in enumerate(indices):
            truth_of = matched[index] if foreground[slot] else 0
            assert truths[slot] == truth_of
            assert classes[slot] == (targets.classes[image].numpy()[truth_of] if foreground[slot] else 0)
            assert has_mask[slot] == (foreground[slot] and targets.has_mask[image].numpy()[truth_of])
            expected = reference.encode(targets.boxes[image].numpy()[truth_of], boxes[index], weights)
            np.testing.assert_allclose(deltas[slot], expected if foreground[slot] else 0, atol=1e-4)


def test_region_labels_of_this_test_are_of_every_kind() -> None:
    targets = truth(VALID, CROWD)
    for image in range(3):
        _, labels, _ = expected_regions(proposals_near(targets), targets, image, (0.1, 0.4))
        assert {-1, 0, 1} == set(labels)


def test_truths_join_the_regions() -> None:
    """Even without a single proposal, each truth that counts is a region of its own class."""
    targets = truth(VALID, CROWD)
    nothing = Proposals(tf.zeros([IMAGES, 1, 4]), tf.zeros([IMAGES, 1]), tf.zeros([IMAGES, 1], tf.bool))
    result = target_ops.region_targets(nothing, targets, seed=SEED, size=10, foreground_fraction=1.0)
    for image, count in enumerate([5, 3, 3, 0]):
        there = VALID[image] & ~CROWD[image]
        taken = result.valid[image].numpy()
        assert taken.sum() == (result.classes[image].numpy() > 0).sum() == count
        truths = result.truths[image].numpy()[taken]
        assert sorted(truths) == np.flatnonzero(there).tolist()
        np.testing.assert_array_equal(result.boxes[image].numpy()[taken], targets.boxes[image].numpy()[truths])
        np.testing.assert_allclose(result.deltas[image].numpy(), 0, atol=1e-6)
        np.testing.assert_array_equal(result.has_mask[image].numpy()[taken], targets.has_mask[image].numpy()[truths])


@pytest.mark.parametrize(("size", "fraction", "most"), [(16, 0.25, 4), (8, 0.5, 4), (60, 0.25, 15)])
def test_region_targets_sample(size, fraction, most) -> None:
    targets = truth(VALID, CROWD)
    proposals = proposals_near(targets)
    result = target_ops.region_targets(proposals, targets, seed=SEED, size=size, foreground_fraction=fraction)
    for image in range(IMAGES):
        _, labels, _ = expected_regions(proposals, targets, image, (0.0, 0.5))
        foreground = (result.classes[image].numpy() > 0).sum()
        assert foreground == min(most, (labels == 1).sum())
        assert result.valid[image].numpy().sum() == min(size, foreground + (labels == 0).sum())


def test_the_seed_decides() -> None:
    targets = truth(VALID, CROWD)
    proposals, anchors = proposals_near(targets), anchors_near(targets)
    for choose in (
        lambda seed: target_ops.region_targets(proposals, targets, seed=seed, size=12).boxes.numpy(),
        lambda seed: target_ops.anchor_targets(anchors, targets, seed=seed, size=12).indices.numpy(),
    ):
        np.testing.assert_array_equal(choose(SEED), choose(SEED))
        assert (choose(SEED) != choose(SEED + 1)).any()


def test_a_crowd_that_covers_everything_makes_nothing_foreground() -> None:
    targets = truth(np.ones_like(VALID), np.ones_like(CROWD))
    proposals = Proposals(targets.boxes, tf.zeros([IMAGES, TRUTHS]), tf.ones([IMAGES, TRUTHS], tf.bool))
    regions = target_ops.region_targets(proposals, targets, seed=SEED, size=10)
    assert not regions.classes.numpy().any()
    assert not regions.has_mask.numpy().any()
    assert (regions.valid.numpy().sum(axis=1) == TRUTHS).all()
    anchors = target_ops.anchor_targets(targets.boxes[0], targets, seed=SEED, size=10)
    assert not anchors.foreground.numpy().any()


def test_forms_of_anchor_targets() -> None:
    targets = truth(VALID, CROWD)
    anchors = tf.constant(anchors_near(targets))

    def assign(fields: Targets, inside: tf.Tensor) -> target_ops.AnchorTargets:
        # Room for all: which are chosen does not depend on the random numbers, but their order does.
        result = target_ops.anchor_targets(
            anchors, fields, seed=SEED, size=ANCHORS, foreground_fraction=1.0, inside=inside
        )
        order = tf.argsort(tf.where(result.valid, result.indices, ANCHORS), axis=1)
        return target_ops.AnchorTargets(*(tf.gather(part, order, batch_dims=1) for part in result))

    inside = np.random.default_rng(2).random((IMAGES, ANCHORS)) < 0.7
    assert_forms_agree(assign, targets, inside, tolerance=1e-4)


def test_forms_of_region_targets() -> None:
    targets = truth(VALID, CROWD)
    proposals = proposals_near(targets)

    def assign(fields: Targets, candidates: Proposals) -> target_ops.RegionTargets:
        result = target_ops.region_targets(candidates, fields, seed=SEED, size=50, foreground_fraction=1.0)
        key = tf.reduce_sum(result.boxes * [1.0, 1.37, 3.11, 7.77], axis=-1)
        order = tf.argsort(tf.where(result.valid, key, 1e6), axis=1)
        return target_ops.RegionTargets(*(tf.gather(part, order, batch_dims=1) for part in result))

    assert_forms_agree(assign, targets, proposals, tolerance=1e-3)
