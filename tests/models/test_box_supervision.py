"""Masks that learn from boxes: the weights that the losses change, where they are zero, and their warm-up."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.models.rcnn import RCNN
from maskx_tf.models.trainable import Learning
from maskx_tf.structures import Targets
from maskx_tf.targets import truth_regions
from tests.models import toy
from tests.models.small import config, inputs, loss_inputs, small_model, truth
from tests.models.toy import Toy

NO_MASKS = ((False, False, False), (False, False, False))
BOTH = ("projection", "pairwise")


@pytest.fixture(scope="module")
def model() -> RCNN:
    settings = {"box_losses": BOTH, "margin": 0.1, "regions": "jittered", "pixels": True, "trunk": "hourglass"}
    return small_model(config(mask={**settings, "channels": 16}))


def gradients(model: RCNN, targets: Targets, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Of the sum of some losses, for each weight that learns."""
    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        losses = model.losses_of(*loss_inputs(targets))
        total = tf.add_n([losses[name].total for name in names])
    found = tape.gradient(total, [variable.value for variable in variables])
    return {
        variable.path: np.zeros(1) if gradient is None else tf.convert_to_tensor(gradient).numpy()
        for variable, gradient in zip(variables, found, strict=True)
    }


@pytest.mark.parametrize("name", ["loss_mask_projection", "loss_mask_pairwise"])
def test_boxes_teach_t_and_the_head_but_not_the_rows_that_t_reads(model: RCNN, name: str) -> None:
    found = gradients(model, truth(has_mask=NO_MASKS), (name,))
    for path in ("transfer/fc1/kernel", "mask_head/trunk/fuse/kernel", "mask_head/trunk/stem1/kernel"):
        assert found[path].any(), path
    for path, gradient in found.items():
        if path.startswith(("box_predictor/", "rpn/", "box_head/")):
            assert not gradient.any(), path


def test_boxes_of_instances_with_a_mask_teach_nothing(model: RCNN) -> None:
    known = truth(has_mask=((True, True, False), (True, True, False)))
    losses = model.losses_of(*loss_inputs(known))
    for name in ("loss_mask_projection", "loss_mask_pairwise"):
        assert float(losses[name].total) == float(losses[name].count) == 0.0
    assert float(losses["loss_mask"].count) > 0


def test_an_image_without_instances_has_no_loss_and_no_gradient(model: RCNN) -> None:
    empty = truth()._replace(valid=tf.zeros([2, 3], tf.bool))
    names = ("loss_mask", "loss_mask_projection", "loss_mask_pairwise")
    losses = model.losses_of(*loss_inputs(empty))
    assert all(float(losses[name].total) == float(losses[name].count) == 0.0 for name in names)
    assert not any(gradient.any() for gradient in gradients(model, empty, names).values())


def test_labelled_points_teach_where_there_is_no_mask() -> None:
    """A point on the object raises the mask there, one outside it lowers it; other places are left alone."""
    points = small_model(config(mask={"box_losses": ("points",), "regions": "truth", "margin": 0.1}))
    boxes = truth().boxes.numpy()
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    clicks = np.zeros([*boxes.shape[:2], 4, 3], np.float32)
    clicks[..., 0, :2], clicks[..., 0, 2] = middle, 1  # on the object
    clicks[..., 1, :2], clicks[..., 1, 2] = boxes[..., :2], 2  # outside it
    clicks[..., 2, :2], clicks[..., 2, 2] = boxes[..., 2:] + 100, 1  # outside of the region
    with_clicks = {"clicks": tf.constant(clicks), "has_clicks": tf.ones(boxes.shape[:2], tf.bool)}
    targets = truth(has_mask=NO_MASKS)._replace(**with_clicks)
    losses = points.losses_of(*loss_inputs(targets))
    objects = np.count_nonzero(targets.valid & ~targets.crowd)
    assert float(losses["loss_mask_points"].count) == 2 * objects
    assert float(losses["loss_mask"].count) == 0.0
    known = truth(has_mask=((True, True, True),) * 2)._replace(**with_clicks)
    assert float(points.losses_of(*loss_inputs(known))["loss_mask_points"].count) == 0.0
    with pytest.raises(ValueError, match="expected labelled points"):
        points.losses_of(*loss_inputs(truth()))


def test_weight_of_a_loss_rises() -> None:
    model = Toy()
    model.learning = Learning(warm_up=(("loss_size", 4),))
    model.compile("sgd")
    for step in range(6):
        logs = model.train_on_batch(toy.batch(), return_dict=True)
        assert logs["loss_size"] > 0.0
        assert logs["loss"] == pytest.approx(logs["loss_shift"] + min(step / 4, 1.0) * logs["loss_size"], rel=1e-5)


@pytest.mark.slow
def test_weight_of_the_pairwise_loss_rises() -> None:
    model = small_model(config(mask={"box_losses": BOTH, "regions": "jittered"}))
    model.learning = Learning(warm_up=(("loss_mask_pairwise", 4),))
    model.compile(optimizer=keras.optimizers.SGD(1e-9))
    targets, asked = truth(has_mask=NO_MASKS), inputs()
    batch: dict[str, Any] = {
        **asked,
        "gt_boxes": targets.boxes,
        "gt_classes": targets.classes,
        "gt_masks": tf.zeros([2, 3, 112 * 112 // 8], tf.uint8),
        **{f"gt_{name}": tf.cast(getattr(targets, name), tf.uint8) for name in ("valid", "crowd", "has_mask")},
    }
    data = tf.data.Dataset.from_tensors(batch).repeat()
    for step in range(6):
        logs = model.fit(data, steps_per_epoch=1, verbose=0, shuffle=False).history
        each = {name: values[0] for name, values in logs.items() if name.startswith("loss_")}
        expected = sum(each.values()) - each["loss_mask_pairwise"] * (1.0 - min(step / 4, 1.0))
        assert each["loss_mask_pairwise"] > 0.0
        np.testing.assert_allclose(logs["loss"][0], expected, rtol=1e-4)


def test_margin_is_cut_off_again(model: RCNN) -> None:
    """A mask of a box is the part of the mask of the wider region that the box covers."""
    scene = model.scene(*inputs().values())
    boxes, classes = tf.constant([[[10.0, 8.0, 40.0, 44.0]], [[6.0, 4.0, 30.0, 40.0]]]), tf.constant([[1], [2]])
    prepared = model.mask.prepare()
    wide = tf.sigmoid(model.mask.logits(model.mask.read(scene, model.mask.with_margin(boxes)), classes, prepared))
    found = model.mask.probabilities(scene, boxes, classes, prepared)
    side = wide.shape[-1]
    # Cell i of the box lies (i + .5) / side * box into it, and the box begins .1 / 1.2 into the region.
    at = ((np.arange(side) + 0.5) / side + 0.1) / 1.2 * side - 0.5
    middle = side // 2
    row = np.interp(at, np.arange(side), wide[0, 0, middle].numpy())
    low, high = int(np.floor(at[middle])), int(np.floor(at[middle])) + 1
    rows = [np.interp(at, np.arange(side), wide[0, 0, index].numpy()) for index in (low, high)]
    row = rows[0] + (at[middle] - low) * (rows[1] - rows[0])
    np.testing.assert_allclose(found[0, 0, middle], row, atol=1e-5)


def test_regions_of_the_truth_reach_every_instance() -> None:
    """Also where there are more instances than regions, and only those with a mask unless boxes teach."""
    boxes = np.zeros([1, 9, 4], np.float32)
    boxes[0, :, 2:] = np.arange(1, 10)[:, None] * 4
    flags = np.ones([1, 9], bool)
    has_mask = np.arange(9)[None] < 6
    classes = np.arange(1, 10, dtype=np.int32)[None]
    plain = (boxes, classes, flags, ~flags, np.zeros([1, 9, 4, 4], np.float32), has_mask)
    targets = Targets(*map(tf.constant, plain))
    seen: dict[bool, set[int]] = {False: set(), True: set()}
    for with_boxes in seen:
        for number in range(40):
            seed = tf.constant([1, number])
            found = truth_regions(targets, seed=seed, size=2, jitter=0.1, with_boxes=with_boxes, turn=True)
            assert len(set(found.truths[0].numpy().tolist())) == 2
            np.testing.assert_array_equal(found.has_mask[0], has_mask[0][found.truths[0].numpy()])
            seen[with_boxes] |= set(found.classes[0].numpy().tolist())
    assert seen == {False: set(range(1, 7)), True: set(range(1, 10))}


def test_teacher_is_the_running_average() -> None:
    """One that is what the model is teaches nothing; another one does, head and T alike."""
    settings = {"box_losses": ("teacher",), "margin": 0.1, "regions": "jittered"}
    model = small_model(config(mask=settings))
    targets = truth(has_mask=NO_MASKS)
    with pytest.raises(ValueError, match="running averages"):
        model.losses_of(*loss_inputs(targets))
    learning = [variable for layer in model.mask.layers() for variable in layer.trainable_variables]
    model.mask.averages = lambda: [(variable, variable.value) for variable in learning]
    same = gradients(model, targets, ("loss_mask_teacher",))
    model.mask.averages = lambda: [(variable, 0.5 * variable.value) for variable in learning]
    other = gradients(model, targets, ("loss_mask_teacher",))
    for path in ("transfer/fc1/kernel", "mask_head/trunk/conv1/kernel"):
        assert np.abs(same[path]).max() < 1e-3 * np.abs(other[path]).max(), path
    losses = model.losses_of(*loss_inputs(truth(has_mask=((True, True, False), (True, True, False)))))
    assert float(losses["loss_mask_teacher"].total) == float(losses["loss_mask_teacher"].count) == 0.0
