"""Boxes, masks and keypoints in one model: what goes through the keypoint head, what comes out, and what learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from maskx_tf import losses as loss_ops
from maskx_tf.checkpoints import io
from maskx_tf.config import Config, ModelConfig
from maskx_tf.errors import BadInput
from maskx_tf.models import keypoints as keypoint_branch
from maskx_tf.models.build import build
from maskx_tf.models.inference import Predictor
from maskx_tf.models.keypoints import KeypointBranch
from maskx_tf.models.rcnn import RCNN
from maskx_tf.ops import keypoints as keypoint_ops
from maskx_tf.structures import Detections, Targets
from maskx_tf.targets import RegionTargets
from tests.models import small
from tests.models.small import assert_same_detections, config, inputs, loss_inputs, small_model

NAMES = ("nose", "left ear", "right ear")
KEYPOINT = {"use": True, "names": NAMES, "flip": (NAMES[1:],), "classes": ("cat", "horse"), "convs": 2, "channels": 16}


def settings(**keypoint: Any) -> ModelConfig:
    backbone = {"norm": "group"}  # so that features, and with them heat maps, have a usual size
    return config(family="mask_rcnn", backbone=backbone, keypoint={**KEYPOINT, **keypoint}, roi={"keypoint_size": 6})


@pytest.fixture(scope="module")
def model() -> RCNN:
    return small_model(settings())


@pytest.fixture(scope="module")
def found(model: RCNN) -> Detections:
    return model(inputs())


def branch_of(model: RCNN) -> KeypointBranch:
    branch = model.branch("keypoint")
    assert isinstance(branch, KeypointBranch)
    return branch


def truth() -> Targets:
    """The instances of `small.truth`: the first and the fourth have keypoints, of all labels; one lies outside."""
    plain = small.truth()
    points = np.zeros([2, 3, 3, 3], np.float32)
    points[0, 0] = [[6, 10, 2], [20, 30, 1], [60, 60, 2]]
    points[1, 1] = [[12, 20, 2], [30, 40, 2], [0, 0, 0]]
    return plain._replace(keypoints=tf.constant(points), has_keypoints=tf.constant((points[..., 2] > 0).any(axis=-1)))


def test_outputs(model: RCNN, found: Detections) -> None:
    assert model.outputs == settings().outputs == {"boxes", "masks", "keypoints", "keypoint_scores"}
    assert model.parts == ("features", "rpn", "box", "mask", "keypoint")
    assert (found.keypoints.shape, found.keypoint_scores.shape) == ((2, 7, 3, 2), (2, 7, 3))
    has = np.isin(found.classes, [1, 3])
    assert 0 < has.sum() < np.sum(found.valid)  # the test can tell
    assert not np.asarray(found.keypoints)[~has].any()
    assert not np.asarray(found.keypoint_scores)[~has].any()
    points, boxes = np.asarray(found.keypoints)[has], np.asarray(found.boxes)[has]
    assert ((points > boxes[:, None, :2] - 1) & (points < boxes[:, None, 2:] + 1)).all()
    assert len(np.unique(points)) > 20


def test_detections_without_keypoints_do_not_go_through_the_head(model: RCNN, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    branch, scene = branch_of(model), model.scene(*inputs().values())
    logits = branch.logits
    monkeypatch.setattr(branch, "logits", lambda scene, boxes: seen.append(boxes.shape[1]) or logits(scene, boxes))
    boxes = tf.tile(tf.constant([[[2.0, 3.0, 40.0, 44.0]]]), [2, 5, 1])
    for classes, most in (([[2, 1, 0, 3, 0], [2, 2, 2, 2, 1]], 2), ([[2] * 5] * 2, 1), ([[1, 1, 1, 3, 3]] * 2, 5)):
        numbers = tf.constant(classes)
        given = Detections(boxes, tf.ones([2, 5]), numbers, numbers > 0)
        result = branch.predict(scene, given, ())
        assert seen.pop() == most
        has = np.isin(classes, [1, 3])
        assert (np.asarray(result.keypoints).any(axis=(2, 3)) == has).all()
        one = result.keypoints.numpy()[has]
        assert not len(one) or np.ptp(one[: has[0].sum()], axis=0).max() < 1e-3  # the boxes are equal


@pytest.mark.slow
def test_portable_model_gives_the_same(model: RCNN, found: Detections) -> None:
    portable = build(settings(), portable=True)
    portable.set_weights(model.get_weights())
    assert_same(portable(inputs()), found)


def assert_same(ours: Detections, theirs: Detections) -> None:
    assert_same_detections(ours, theirs)
    np.testing.assert_allclose(ours.keypoints, theirs.keypoints, atol=0.05)
    np.testing.assert_allclose(ours.keypoint_scores, theirs.keypoint_scores, atol=1e-2)


@pytest.mark.parametrize("freeze", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_predictor(model: RCNN, found: Detections, freeze: bool) -> None:
    predictor = Predictor(model, (small.SIDE, small.SIDE), freeze=freeze)
    assert_same(predictor.detect(*inputs().values()), found)
    again = predictor.segment(*inputs().values(), found.boxes, found.classes)
    np.testing.assert_allclose(again.keypoints, found.keypoints, atol=0.05)


def test_losses(model: RCNN, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regions without a keypoint of their own inside change nothing, and the constant is Detectron's."""
    branch = branch_of(model)
    losses = model.losses_of(*loss_inputs(truth()))
    assert set(losses) == set(model.loss_names())
    visible = losses["loss_keypoint"]
    assert 0 < float(visible.count) < 2 * branch.foreground * 3
    near = 0.5 * np.log(branch.head.side**2)
    assert near < float(loss_ops.mean(visible)) < 20 * near
    monkeypatch.setattr(branch, "normaliser", "fixed")
    fixed = model.losses_of(*loss_inputs(truth()))["loss_keypoint"]
    np.testing.assert_allclose(fixed.total, visible.total, rtol=1e-5)
    box = settings().box
    assert float(fixed.count) == 2 * 3 * box.rois * box.positive_fraction
    monkeypatch.setattr(branch, "normaliser", "visible")
    monkeypatch.setattr(branch, "portable", True)  # all regions go through the head
    every = model.losses_of(*loss_inputs(truth()))["loss_keypoint"]
    np.testing.assert_allclose(every, visible, rtol=1e-5)


def test_no_keypoints_no_loss(model: RCNN) -> None:
    none = truth()._replace(keypoints=tf.zeros([2, 3, 3, 3]), has_keypoints=tf.zeros([2, 3], tf.bool))
    branch = branch_of(model)
    with tf.GradientTape() as tape:
        loss = loss_ops.mean(model.losses_of(*loss_inputs(none))["loss_keypoint"])
    assert float(loss) == 0.0
    for gradient in tape.gradient(loss, [variable.value for variable in branch.head.trainable_variables]):
        assert not np.any(gradient)


def test_truth_without_keypoints_is_refused(model: RCNN) -> None:
    with pytest.raises(ValueError, match="gt_keypoints: expected 3 keypoints an instance, found none"):
        model.losses_of(*loss_inputs())
    other = truth()._replace(keypoints=tf.zeros([2, 3, 5, 3]))
    with pytest.raises(ValueError, match="gt_keypoints: expected 3 keypoints an instance, found 5"):
        model.losses_of(*loss_inputs(other))


def test_score_is_a_probability_where_the_settings_say_so(model: RCNN, monkeypatch: pytest.MonkeyPatch) -> None:
    branch, scene = branch_of(model), model.scene(*inputs().values())
    boxes, classes = tf.constant([[[2.0, 3.0, 40.0, 44.0]]] * 2), tf.ones([2, 1], tf.int32)
    given = Detections(boxes, tf.ones([2, 1]), classes, classes > 0)
    monkeypatch.setattr(branch, "score", "probability")
    scores = branch.predict(scene, given, ()).keypoint_scores
    _, expected = keypoint_ops.decode_keypoints(
        branch.logits(scene, boxes), boxes, canvas=(small.SIDE, small.SIDE), score="probability"
    )
    np.testing.assert_allclose(scores, expected, rtol=1e-4)
    assert ((scores > 0) & (scores < 2)).numpy().all()


def test_put_back() -> None:
    flags = tf.constant([[False, True, False, True], [False, False, False, False]])
    values = tf.constant([[[1.0], [2.0]], [[3.0], [4.0]]])
    np.testing.assert_array_equal(keypoint_branch.put_back(values, flags)[..., 0], [[0, 1, 0, 2], [0, 0, 0, 0]])


@pytest.mark.slow
def test_model_folder_and_stage(model: RCNN, found: Detections, tmp_path: Path) -> None:
    io.save(model, Config(model=settings()), tmp_path / "model")
    loaded = io.load(tmp_path / "model").model
    assert_same(loaded(inputs()), found)
    loaded.learn(("keypoint",))
    assert loaded.loss_names() == ("loss_keypoint",)
    assert {variable.path.split("/")[0] for variable in loaded.trainable_variables} == {"keypoint_head"}


def test_names_are_needed() -> None:
    with pytest.raises(BadInput, match=r"model\.keypoint\.names is empty, expected the names of the keypoints"):
        build(config(keypoint={"use": True}))


def test_a_class_that_the_model_does_not_have_is_refused() -> None:
    """The data may name the classes after the configuration was checked."""
    with pytest.raises(BadInput, match=r"model\.keypoint\.classes: expected classes of .*class_names, found horse"):
        build(settings().model_copy(update={"class_names": ("cat", "dog")}))


def test_keypoints_are_learned_by_heart() -> None:
    """The branch alone, on features that stand still: what is decoded afterwards lies where the truth is."""
    learner = small_model(settings(channels=32))
    learner.learn(("keypoint",))
    images, sizes, targets, seed = loss_inputs(truth())
    scene = learner.scene(images, sizes)
    regions = RegionTargets(
        boxes=targets.boxes,
        classes=targets.classes,
        valid=targets.valid,
        truths=tf.constant([[0, 1, 2]] * 2),
        deltas=tf.zeros_like(targets.boxes),
        has_mask=targets.has_mask,
    )
    branch, optimizer = branch_of(learner), keras.optimizers.Adam(5e-3)
    variables = learner.trainable_variables
    optimizer.build(variables)

    @tf.function(autograph=False)
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = loss_ops.mean(branch.losses(scene, regions, targets, seed)["loss_keypoint"])
        optimizer.apply_gradients(zip(tape.gradient(loss, [one.value for one in variables]), variables, strict=True))
        return loss

    losses = [float(step()) for _ in range(150)]
    assert losses[-1] < 0.1 * losses[0]
    given = Detections(targets.boxes, tf.ones([2, 3]), targets.classes, targets.valid)
    found = branch.predict(scene, given, ())
    for image, instance, parts in ((0, 0, (0, 1)), (1, 1, (0, 1))):  # the third lies outside, or is not there
        expected = targets.keypoints[image, instance].numpy()[list(parts), :2]
        away = np.abs(found.keypoints[image, instance].numpy()[list(parts)] - expected)
        assert away.max() < 2.0  # a cell is 1.3 pixels high
