"""FCIS' parts against the reference's own numbers, fed with its inputs: head, targets, losses, choice by loss, RPN."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf import losses as loss_ops
from maskx_tf import targets as target_ops
from maskx_tf.models.fcis import losses as fcis_losses
from maskx_tf.models.fcis import targets as fcis_targets
from maskx_tf.models.fcis.losses import RegionLosses
from maskx_tf.models.fcis.proposals import WholeCells
from maskx_tf.models.fcis.scores import AverageScores, JointScores
from maskx_tf.models.proposals import ProposalFilter, RpnOutputs
from maskx_tf.ops import anchors as anchor_ops
from maskx_tf.ops import boxes as box_ops
from maskx_tf.ops import sampling
from maskx_tf.ops.ps_roi import ps_roi_pool
from maskx_tf.structures import Targets
from maskx_tf.targets import RegionTargets
from tests.fcis_oracle import cell_major, continuous, each_file_with
from tests.oracle import inputs, meta, outputs

STRIDE, GROUP, SIZE = 16, 7, 21
WEIGHTS = (5.0, 5.0, 2.0, 2.0)  # the inverse of the reference's deviations .2 .2 .5 .5


def joint_maps(maps: np.ndarray) -> np.ndarray:
    """The reference's score maps [1, 2 (K + 1) 49, H, W] in our order: all outside before all inside."""
    cells = cell_major(maps[0]).reshape(*maps.shape[2:], GROUP**2, -1, 2)
    return np.moveaxis(cells, -1, -2).reshape(1, *maps.shape[2:], -1)


def reference_order(maps: np.ndarray) -> np.ndarray:
    """The inverse of `joint_maps`: [2 (K + 1) 49, H, W]."""
    height, width, _ = maps.shape[1:]
    cells = maps[0].reshape(height, width, GROUP**2, 2, -1)
    return cells.transpose(4, 3, 2, 0, 1).reshape(-1, height, width)


def foreground_boxes(maps: np.ndarray) -> np.ndarray:
    """The reference's box maps, of which the second quadruple is the foreground's."""
    return cell_major(maps[0, 4 * GROUP**2 :])[None]


def regions_of(labels: tf.Tensor, deltas: np.ndarray) -> RegionTargets:
    """What regions of these classes should become; all of the foreground have a mask."""
    boxes, truths = tf.zeros([*labels.shape, 4]), tf.zeros_like(labels)
    return RegionTargets(boxes, labels, tf.ones_like(labels, tf.bool), truths, tf.constant(deltas), labels > 0)


def read(scores: tf.Tensor, deltas: tf.Tensor, boxes: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
    pooled = ps_roi_pool(scores, boxes[None], stride=STRIDE, group=GROUP, size=SIZE)
    moves = ps_roi_pool(deltas, boxes[None], stride=STRIDE, group=GROUP, size=SIZE)
    return pooled, tf.reduce_mean(moves, axis=[2, 3])


@each_file_with("head/rois")
def test_oracle_fcis_head(file) -> None:
    """Both passes over the same maps: scores, classes, masks, and the boxes that the first hands to the second."""
    given, stored = inputs(file), outputs(file)
    scores, deltas = joint_maps(given["head/cls_seg"]), foreground_boxes(given["head/bbox"])
    height, width, _ = stored["head/im_info"][0]
    boxes, joint = continuous(stored["head/rois"][:, 1:]), JointScores()
    for name in ("pass1", "pass2"):
        pooled, moves = read(scores, deltas, boxes)
        logits = joint.class_logits(pooled)
        np.testing.assert_allclose(logits[0], stored[f"head/{name}_cls_score"], atol=1e-4)
        probabilities = tf.nn.softmax(logits)
        np.testing.assert_allclose(probabilities[0], stored[f"head/{name}_cls_prob"], atol=1e-4)
        best = tf.argmax(probabilities[..., 1:], axis=-1, output_type=tf.int32) + 1
        np.testing.assert_array_equal(best[0], stored[f"head/{name}_best_class"])
        masks = tf.sigmoid(joint.mask_logits(pooled, best))[0]
        expected = stored[f"head/{name}_masks"]
        np.testing.assert_allclose(masks[: len(expected)], expected, atol=1e-4)
        np.testing.assert_allclose(moves[0], stored[f"head/{name}_bbox_pred"][:, 4:], atol=1e-4)
        if name == "pass1":
            refined = box_ops.clip(box_ops.decode(moves[0], boxes, WEIGHTS), height, width).numpy()
            # Boxes outside of the image end as a line at our border, and as its last pixel in the reference.
            refined[:, :2] = np.minimum(refined[:, :2], [width - 1, height - 1])
            refined[:, 2:] = np.maximum(refined[:, 2:], 1)
            expected = stored["head/pass2_rois"][:, 1:]
            np.testing.assert_allclose(refined, continuous(expected), atol=2e-3)
            boxes = continuous(expected)


@each_file_with("rfcn/cls_score")
def test_oracle_fcis_rfcn(file) -> None:
    given, stored = inputs(file), outputs(file)
    boxes = continuous(stored["head/rois"][:, 1:])[None]
    for name, expected in (("cls", stored["rfcn/cls_score"]), ("bbox", stored["rfcn/bbox_pred"])):
        maps = cell_major(given[f"rfcn/{name}"][0])[None]
        pooled = ps_roi_pool(maps, boxes, stride=STRIDE, group=GROUP, size=GROUP)
        np.testing.assert_allclose(AverageScores().class_logits(pooled)[0], expected, atol=1e-4)


def keys_of(draws: list[np.ndarray], count: int) -> list[tf.Tensor]:
    """Keys [1, count] under which regions are taken in the order in which the reference drew them."""
    every = []
    for draw in draws:
        keys = np.zeros([1, count], np.int32)
        keys[0, draw] = np.arange(len(draw), 0, -1)
        every.append(tf.constant(keys))
    return every


def draws_of(stored: dict[str, np.ndarray], case: str, of_foreground: bool, of_background: bool) -> list[np.ndarray]:
    """What the reference drew of the foreground, of the background, and to fill up: only where it had a choice."""
    draws = [stored[key] for key in sorted(stored) if key.startswith(f"targets/{case}_draw")]
    nothing = np.zeros(0, int)
    first = draws.pop(0) if of_foreground else nothing
    second = draws.pop(0) if of_background else nothing
    return [first, second, np.concatenate([nothing, *draws])]


@each_file_with("targets/gt")
@pytest.mark.parametrize("case", ["voc", "short", "ohem"])
def test_oracle_fcis_targets(file, case) -> None:
    stored = outputs(file)
    truth = stored["targets/gt"]
    truth_boxes = continuous(truth[:, :4])[None]
    classes = tf.constant(truth[None, :, 4], tf.int32)
    candidates = np.concatenate([stored[f"targets/{case}_rois_in"][:, 1:], truth[:, :4]])
    boxes = continuous(candidates)[None]
    size, lowest = stored[f"targets/{case}_batch_and_bg_lo"]
    matches = sampling.match(boxes, truth_boxes, tf.ones([1, len(truth)], tf.bool))
    foreground = matches.overlaps >= 0.5
    usable = tf.ones_like(foreground)
    background = (matches.overlaps >= float(lowest)) & ~foreground
    expected = stored[f"targets/{case}_rois"][:, 1:]
    if case == "ohem":
        indices, is_foreground = tf.range(boxes.shape[1])[None], foreground
    else:
        limit = round(0.25 * int(size))
        count, others = (int(flags.numpy().sum()) for flags in (foreground, background))
        every = draws_of(stored, case, count > limit, others > int(size) - min(count, limit))
        chosen = fcis_targets.choose_regions(
            foreground,
            background,
            usable,
            keys_of(every, boxes.shape[1]),
            size=int(size),
            foreground_limit=limit,
        )
        indices, is_foreground = chosen.indices, chosen.foreground
        assert chosen.valid.numpy().all()
    regions = tf.gather(boxes, indices, batch_dims=1)
    ours, theirs = regions[0].numpy(), continuous(expected)
    labels = tf.where(
        is_foreground, tf.gather(classes, tf.gather(matches.truths, indices, batch_dims=1), batch_dims=1), 0
    )
    # The reference drew foreground and background in an order of its own, which nothing depends on.
    our_rows = np.lexsort([*ours.T, labels[0].numpy()])
    their_rows = np.lexsort([*theirs.T, stored[f"targets/{case}_labels"]])
    np.testing.assert_array_equal(ours[our_rows], theirs[their_rows])
    np.testing.assert_array_equal(labels[0].numpy()[our_rows], stored[f"targets/{case}_labels"][their_rows])
    truths = tf.gather(matches.truths, indices, batch_dims=1)
    deltas = box_ops.encode(tf.gather(truth_boxes, truths, batch_dims=1), regions, WEIGHTS)[0].numpy()
    positive = labels[0].numpy()[our_rows] > 0
    np.testing.assert_allclose(
        deltas[our_rows][positive], stored[f"targets/{case}_bbox_targets"][their_rows][positive], atol=1e-4
    )
    np.testing.assert_array_equal(stored[f"targets/{case}_bbox_weights"][their_rows][:, 0] > 0, positive)
    masks = stored["targets/gt_masks_resized"]
    image = np.array([0, 0, masks.shape[2], masks.shape[1]], np.float32)
    grids = np.broadcast_to(image, truth_boxes.shape)
    wanted = fcis_targets.position_mask_targets(
        tf.constant(masks[None], tf.float32), grids, truth_boxes, regions, truths, size=SIZE
    )[0].numpy()
    np.testing.assert_array_equal(
        wanted[our_rows][positive], stored[f"targets/{case}_masks"][their_rows][positive].astype(np.float32)
    )
    assert (stored[f"targets/{case}_masks"][their_rows][~positive] == -1).all()


@each_file_with("loss/plain_cls_score")
@pytest.mark.parametrize("case", ["plain", "ohem"])
def test_oracle_fcis_losses(file, case) -> None:
    """The three losses, the regions that are kept, and the gradients of the maps."""
    given, stored = inputs(file), outputs(file)
    scores = tf.constant(joint_maps(given["head/cls_seg"]))
    deltas = tf.constant(foreground_boxes(given["loss/bbox"]))
    boxes = continuous(stored["targets/voc_rois"][:, 1:])
    labels = tf.constant(stored["targets/voc_labels"][None], tf.int32)
    kept_by_reference = stored[f"loss/{case}_labels"] >= 0
    with tf.GradientTape() as tape:
        tape.watch([scores, deltas])
        pooled, moves = read(scores, deltas, boxes)
        joint = JointScores()
        losses = fcis_losses.region_losses(
            joint.class_logits(pooled),
            joint.mask_logits(pooled, labels),
            moves,
            regions_of(labels, stored["targets/voc_bbox_targets"][None]),
            tf.constant(stored["targets/voc_masks"][None], tf.float32),
            mask_weight=10.0,
        )
        kept = tf.ones_like(labels, tf.bool)
        if case == "ohem":
            kept = fcis_losses.hardest(losses, kept, int(kept_by_reference.sum()))
        means = {name: loss_ops.mean(loss) for name, loss in fcis_losses.sums(losses, kept).items()}
        total = tf.add_n(list(means.values()))
    np.testing.assert_array_equal(kept[0], kept_by_reference)
    values = [means[name] for name in ("loss_class", "loss_mask", "loss_box")]
    np.testing.assert_allclose(values, stored[f"loss/{case}_cls_mask_box"], rtol=1e-4, atol=1e-5)
    score_gradient, box_gradient = tape.gradient(total, [scores, deltas])
    ours = reference_order(score_gradient.numpy())
    expected = stored[f"loss/{case}_gradient_cls_seg_every9th_channel"]
    np.testing.assert_allclose(ours[::9], expected, atol=1e-4 * np.abs(expected).max())
    norms = np.sqrt((ours.astype(np.float64) ** 2).sum(axis=(1, 2)))
    expected = stored[f"loss/{case}_gradient_cls_seg_channel_l2"]
    np.testing.assert_allclose(norms, expected, atol=1e-4 * expected.max())
    ours = box_gradient.numpy()[0].reshape(*box_gradient.shape[1:3], GROUP**2, 4)
    ours = ours.transpose(3, 2, 0, 1).reshape(-1, *box_gradient.shape[1:3])
    expected = stored[f"loss/{case}_gradient_bbox_every9th_channel"]
    np.testing.assert_allclose(ours[::9], expected, atol=1e-4 * np.abs(expected).max())
    norms = np.sqrt((ours.astype(np.float64) ** 2).sum(axis=(1, 2)))
    expected = stored[f"loss/{case}_gradient_bbox_channel_l2"][4 * GROUP**2 :]
    np.testing.assert_allclose(norms, expected, atol=1e-4 * expected.max())


@each_file_with("ohem/labels")
def test_oracle_fcis_ohem(file) -> None:
    given, stored = inputs(file), outputs(file)
    rows = stored["ohem/repeat_rows"]
    scores, pairs, deltas = (given[f"ohem/{name}"][rows] for name in ("cls_score", "seg_pred", "bbox_pred"))
    labels = tf.constant(stored["ohem/labels"][None], tf.int32)
    losses = fcis_losses.region_losses(
        tf.constant(scores[None]),
        tf.constant(pairs[None, :, 1] - pairs[None, :, 0]),
        tf.constant(deltas[None, :, 4:]),
        regions_of(labels, stored["ohem/bbox_targets"][None, :, 4:]),
        tf.constant(stored["ohem/mask_targets"][None], tf.float32),
        mask_weight=10.0,
    )
    assert losses.masks is not None
    total = (losses.classes + losses.masks + losses.boxes)[0].numpy()
    np.testing.assert_allclose(total, stored["ohem/loss_per_roi"], rtol=1e-4, atol=1e-4)
    theirs = stored["ohem/kept"]
    kept = fcis_losses.hardest(losses, tf.ones_like(labels, tf.bool), int(theirs.sum()))[0].numpy()
    assert kept.sum() == theirs.sum()
    # Equal regions at the cut: any of them may be taken, so the losses are compared.
    np.testing.assert_allclose(np.sort(total[kept]), np.sort(total[theirs]), rtol=1e-6)


def test_ohem_keeps_the_number_asked_for() -> None:
    """Of 300 regions exactly 128 in each image, the largest, and all where fewer are valid."""
    values = np.random.default_rng(3).gamma(1.0, size=[3, 2, 300]).astype(np.float32)
    losses = RegionLosses(*tf.unstack(tf.constant(values)))
    valid = np.ones([2, 300], bool)
    valid[1, 90:] = False
    kept = fcis_losses.hardest(losses, tf.constant(valid), 128).numpy()
    assert kept.sum(axis=1).tolist() == [128, 90]
    total = values.sum(axis=0)[0]
    assert total[kept[0]].min() > total[~kept[0]].max()


def anchors_of(file) -> tuple[np.ndarray, tf.Tensor]:
    stored = outputs(file)
    height, width = stored["rpn/feature_hw"]
    sizes = [float(STRIDE * scale) for scale in stored["rpn/scales"]]
    cell = anchor_ops.cell_anchors(sizes, [0.5, 1.0, 2.0], STRIDE, rounding="detectron")
    return cell, anchor_ops.grid(cell, int(height), int(width), STRIDE)


@each_file_with("rpn/base_anchors")
def test_oracle_fcis_anchors(file) -> None:
    """Every anchor inside the image is labelled as there, those included that its random choice dropped."""
    stored = outputs(file)
    cell, anchors = anchors_of(file)
    np.testing.assert_array_equal(cell, continuous(stored["rpn/base_anchors"].astype(np.float32)))
    gt = stored["targets/gt"] if "rpn/gt" not in stored else stored["rpn/gt"]
    height, width = stored["rpn/im_info"][:2]
    inside = target_ops.anchors_inside(anchors, tf.constant([[height, width]], tf.float32))
    flags = tf.ones([1, len(gt)], tf.bool)
    truth = Targets(
        continuous(gt[:, :4])[None], tf.constant(gt[None, :, 4], tf.int32), flags, ~flags, tf.zeros([1, 1, 1, 1]), flags
    )
    every = target_ops.anchor_targets(
        anchors, truth, seed=tf.constant([1, 2]), size=len(anchors), foreground_fraction=1.0, inside=inside
    )
    ours = np.full(len(anchors), -1)
    indices, valid = every.indices[0].numpy(), every.valid[0].numpy()
    ours[indices[valid]] = every.foreground[0].numpy()[valid]
    ours_inside = ours[np.flatnonzero(inside[0])]
    for number in (0, 1):
        dropped = stored[f"rpn/disabled{number}_among_inside_anchors"]
        assert (ours_inside[dropped] == 1 - number).all()
        ours_inside[dropped] = -1
    ours[np.flatnonzero(inside[0])] = ours_inside
    # The reference's order is anchor, row, column; ours row, column, anchor.
    theirs = stored["rpn/labels"].transpose(1, 2, 0).reshape(-1)
    np.testing.assert_array_equal(ours, theirs)
    matched = {int(index): delta for index, delta in zip(indices, every.deltas[0].numpy(), strict=True)}
    places = np.arange(len(anchors)).reshape(*stored["rpn/feature_hw"], len(cell)).transpose(2, 0, 1).reshape(-1)
    moves = np.array([matched[index] for index in places[theirs[places] == 1]])
    np.testing.assert_allclose(moves, stored["rpn/bbox_targets_of_positives"], atol=1e-4)


@each_file_with("rpn/proposals")
def test_oracle_fcis_proposals(file) -> None:
    given, stored = inputs(file), outputs(file)
    cell, anchors = anchors_of(file)
    scores = given["rpn/scores"][0]
    logits = scores[len(cell) :] - scores[: len(cell)]
    deltas = given["rpn/deltas"][0].reshape(len(cell), 4, *scores.shape[1:])
    before, after, least = (int(number) for number in stored["rpn/pre_post_nms_min_size"])
    height, width = stored["rpn/im_info"][:2]
    result = WholeCells(ProposalFilter(before, after, 0.7, float(least), portable=False), STRIDE).choose(
        RpnOutputs(
            [tf.constant(logits.transpose(1, 2, 0).reshape(1, -1))],
            [tf.constant(deltas.transpose(2, 3, 0, 1).reshape(1, -1, 4))],
            [anchors],
        ),
        tf.constant([[height, width]], tf.float32),
    )
    count = after - int(stored["rpn/padded"])
    assert int(tf.reduce_sum(tf.cast(result.valid, tf.int32))) == count
    np.testing.assert_allclose(
        result.boxes[0, :count], continuous(stored["rpn/proposals"][:count]), atol=2e-3, rtol=1e-5
    )
    np.testing.assert_allclose(result.scores[0, :count], stored["rpn/proposal_scores"][:count], atol=1e-5)


def test_the_sign_of_inside_less_outside_inverts_a_mask() -> None:
    """Swapping inside and outside turns every mask into its complement, and leaves the class scores as they are."""
    rng = np.random.default_rng(2)
    pooled = rng.normal(size=[1, 4, SIZE, SIZE, 2 * 6]).astype(np.float32)
    swapped = np.concatenate([pooled[..., 6:], pooled[..., :6]], axis=-1)
    classes, joint = tf.constant([[1, 2, 5, 3]]), JointScores()
    masks, others = (tf.sigmoid(joint.mask_logits(tf.constant(maps), classes)) for maps in (pooled, swapped))
    np.testing.assert_allclose(masks, 1.0 - others, atol=1e-6)
    np.testing.assert_array_equal(joint.class_logits(tf.constant(pooled)), joint.class_logits(tf.constant(swapped)))


@each_file_with("head/rois")
def test_oracle_fcis_says_how_many_classes(file) -> None:
    assert inputs(file)["head/cls_seg"].shape[1] == 2 * GROUP**2 * meta(file)["classes"]
