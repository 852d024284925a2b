"""The whole of Keypoint R-CNN against torchvision's, forward and backward, for every file of the oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf import losses as loss_ops
from maskx_tf.models.keypoints import KeypointBranch
from maskx_tf.models.proposals import ProposalFilter
from maskx_tf.models.rcnn import RCNN
from maskx_tf.ops import keypoints as keypoint_ops
from maskx_tf.structures import Detections, Proposals, Targets
from tests.models.torchvision_models import LOSSES, letterboxed, sources, torchvision_model
from tests.oracle import each_file, matched_pairs, meta, outputs, relative

FILES = each_file("*keypoint_rcnn*.npz")
IMAGES = pytest.mark.parametrize("image", ["a", pytest.param("b", marks=pytest.mark.slow)])
# torchvision itself, with two threads in place of one, differs by more than half of this (see the oracle's README):
# relative in features and logits, in pixels of boxes, in class scores, and relative in scores of keypoints. Pixels tie
# whose logits differ by no more than `tie`, and the share of keypoints with a tie is below `ties`.
NOISE = {"features": 1e-3, "logits": 1e-3, "boxes": 0.05, "scores": 3e-3, "own": 3e-3, "tie": 0.03, "ties": 0.01}
DEEPER = 2.0  # how much more the trunk of a ResNet-101 amplifies rounding
GIVEN = 24  # boxes whose keypoints are asked for; --slow compares those of all detections as well
CLEAR = 0.05  # the margin of a peak from which its place is compared


def noise(file: Path, what: str) -> float:
    return NOISE[what] * (1.0 if meta(file)["arch"] == "resnet50" else DEEPER)


def branch_of(model: RCNN) -> KeypointBranch:
    branch = model.branch("keypoint")
    assert isinstance(branch, KeypointBranch)
    return branch


@FILES
@IMAGES
def test_oracle_keypoint_heads(file: Path, image: str) -> None:
    model, stored = torchvision_model(file=file), outputs(file)
    scene = model.scene(*letterboxed(image, file))
    for level, features in enumerate(scene.features, start=2):
        expected = stored[f"{image}/p{level}_every64th_channel"].transpose(0, 2, 3, 1)
        assert relative(features[..., ::64], expected) < noise(file, "features"), level
    vectors = model.box.vectors(scene.features, tf.constant(stored[f"{image}/proposals"][None]))
    assert relative(model.box.predictor(vectors)[0], stored[f"{image}/class_logits"]) < noise(file, "logits")
    branch, expected = branch_of(model), stored[f"{image}/keypoint_logits"]
    boxes = tf.constant(stored[f"{image}/det_boxes_resized"][None, : len(expected)])
    pooled = branch.pool(scene.features[:4], boxes)[0]
    wanted = stored[f"{image}/roi14_first3_every8th_channel"].transpose(0, 2, 3, 1)
    assert relative(pooled[:3, ..., ::8], wanted) < noise(file, "features")
    logits = branch.logits(scene, boxes)[0].numpy()[:, meta(file)["logit_channels"]]
    assert relative(logits, expected) < noise(file, "logits")


@FILES
@IMAGES
@pytest.mark.parametrize("count", [GIVEN, pytest.param(100, marks=pytest.mark.slow)])
def test_oracle_keypoint_detections(file: Path, image: str, count: int) -> None:
    """Of the `count` best detections."""
    model, stored = torchvision_model(file=file), outputs(file)
    pixels, sizes = letterboxed(image, file)
    assert model.outputs == {"boxes", "keypoints", "keypoint_scores"}
    best = np.sort(stored[f"{image}/scores"])[::-1]
    found = model.infer(pixels, sizes, model.prepare(), None if count >= len(best) else float(best[count]))
    valid = found.valid[0].numpy()
    boxes, scores, classes, _, _, points, point_scores = (
        None if part is None else np.asarray(part[0])[valid] for part in found
    )
    labels, expected_boxes = stored[f"{image}/labels"], stored[f"{image}/det_boxes_resized"]
    ours, theirs = matched_pairs(boxes, expected_boxes, classes, labels)
    assert len(ours) >= int(0.97 * min(count, len(best)))
    np.testing.assert_allclose(scores[ours], stored[f"{image}/scores"][theirs], atol=noise(file, "scores"))
    np.testing.assert_allclose(boxes[ours], expected_boxes[theirs], atol=noise(file, "boxes"))

    found = found._replace(boxes=boxes[ours], keypoints=points[ours], keypoint_scores=point_scores[ours])
    assert_same_keypoints(file, image, found, theirs, score=noise(file, "own"))

    # Of the oracle's own boxes, so that the noise of their corners is not added to that of the features.
    given = expected_boxes[:GIVEN]
    again = model.segment(
        pixels, sizes, tf.constant(given[None]), tf.constant(labels[None, :GIVEN], tf.int32), model.prepare()
    )
    again = again._replace(
        boxes=given, keypoints=again.keypoints[0].numpy(), keypoint_scores=again.keypoint_scores[0].numpy()
    )
    assert_same_keypoints(file, image, again, np.arange(len(given)), score=noise(file, "logits"))


def assert_same_keypoints(file: Path, image: str, found: Detections, theirs: np.ndarray, *, score: float) -> None:
    """Places to .05 px on ResNet-50, scores to a share of the largest, of detections [D] and their given partners."""
    stored, model = outputs(file), torchvision_model(file=file)
    scores = found.keypoint_scores
    worst = relative(scores, stored[f"{image}/keypoints_scores"][theirs])
    assert worst < score, worst
    expected = stored[f"{image}/det_keypoints_resized"][theirs][..., :2]
    clear = stored[f"{image}/keypoints_margin"][theirs] > CLEAR
    assert clear.mean() > 0.5
    away = np.abs(found.keypoints - expected).max(axis=-1)
    moved = clear & (away > noise(file, "boxes"))
    # The margin looks at what is more than 2 px away. Where neighbouring pixels tie, either is right.
    assert moved.mean() < noise(file, "ties")
    if not moved.any():
        return
    regions, parts = np.nonzero(moved)
    scene = model.scene(*letterboxed(image, file))
    logits = branch_of(model).logits(scene, tf.constant(found.boxes[None, regions]))[0].numpy()
    for region, part, maps in zip(regions, parts, logits, strict=True):
        assert away[region, part] < 2.0
        heat, box, peak = maps[part], found.boxes[region], scores[region, part]
        assert value_at(heat, box, found.keypoints[region, part]) == pytest.approx(peak, abs=1e-3)
        assert abs(value_at(heat, box, expected[region, part]) - peak) < noise(file, "tie")


def value_at(heat: np.ndarray, box: np.ndarray, point: np.ndarray) -> float:
    """The interpolated logit at the pixel of a point."""
    sides = np.maximum(box[2:] - box[:2], 1.0)
    pixels = np.ceil(sides).astype(int)
    column, row = np.clip(((point - box[:2]) / sides * pixels).astype(int), 0, pixels - 1)
    rows, columns = (keypoint_ops.cubic_weights(len(heat), int(count), int(count)).numpy() for count in pixels[::-1])
    return float(rows[row] @ heat @ columns[column])


def training_truth(file: Path) -> Targets:
    stored = outputs(file)
    count = len(stored["train/gt_boxes"])
    flags = tf.ones([1, count], tf.bool)
    points = stored["train/gt_keypoints"]
    return Targets(
        boxes=tf.constant(stored["train/gt_boxes"][None]),
        classes=tf.constant(stored["train/gt_labels"][None], tf.int32),
        valid=flags,
        crowd=~flags,
        masks=tf.zeros([1, count, 8, 8]),
        has_mask=~flags,
        keypoints=tf.constant(points[None]),
        has_keypoints=tf.constant((points[..., 2] > 0).any(axis=1)[None]),
    )


@FILES
def test_oracle_keypoint_losses_and_gradients(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All five losses, and the gradients of their sum and of the keypoint loss alone for every trained tensor."""
    stored, truth = outputs(file), training_truth(file)
    count, proposals = len(stored["train/gt_boxes"]), stored["train/proposals"]
    anchors = 3 * sum(stored[f"a/p{level}_every64th_channel"][0, 0].size for level in range(2, 7))
    # Both of the oracle's samplers took every candidate.
    model = torchvision_model(
        f"model.rpn={{pre_nms_train: 1000, post_nms_train: 200, samples: {anchors}, positive_fraction: 1.0}}",
        f"model.box={{rois: {len(proposals) + count}, positive_fraction: 1.0}}",
        "model.backbone={frozen_stages: 2}",
        file=file,
    )
    # The oracle's own: noise in the features swaps near-ties among proposals.
    given = Proposals(proposals[None], tf.zeros([1, len(proposals)]), tf.ones([1, len(proposals)], tf.bool))
    monkeypatch.setattr(ProposalFilter, "choose", lambda *_: given)
    pixels, sizes = letterboxed("a", file)
    with tf.GradientTape(persistent=True) as tape:
        losses = model.losses_of(pixels, sizes, truth, tf.constant([1, 2]))
        means = {name: loss_ops.mean(loss) for name, loss in losses.items()}
        total = tf.add_n(list(means.values()))
    names = {**LOSSES, "loss_keypoint": "loss_keypoint"}
    assert set(means) == set(names)
    assert float(losses["loss_keypoint"].count) == stored["train/keypoint_valid"].sum()
    for ours, theirs in names.items():
        np.testing.assert_allclose(means[ours], stored[f"train/{theirs}"], rtol=1e-3, err_msg=ours)
    variables = {variable.path: variable for variable in model.trainable_variables}
    tensors = [variable.value for variable in variables.values()]
    for loss, prefix in ((total, "train/grad_l2/"), (means["loss_keypoint"], "train/grad_l2_of_loss_keypoint/")):
        found = {
            sources(file)[path]: np.asarray(tf.convert_to_tensor(gradient))
            for path, gradient in zip(variables, tape.gradient(loss, tensors), strict=True)
            if gradient is not None
        }
        wanted = {key.removeprefix(prefix): float(value) for key, value in stored.items() if key.startswith(prefix)}
        assert {name for name, norm in wanted.items() if norm} <= set(found)
        for name, expected in wanted.items():
            norm = float(np.linalg.norm(found[name])) if name in found else 0.0
            # The bias moves all cells of a map alike, so its gradient is 0 but for rounding.
            assert abs(norm - expected) <= 0.01 * expected + 1e-6, (prefix, name, norm, expected)


@FILES
def test_oracle_keypoint_regions(file: Path) -> None:
    """The regions that go through the head are torchvision's, less those that add nothing."""
    stored, truth = outputs(file), training_truth(file)
    points = tf.gather(truth.keypoints[0], stored["train/keypoint_matched_idxs"])[None]
    boxes = tf.constant(stored["train/keypoint_rois"][None])
    side = outputs(file)["head/keypoint_logits"].shape[-1]
    _, valid = keypoint_ops.keypoint_targets(points, boxes, size=side)
    chosen = branch_of(torchvision_model(file=file)).chosen(tf.reduce_any(valid, axis=-1))[0].numpy()
    useful = np.flatnonzero(stored["train/keypoint_valid"].any(axis=1))
    np.testing.assert_array_equal(chosen, useful)
    assert len(useful) < len(boxes[0])
