"""The whole model against torchvision's: the same weights and images in, its numbers out, forward and backward."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf import losses as loss_ops
from maskx_tf.masks import paste as paste_ops
from maskx_tf.models.inference import Predictor
from maskx_tf.models.proposals import ProposalFilter
from maskx_tf.structures import Detections, Proposals, Targets
from tests.models.small import predict_eagerly
from tests.models.torchvision_models import LOSSES, letterboxed, sources, torchvision_model
from tests.oracle import level_rows, matched_pairs, matched_share, needs_oracle, nhwc, outputs, relative

pytestmark = needs_oracle
CANVAS = {"a": (256, 256), "b": (192, 256)}
# The predictor's test asks about b by default, too.
IMAGES = pytest.mark.parametrize("image", ["a", pytest.param("b", marks=pytest.mark.slow)])


@IMAGES
def test_input_and_features(image) -> None:
    model = torchvision_model()
    pixels, sizes = letterboxed(image)
    np.testing.assert_array_equal(sizes[0], outputs()[f"{image}/resized_hw"])
    normal = model.normaliser.apply(pixels, sizes)
    expected = outputs()[f"{image}/input_padded"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(normal[:, ::4, ::4], expected, atol=1e-5)
    for level, (features, coarse) in enumerate(zip(model.backbone(normal), (2, 3, 4, 5), strict=True), start=2):
        assert relative(features[..., ::16], nhwc(f"{image}/c{coarse}_every16th_channel")) < 1e-3, level
    for level, features in enumerate(model.features(pixels, sizes), start=2):
        assert relative(features[..., ::16], nhwc(f"{image}/p{level}_every16th_channel")) < 1e-3, level


@IMAGES
def test_heads(image) -> None:
    model = torchvision_model()
    stored = outputs()
    pixels, sizes = letterboxed(image)
    scene = model.scene(pixels, sizes)
    features = scene.features
    logits, deltas = model.rpn.head(features)
    for level in range(5):
        expected = level_rows(f"{image}/rpn_objectness_p{level + 2}", 1)[..., 0]
        assert relative(logits[level], expected) < 1e-3
        assert relative(deltas[level], level_rows(f"{image}/rpn_deltas_p{level + 2}", 4)) < 1e-3
    regions = tf.constant(stored[f"{image}/proposals"][None])
    vectors = model.box.vectors(features, regions)
    assert relative(model.box.predictor(vectors)[0], stored[f"{image}/class_logits"]) < 1e-3
    expected = stored[f"{image}/box_regression"].reshape(1000, 8, 4)
    for number in range(1, 8):
        own = model.box.predictor.deltas(vectors, tf.fill([1, 1000], number))
        assert np.abs(own[0] - expected[:, number]).max() / np.abs(expected).max() < 1e-3
    boxes = tf.constant(stored[f"{image}/det_boxes_resized"][None, :24])
    pooled = model.mask.pooled(scene, boxes)
    for number in range(1, 8):
        own = model.mask.logits(pooled, tf.fill([1, 24], number), ())[0]
        expected = stored[f"{image}/mask_logits"]
        assert np.abs(own - expected[:, number]).max() / np.abs(expected).max() < 1e-2


@IMAGES
def test_proposals(image) -> None:
    model = torchvision_model()
    pixels, sizes = letterboxed(image)
    found = model.rpn.test.choose(model.rpn.outputs(model.features(pixels, sizes)), sizes)
    boxes = found.boxes[0].numpy()[found.valid[0].numpy()]
    expected = outputs()[f"{image}/proposals"]
    nothing = np.zeros(1000)
    assert len(boxes) == len(expected)
    assert matched_share(boxes, expected, nothing, nothing) >= 0.99


def assert_same_detections(image: str, found: Detections) -> None:
    stored = outputs()
    boxes, scores, classes = (np.asarray(part[0]) for part in found[:3])
    expected, labels = stored[f"{image}/det_boxes_resized"], stored[f"{image}/labels"]
    assert np.asarray(found.valid[0]).all()
    ours, theirs = matched_pairs(boxes, expected, classes, labels)
    assert len(ours) == len(boxes)
    np.testing.assert_allclose(scores[ours], stored[f"{image}/scores"][theirs], atol=1e-3)
    np.testing.assert_allclose(boxes[ours], expected[theirs], atol=0.05)
    height, width = stored[f"{image}/image_uint8"].shape[:2]
    resized = stored[f"{image}/resized_hw"]
    original = boxes * np.array([width / resized[1], height / resized[0]] * 2, np.float32)
    pasted = paste_ops.paste(np.asarray(found.masks[0])[ours], original[ours], height, width, mode="integer")
    wanted = np.unpackbits(stored[f"{image}/masks_pasted_ge_half_packed"], axis=-1)[..., :width].astype(bool)[theirs]
    assert (pasted == wanted).mean() > 0.999
    assert (pasted & wanted).sum() / (pasted | wanted).sum() > 0.995


@IMAGES
def test_detections_of_the_model(image) -> None:
    pixels, sizes = letterboxed(image)
    assert_same_detections(image, torchvision_model()({"images": pixels, "image_sizes": sizes}))


@pytest.mark.parametrize("freeze", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_detections_of_the_predictor(freeze, monkeypatch) -> None:
    if not freeze:
        predict_eagerly(monkeypatch)  # the frozen one is a graph
    pixels, sizes = letterboxed("b")
    predictor = Predictor(torchvision_model(), CANVAS["b"], freeze=freeze)
    found = predictor.detect(pixels, sizes)
    assert_same_detections("b", found)
    again = predictor.segment(pixels, sizes, found.boxes, found.classes)
    np.testing.assert_allclose(again.masks, found.masks, atol=1e-5)


@pytest.mark.slow
def test_detections_of_the_portable_model() -> None:
    pixels, sizes = letterboxed("b")
    model = torchvision_model(portable=True)
    assert_same_detections(
        "b", tf.function(lambda *inputs: model.infer(*inputs, model.prepare()), autograph=False)(pixels, sizes)
    )


def training_truth() -> Targets:
    """The oracle's five instances; their masks as a grid over the image, where torchvision's own cuts start."""
    stored = outputs()
    flags = tf.ones([1, 5], tf.bool)
    masks = np.unpackbits(stored["train/gt_masks"], axis=-1).astype(np.float32)[None]
    return Targets(
        boxes=tf.constant(stored["train/gt_boxes"][None]),
        classes=tf.constant(stored["train/gt_labels"][None], tf.int32),
        valid=flags,
        crowd=~flags,
        masks=tf.constant(masks),
        has_mask=flags,
    )


def torchvision_mask_targets(bitmaps: np.ndarray, regions: np.ndarray, matches: np.ndarray, size: int) -> np.ndarray:
    """Soft targets, as torchvision cuts them: RoIAlign on the bitmap, unaligned, ceil(side / size) samples a bin."""
    result = np.zeros([len(regions), size, size])
    for index, (box, match) in enumerate(zip(regions, matches, strict=True)):
        weights = []
        for low, high, length in ((box[1], box[3], bitmaps.shape[1]), (box[0], box[2], bitmaps.shape[2])):
            side = max(high - low, 1.0)
            samples = int(np.ceil(side / size))
            at = low + (np.arange(size * samples) + 0.5) * side / (size * samples)
            inside = (at >= -1.0) & (at <= length)
            at = np.clip(at, 0.0, length - 1.0)
            each = np.maximum(1.0 - np.abs(at[:, None] - np.arange(length)), 0.0) * inside[:, None]
            weights.append(each.reshape(size, samples, length).mean(axis=1))
        result[index] = weights[0] @ bitmaps[match] @ weights[1].T
    return result.astype(np.float32)


def test_losses_and_gradients(monkeypatch) -> None:
    """All five losses, and the gradient of their sum for every trained tensor."""
    stored = outputs()
    # Both of the oracle's samplers took every candidate: 200 proposals and 5 truths.
    model = torchvision_model(
        "model.rpn={pre_nms_train: 1000, post_nms_train: 200, samples: 16368, positive_fraction: 1.0}",
        "model.box={rois: 205, positive_fraction: 1.0}",
        "model.backbone={frozen_stages: 2}",
    )
    # The oracle's own proposals: noise of 1e-5 in the features swaps some of two hundred near-ties, and with them up
    # to 1.3% of a gradient's norm (measured by adding noise to the image). `test_proposals` compares ours.
    proposals = Proposals(stored["train/proposals"][None], tf.zeros([1, 200]), tf.ones([1, 200], tf.bool))
    monkeypatch.setattr(ProposalFilter, "choose", lambda *_: proposals)
    truth = training_truth()
    bitmaps = truth.masks[0].numpy()

    def soft_targets(regions, targets):
        del targets
        boxes, matches = regions.boxes[0].numpy(), regions.truths[0].numpy()
        return tf.constant(torchvision_mask_targets(bitmaps, boxes, matches, 28)[None])

    monkeypatch.setattr(model.mask, "targets", soft_targets)
    pixels, sizes = letterboxed("a")
    with tf.GradientTape() as tape:
        losses = model.losses_of(pixels, sizes, truth, tf.constant([1, 2]))
        means = {name: loss_ops.mean(loss) for name, loss in losses.items()}
        total = tf.add_n(list(means.values()))
    for ours, theirs in {**LOSSES, "loss_mask": "loss_mask"}.items():
        np.testing.assert_allclose(means[ours], stored[f"train/{theirs}"], rtol=1e-3, err_msg=ours)
    variables = {variable.path: variable for variable in model.trainable_variables}
    gradients = dict(zip(variables, tape.gradient(total, [v.value for v in variables.values()]), strict=True))
    assert_gradient_norms({path: np.asarray(tf.convert_to_tensor(value)) for path, value in gradients.items()})


def assert_gradient_norms(gradients: dict[str, np.ndarray]) -> None:
    stored = outputs()
    wanted = {key.removeprefix("train/grad_l2/"): float(value) for key, value in stored.items() if "grad_l2" in key}
    # The rows of the background's boxes and masks, which we do not have, get no gradient there.
    found = {sources()[path]: float(np.linalg.norm(gradient)) for path, gradient in gradients.items()}
    assert set(found) == set(wanted)
    for name, expected in wanted.items():
        assert abs(found[name] - expected) <= 0.01 * expected, (name, found[name], expected)
