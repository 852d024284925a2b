"""Operations against torchvision's numbers: what goes into a step and what comes out of it are both the oracle's."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf import losses, targets
from maskx_tf.masks import paste as paste_ops
from maskx_tf.ops import anchors as anchor_ops
from maskx_tf.ops import boxes as box_ops
from maskx_tf.ops import detections as detection_ops
from maskx_tf.ops import masks as mask_ops
from maskx_tf.ops import nms as nms_ops
from maskx_tf.ops import roi_align as align_ops
from maskx_tf.structures import Proposals, Targets
from tests.oracle import level_rows, matched_share, needs_oracle, nhwc, outputs

pytestmark = needs_oracle
STRIDES = (4, 8, 16, 32, 64)
IMAGES = pytest.mark.parametrize("image", ["a", "b"])
ALIGN_FORMS = pytest.mark.parametrize("align", [align_ops.roi_align, align_ops.roi_align_gather])


def anchors_of(image: str) -> list[tf.Tensor]:
    shapes = [nhwc(f"{image}/rpn_objectness_p{level}").shape[1:3] for level in range(2, 7)]
    sizes = [[32], [64], [128], [256], [512]]
    return anchor_ops.pyramid(shapes, STRIDES, sizes, [0.5, 1.0, 2.0], rounding="torchvision")


@IMAGES
@ALIGN_FORMS
@pytest.mark.parametrize(("boxes", "pooled", "size"), [("proposals", "roi7", 7), ("det_boxes_resized", "roi14", 14)])
def test_roi_align(align, image, boxes, pooled, size) -> None:
    expected = outputs()[f"{image}/{pooled}"][:, ::16].transpose(0, 2, 3, 1)
    regions = tf.constant(outputs()[f"{image}/{boxes}"][None, : len(expected)])
    features = [tf.constant(nhwc(f"{image}/p{level}_every16th_channel")) for level in range(2, 6)]
    levels = align_ops.assign_levels(regions, epsilon="torchvision")
    result = align(features, regions, levels, strides=STRIDES[:4], size=size, samples=2, aligned=False)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(result[0] / scale, expected / scale, atol=1e-5)


@IMAGES
@pytest.mark.parametrize("suppress", [nms_ops.nms_levels, nms_ops.nms_levels_portable])
def test_proposals(image, suppress) -> None:
    stored = outputs()
    result = detection_ops.proposals(
        [tf.constant(level_rows(f"{image}/rpn_objectness_p{level}", 1)[..., 0]) for level in range(2, 7)],
        [tf.constant(level_rows(f"{image}/rpn_deltas_p{level}", 4)) for level in range(2, 7)],
        anchors_of(image),
        image_sizes=tf.constant(stored[f"{image}/resized_hw"][None], tf.float32),
        candidates_per_level=1000,
        limit=1000,
        iou_threshold=0.7,
        min_side=1e-3,
        suppress=suppress,
    )
    kept = result.boxes[0].numpy()[result.valid[0].numpy()]
    expected = stored[f"{image}/proposals"]
    assert len(kept) == len(expected)
    same = np.zeros(len(kept))
    assert matched_share(kept, expected, same, same) >= 0.999
    assert matched_share(expected, kept, same, same) >= 0.999


@IMAGES
def test_detections(image) -> None:
    stored = outputs()
    regions = tf.constant(stored[f"{image}/proposals"][None])
    scores = tf.nn.softmax(tf.constant(stored[f"{image}/class_logits"][None]))[..., 1:]
    chosen = detection_ops.candidates(scores, tf.ones([1, 1000], tf.bool), threshold=0.05, limit=2000)
    deltas = tf.reshape(tf.constant(stored[f"{image}/box_regression"]), [1, 1000, 8, 4])
    own = tf.gather_nd(deltas, tf.stack([chosen.regions, chosen.classes], axis=-1), batch_dims=1)
    boxes = box_ops.decode(own, tf.gather(regions, chosen.regions, batch_dims=1), (10.0, 10.0, 5.0, 5.0))
    sizes = tf.constant(stored[f"{image}/resized_hw"][None], tf.float32)
    result = detection_ops.detections(boxes, chosen, image_sizes=sizes, iou_threshold=0.5, limit=100)
    assert result.valid.numpy().all()
    expected, labels = stored[f"{image}/det_boxes_resized"], stored[f"{image}/labels"]
    assert matched_share(result.boxes[0].numpy(), expected, result.classes[0].numpy(), labels) == 1.0
    assert matched_share(expected, result.boxes[0].numpy(), labels, result.classes[0].numpy()) == 1.0
    np.testing.assert_allclose(np.sort(result.scores[0])[::-1], np.sort(stored[f"{image}/scores"])[::-1], atol=1e-5)


@IMAGES
@pytest.mark.parametrize("where", ["tensorflow", "numpy"])
def test_paste(image, where) -> None:
    stored = outputs()
    height, width = stored[f"{image}/image_uint8"].shape[:2]
    masks, boxes = stored[f"{image}/det_masks28"][:, 0], stored[f"{image}/boxes"]
    if where == "tensorflow":
        pasted = mask_ops.paste(tf.constant(masks), tf.constant(boxes), height, width, mode="integer").numpy()
    else:
        pasted = paste_ops.paste(masks, boxes, height, width, mode="integer")
    expected = np.unpackbits(stored[f"{image}/masks_pasted_ge_half_packed"], axis=-1)[..., :width].astype(bool)
    assert expected.any(axis=(1, 2)).mean() > 0.9
    assert (pasted == expected).mean() > 0.999
    # Nearly all pixels of an image are empty: the masks' own must agree as well.
    assert (pasted & expected).sum() / (pasted | expected).sum() > 0.999


def truth() -> Targets:
    boxes = tf.constant(outputs()["train/gt_boxes"][None])
    flags = tf.ones([1, 5], tf.bool)
    classes = tf.constant(outputs()["train/gt_labels"][None], tf.int32)
    return Targets(boxes, classes, flags, ~flags, tf.zeros([1, 5, 8, 8]), flags)


def test_region_targets() -> None:
    stored = outputs()
    proposals = tf.constant(stored["train/proposals"][None])
    count = len(stored["train/roi_boxes"])
    result = targets.region_targets(
        Proposals(proposals, tf.zeros([1, 200]), tf.ones([1, 200], tf.bool)),
        truth(),
        seed=tf.constant([1, 2]),
        size=count,
        foreground_fraction=1.0,
    )
    assert result.valid.numpy().all()
    # The same boxes in another order: bring both into one.
    ours = np.lexsort(result.boxes[0].numpy().T)
    theirs = np.lexsort(stored["train/roi_boxes"].T)
    np.testing.assert_allclose(result.boxes[0].numpy()[ours], stored["train/roi_boxes"][theirs], atol=1e-4)
    labels = stored["train/roi_labels"][theirs]
    assert (labels > 0).any()
    assert (labels == 0).any()
    np.testing.assert_array_equal(result.classes[0].numpy()[ours], labels)
    foreground = labels > 0
    matched = stored["train/roi_matched_idxs"][theirs]
    np.testing.assert_array_equal(result.truths[0].numpy()[ours][foreground], matched[foreground])
    expected = stored["train/roi_reg_targets"][theirs]
    np.testing.assert_allclose(result.deltas[0].numpy()[ours][foreground], expected[foreground], atol=1e-4)


def test_rpn_losses() -> None:
    stored = outputs()
    anchors = tf.concat(anchors_of("a"), axis=0)
    logits = tf.concat([level_rows(f"a/rpn_objectness_p{level}", 1)[..., 0] for level in range(2, 7)], axis=1)
    deltas = tf.concat([level_rows(f"a/rpn_deltas_p{level}", 4) for level in range(2, 7)], axis=1)
    # The oracle's sampler took every candidate: as many as there are anchors.
    chosen = targets.anchor_targets(
        anchors, truth(), seed=tf.constant([1, 2]), size=len(anchors), foreground_fraction=1.0
    )
    objectness, box = losses.rpn_losses(
        tf.gather(logits, chosen.indices, batch_dims=1),
        tf.gather(deltas, chosen.indices, batch_dims=1),
        chosen.deltas,
        chosen.foreground,
        chosen.valid,
        beta=1 / 9,
    )
    np.testing.assert_allclose(losses.mean(objectness), stored["train/loss_objectness"], rtol=1e-4)
    np.testing.assert_allclose(losses.mean(box), stored["train/loss_rpn_box_reg"], rtol=1e-4)
