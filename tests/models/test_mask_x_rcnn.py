"""Mask^X R-CNN: which masks change which weights, what T reads, and a cost that does not depend on classes."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf import losses as loss_ops
from maskx_tf.errors import BadInput
from maskx_tf.models.build import build
from maskx_tf.models.filters import BoxWeights
from maskx_tf.models.inference import Predictor
from maskx_tf.models.rcnn import RCNN
from maskx_tf.structures import Targets
from maskx_tf.targets import RegionTargets
from tests import reference_layers as reference
from tests.models import small
from tests.models.small import config, inputs, loss_inputs, small_model, truth
from tests.reference_masks import mask_target

CANVAS = (small.SIDE, small.SIDE)
# Boxes and classes to ask masks for.
BOXES = np.array(
    [[[2.0, 3.0, 30.0, 40.0], [5.5, 5.5, 50.0, 20.0]], [[1.0, 1.0, 9.0, 9.0], [0.0, 0.0, 58.0, 49.0]]], np.float32
)
CHOSEN = np.array([[1, 3], [2, 3]], np.int32)
NO_MASKS = ((False, False, False), (False, False, False))


def slow(value: Any) -> Any:
    """A parameter that scripts/test --slow runs alone."""
    return pytest.param(value, marks=pytest.mark.slow)


@functools.cache
def model_of(**settings: Any) -> RCNN:
    """A small model whose `transfer` and `mask` settings are given as transfer_..., mask_...."""
    sections: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        section, _, name = key.partition("_")
        sections.setdefault(section, {})[name] = value
    return small_model(config(**sections))


class Learned(NamedTuple):
    """The mask loss of one batch, and its gradient towards every weight: None where there is no path."""

    total: float
    count: float
    gradients: dict[str, np.ndarray | None]


def mask_loss(model: RCNN, targets: Targets | None = None) -> Learned:
    variables = {variable.path: variable for variable in model.weights if "float" in variable.dtype}
    with tf.GradientTape() as tape:
        tape.watch([variable.value for variable in variables.values()])
        loss = model.losses_of(*loss_inputs(targets))["loss_mask"]
        value = loss_ops.mean(loss)
    gradients = tape.gradient(value, {path: variable.value for path, variable in variables.items()})
    return Learned(
        float(value),
        float(loss.count),
        {
            path: None if gradient is None else tf.convert_to_tensor(gradient).numpy()
            for path, gradient in gradients.items()
        },
    )


usual_mask_loss = functools.cache(mask_loss)


def is_zero(gradient: np.ndarray | None) -> bool:
    """No path, or exactly nothing at its end."""
    return gradient is None or not gradient.any()


def assert_same_learning(ours: Learned, theirs: Learned) -> None:
    assert ours.total == theirs.total
    assert ours.count == theirs.count
    for path, gradient in ours.gradients.items():
        other = theirs.gradients[path]
        assert (gradient is None) == (other is None), path
        if gradient is not None:
            np.testing.assert_allclose(gradient, other, rtol=1e-5, atol=1e-9, err_msg=path)


# (a) whom the mask loss reaches


@pytest.mark.parametrize("parts", [slow("cls"), slow("box"), "cls_box"])
def test_the_stopped_gradient_is_exactly_zero(parts) -> None:
    learned = usual_mask_loss(model_of(transfer_input=parts))
    assert learned.total > 0
    for path, gradient in learned.gradients.items():
        if path.startswith("box_predictor"):
            assert is_zero(gradient), path
    # It does reach T, the trunk, the pyramid and the backbone.
    for path in ("transfer/fc1/kernel", "transfer/fc2/bias", "mask_head/trunk/conv1/kernel", "fpn/lateral4/kernel"):
        assert not is_zero(learned.gradients[path]), path
    backbone = {variable.path for variable in model_of(transfer_input=parts).backbone.trainable_variables}
    assert any(not is_zero(learned.gradients[path]) for path in backbone)


@pytest.mark.parametrize("parts", [slow("cls"), slow("box"), "cls_box"])
def test_without_the_stop_it_reaches_the_rows_of_classes_with_masks(parts) -> None:
    """Classes 1 and 2 have targets (A), class 3 has boxes alone (B); background is not an input of T."""
    gradients = usual_mask_loss(model_of(transfer_input=parts, transfer_stop_gradient=False)).gradients
    class_rows, box_rows = gradients["box_predictor/class_rows"], gradients["box_predictor/box_rows"]
    if "cls" in parts:
        assert class_rows[1].any()
        assert class_rows[2].any()
        assert not class_rows[[0, 3]].any()
    else:
        assert is_zero(class_rows)
    if "box" in parts:
        assert box_rows[:2].any(axis=(1, 2)).all()
        assert not box_rows[2].any()
    else:
        assert is_zero(box_rows)
    for path in ("box_predictor/class_bias", "box_predictor/box_bias"):
        assert is_zero(gradients[path])


def test_other_losses_still_move_the_rows() -> None:
    model = model_of()
    values = [model.box.predictor.class_rows.value, model.box.predictor.box_rows.value]
    with tf.GradientTape() as tape:
        losses = model.losses_of(*loss_inputs())
        total = loss_ops.mean(losses["loss_class"]) + loss_ops.mean(losses["loss_box"])
    for gradient in tape.gradient(total, values):
        assert tf.convert_to_tensor(gradient).numpy().any()


def test_mask_loss_does_not_reach_the_boxes() -> None:
    """Neither the RPN nor the box head, through the corners of the regions."""
    for path, gradient in usual_mask_loss(model_of(transfer_stop_gradient=False)).gradients.items():
        if path.startswith(("rpn", "box_head")):
            assert is_zero(gradient), path


# (b) nothing to learn from


@pytest.mark.parametrize("stop_gradient", [True, slow(False)])
@pytest.mark.parametrize("branch", [slow("none"), "reference", slow("lean")])
def test_a_batch_without_masks_adds_exactly_nothing(stop_gradient, branch) -> None:
    model = model_of(transfer_stop_gradient=stop_gradient, mask_mlp_branch=branch)
    learned = mask_loss(model, truth(has_mask=NO_MASKS))
    assert learned.total == 0.0
    assert learned.count == 0.0
    for path, gradient in learned.gradients.items():
        assert is_zero(gradient), path


def test_other_losses_do_not_ask_for_masks() -> None:
    with_masks, without = (
        model_of().losses_of(*loss_inputs(truth(has_mask=flags))) for flags in (truth().has_mask, NO_MASKS)
    )
    for key, loss in with_masks.items():
        if key != "loss_mask":
            assert float(loss.total) == float(without[key].total) > 0


# (c) masks that must not be read


def spoiled(targets: Targets, garbage: float) -> Targets:
    """The same truth with garbage for the masks of those that have none, padding included."""
    return targets._replace(masks=tf.where(targets.has_mask[..., None, None], targets.masks, garbage))


@pytest.mark.parametrize("garbage", [slow(0.0), 1.0, slow(-1e30), slow(np.inf), np.nan])
def test_a_mask_of_class_b_never_counts(garbage) -> None:
    model = model_of(transfer_stop_gradient=False)
    assert_same_learning(mask_loss(model, spoiled(truth(), garbage)), usual_mask_loss(model))


def test_a_changed_mask_changes_the_loss() -> None:
    """So the test above can fail."""
    model = model_of()
    flags = tf.constant([[False, True, False], [False, False, False]])
    targets = truth()
    turned = targets._replace(masks=tf.where(flags[..., None, None], targets.masks, 1.0))
    assert abs(mask_loss(model, turned).total - usual_mask_loss(model).total) > 1e-3


def test_a_class_with_and_without_masks_in_one_batch() -> None:
    """Class 1 has a mask in the first image and none in the second, or the other way round."""
    model = model_of(transfer_stop_gradient=False)
    flags = {
        "both": ((True, False, False), (False, True, False)),
        "first": ((True, False, False), (False, False, False)),
        "second": ((False, False, False), (False, True, False)),
    }
    learned = {name: mask_loss(model, spoiled(truth(has_mask=has), np.nan)) for name, has in flags.items()}
    for one in learned.values():
        rows = one.gradients["box_predictor/class_rows"]
        assert rows[1].any()
        assert not rows[[0, 2, 3]].any()
    # The loss is the mean over pixels of regions with a mask: totals and counts add up.
    assert learned["both"].count == learned["first"].count + learned["second"].count
    total = sum(learned[name].total * learned[name].count for name in ("first", "second"))
    np.testing.assert_allclose(learned["both"].total * learned["both"].count, total, rtol=1e-5)


def test_masks_of_padding_and_crowds_are_ignored() -> None:
    """A mask flagged in padding or on a crowd changes nothing."""
    model, targets = model_of(), truth()
    padded = targets._replace(has_mask=tf.constant([[True, True, True], [False, True, True]]))
    assert_same_learning(mask_loss(model, spoiled(padded, np.nan)), usual_mask_loss(model))
    crowded = targets._replace(crowd=tf.constant([[False, True, False], [False, False, False]]))
    alone = targets._replace(valid=tf.constant([[True, False, False], [True, True, False]]))
    assert_same_learning(mask_loss(model, crowded), mask_loss(model, alone))


def test_the_mask_loss_is_a_mean_over_pixels(monkeypatch) -> None:
    """Binary cross-entropy of each region's own class towards its own truth's mask, cut to it and cut at .5."""
    model, targets = model_of(), truth()
    sampled: list[RegionTargets] = []
    plain = model.sampled_regions

    def spy(*arguments: Any) -> RegionTargets:
        sampled.append(plain(*arguments))
        return sampled[-1]

    monkeypatch.setattr(model, "sampled_regions", spy)
    learned = mask_loss(model, spoiled(targets, np.nan))
    (regions,) = sampled
    asked = inputs()
    scene = model.scene(asked["images"], asked["image_sizes"])
    pooled = model.mask.pooled(scene, regions.boxes)
    logits = np.asarray(model.mask.logits(pooled, regions.classes, model.mask.prepare()), np.float64)
    entropies = []
    for image, region in zip(*np.nonzero(np.asarray(regions.has_mask)), strict=True):
        own = int(regions.truths[image, region])
        assert regions.classes[image, region] == targets.classes[image, own] != 3
        mask, box = targets.masks[image, own], targets.boxes[image, own]
        wanted = mask_target(mask, box, regions.boxes[image, region], 28, 2) >= 0.5
        probs = reference.sigmoid(logits[image, region])
        entropies.append(-np.log(np.where(wanted, probs, 1 - probs)))
    assert len(entropies) >= 3
    assert learned.count == len(entropies) * 28 * 28
    np.testing.assert_allclose(learned.total, np.mean(entropies), rtol=1e-3)


# (d) the transcription


def rows_of(model: RCNN) -> tuple[np.ndarray, np.ndarray]:
    return model.box.predictor.class_rows.numpy(), model.box.predictor.box_rows.numpy()


def dense_of(layers: list[Any]) -> list[reference.Layer]:
    return [(np.array(layer.kernel), np.array(layer.bias)) for layer in layers]


TRANSFERS: list[dict[str, Any]] = [
    {},
    {"transfer_input": "cls"},
    {"transfer_input": "box", "transfer_layers": 1},
    {"transfer_layers": 3, "transfer_activation": "relu"},
    {"transfer_init": "small"},
]


@pytest.mark.parametrize("settings", TRANSFERS, ids=str)
def test_filters(settings) -> None:
    model = model_of(**settings)
    parts = settings.get("transfer_input", "cls_box")
    rows = reference.embeddings(*rows_of(model), parts)
    assert rows.shape == (3, {"cls": 32, "box": 4 * 32, "cls_box": 5 * 32}[parts])
    np.testing.assert_array_equal(model.mask.filters.embeddings.rows(), rows.astype(np.float32))
    expected = reference.transfer(
        rows, dense_of(model.mask.filters.transfer.dense), settings.get("transfer_activation", "leaky_relu")
    )
    (filters,) = model.mask.prepare()
    assert (filters.shape, filters.dtype) == ((3, 32), tf.float32)
    np.testing.assert_allclose(filters, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_filters_with_class_agnostic_boxes() -> None:
    """T may read class scores where boxes are the same for all classes."""
    model = build(config(transfer={"input": "cls"}, box={"class_agnostic": True}))
    np.testing.assert_array_equal(model.mask.filters.embeddings.rows(), model.box.predictor.class_rows.numpy()[1:])


@pytest.mark.parametrize("parts", [slow("cls"), slow("box"), "cls_box"])
def test_filters_of_unit_parts(parts) -> None:
    """Each part by itself to a root mean square of one."""
    model = model_of(transfer_input=parts, transfer_unit_rms=True)
    sizes = {"cls": (32,), "box": (128,), "cls_box": (32, 128)}[parts]
    rows = np.array([reference.unit_rms(row, sizes) for row in reference.embeddings(*rows_of(model), parts)])
    expected = reference.transfer(rows, dense_of(model.mask.filters.transfer.dense), "leaky_relu")
    np.testing.assert_allclose(model.mask.prepare()[0], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("branch", [slow("none"), "reference", slow("lean")])
def test_masks(branch) -> None:
    """sigmoid(F . w + MLP), from the pooled features on."""
    model = model_of(mask_mlp_branch=branch)
    asked = inputs()
    scene = model.scene(asked["images"], asked["image_sizes"])
    pooled = model.mask.pooled(scene, tf.constant(BOXES))
    assert pooled.shape == (2, 2, 14, 14, 32)
    masks = model.mask.probabilities(scene, tf.constant(BOXES), tf.constant(CHOSEN), model.mask.prepare())
    filters = reference.transfer(
        reference.embeddings(*rows_of(model), "cls_box"), dense_of(model.mask.filters.transfer.dense), "leaky_relu"
    )
    trunk = model.mask.head.trunk
    for image in range(2):
        small_map, large = reference.mask_trunk(
            np.asarray(pooled[image], np.float64),
            dense_of(trunk.convs),
            np.array(trunk.deconv_kernel),
            np.array(trunk.deconv_bias),
        )
        logits = reference.mask_logits(large, filters[CHOSEN[image] - 1])
        assert logits.shape == (2, 28, 28)
        if branch == "reference":
            logits += reference.mlp_branch(large, *dense_of([model.mask.head.branches[0].dense]))
        elif branch == "lean":
            (squeeze,) = dense_of([model.mask.head.branches[0].squeeze])
            squeezed = reference.relu(reference.convolution(small_map, squeeze[0]) + squeeze[1])
            logits += reference.mlp_branch(squeezed, *dense_of([model.mask.head.branches[0].dense]))
        np.testing.assert_allclose(masks[image], reference.sigmoid(logits), atol=2e-3)


def test_the_branch_is_the_same_for_every_class() -> None:
    model = model_of(mask_mlp_branch="reference")
    head, pooled = model.mask.head, tf.constant(np.random.default_rng(0).normal(size=(1, 1, 14, 14, 32)), tf.float32)
    bare = head(pooled, tf.zeros([1, 1, 32]))
    assert np.abs(bare).max() > 0
    for number in range(3):
        filters = model.mask.prepare()[0][None, number : number + 1]
        both, alone = head(pooled, filters), tf.reduce_sum(head.trunk(pooled)[1] * filters[:, :, None, None], axis=-1)
        np.testing.assert_allclose(both, alone + bare, rtol=1e-4, atol=1e-3)


# (e) T runs once


@pytest.mark.slow
@pytest.mark.parametrize("freeze", [False, True])
def test_filters_are_cached(freeze) -> None:
    model = small_model(config())
    predictor = Predictor(model, CANVAS, freeze=freeze)
    asked = inputs()
    before = predictor.detect(**asked)
    for variable in model.mask.filters.transfer.weights:
        variable.assign(-variable)
    np.testing.assert_array_equal(predictor.detect(**asked).masks, before.masks)
    predictor.refresh()
    after = predictor.detect(**asked)
    np.testing.assert_array_equal(after.boxes, before.boxes)
    assert np.abs(after.masks - before.masks).max() > 0.1
    np.testing.assert_allclose(after.masks, model(asked).masks, atol=1e-3)


def test_refresh_sees_new_box_rows() -> None:
    """T's inputs are weights of the box predictor: changing those changes the masks, boxes given."""
    model = small_model(config())
    predictor = Predictor(model, CANVAS)
    asked = inputs()
    before = predictor.segment(*asked.values(), BOXES, CHOSEN)
    model.box.predictor.box_rows.assign(model.box.predictor.box_rows[::-1] * 2.0)
    np.testing.assert_array_equal(predictor.segment(*asked.values(), BOXES, CHOSEN).masks, before.masks)
    predictor.refresh()
    assert np.abs(predictor.segment(*asked.values(), BOXES, CHOSEN).masks - before.masks).max() > 1e-3


@pytest.mark.slow
def test_a_predictor_takes_bytes_and_floats() -> None:
    predictor = Predictor(model_of(), CANVAS)
    asked = inputs()
    whole = tf.round(asked["images"])
    expected = predictor.detect(whole, asked["image_sizes"])
    small.assert_same_detections(predictor.detect(tf.cast(whole, tf.uint8), asked["image_sizes"]), expected)


@pytest.mark.parametrize("freeze", [False, slow(True)])
def test_a_predictor_compiles(freeze) -> None:
    """XLA has no crop_and_resize: compiling a model that is not portable has to fail."""
    predictor = Predictor(model_of(), CANVAS, freeze=freeze, jit=True)
    with pytest.raises(tf.errors.InvalidArgumentError):
        predictor.detect(**inputs())


def test_inference_does_not_run_the_transfer() -> None:
    """Its result is an input; none of its weights is in the graph."""
    model = model_of()
    asked = inputs()
    prepared = tf.nest.map_structure(tf.constant, model.prepare())
    traced = tf.function(lambda *values: model.infer(*values, prepared), autograph=False).get_concrete_function(
        *asked.values()
    )
    read = {variable.ref() for variable in traced.variables}
    assert model.box.predictor.class_rows.value.ref() in read
    assert not read & {weight.value.ref() for weight in model.mask.filters.transfer.weights}


# (f) no cost in the number of classes

# A prime: what it divides was made of classes. Regions x classes are more than the 2000 candidates that are kept.
CLASSES = 131  # up to 128 the deltas of all classes are one product
REGIONS = small.DEFAULTS["rpn"]["post_nms_test"]


def input_dependent(function: Any) -> set[str]:
    """Names of the operations that what is asked flows through; the others depend on the weights alone."""
    graph = function.graph
    asked = graph.inputs[: len(graph.inputs) - len(function.captured_inputs)]
    reached = {tensor.op.name for tensor in asked}
    for operation in graph.get_operations():  # in the order in which they were made: inputs come first
        if any(source.op.name in reached for source in operation.inputs):
            reached.add(operation.name)
    return reached


def class_tensors(function: Any, *specs: tf.TensorSpec) -> dict[str, tuple[int, ...]]:
    """Shapes with a dimension made of K or K + 1, of all tensors that depend on the inputs and of those in loops."""
    traced = tf.function(function, autograph=False).get_concrete_function(*specs)
    dependent = input_dependent(traced)
    graph = traced.graph.as_graph_def(add_shapes=True)
    nodes = [node for node in graph.node if node.name in dependent]
    nodes += [node for body in graph.library.function for node in body.node_def]
    found = {}
    for node in nodes:
        for index, shape in enumerate(node.attr["_output_shapes"].list.shape):
            sizes = tuple(dimension.size for dimension in shape.dim)
            if any(size > 1 and (size % CLASSES == 0 or size % (CLASSES + 1) == 0) for size in sizes):
                found[f"{node.op} {node.name}:{index}"] = sizes
    return found


def numbers_in(shape: tuple[int, ...]) -> int:
    return int(np.prod([max(size, 1) for size in shape]))


def asked_for(batch: int = 1) -> list[tf.TensorSpec]:
    return [tf.TensorSpec([batch, *CANVAS, 3]), tf.TensorSpec([batch, 2])]


@functools.cache
def model_with_many_classes(classes: int, **options: Any) -> RCNN:
    names = tuple(f"class {number}" for number in range(1, classes + 1))
    sections = {"detections": {"score": 1e-4}, "mask": {"mlp_branch": "lean"}}
    return small_model(config(class_names=names, **sections), **options)


@pytest.mark.parametrize("portable", [False, True])
def test_nothing_but_scores_has_classes(portable) -> None:
    """Class scores [N, K + 1] and what they are sorted in: no boxes [N, 4 K], no masks [D, K, M, M]."""
    model = model_with_many_classes(CLASSES, portable=portable)
    prepared = tf.nest.map_structure(tf.constant, model.prepare())
    shapes = class_tensors(lambda *values: model.infer(*values, prepared), *asked_for())
    assert (REGIONS, CLASSES + 1) in shapes.values()
    for name, shape in shapes.items():
        assert numbers_in(shape) <= REGIONS * (CLASSES + 1), (name, shape)
        assert not any(size % (4 * CLASSES) == 0 for size in shape if size != REGIONS * CLASSES), (name, shape)


def test_nothing_but_scores_has_classes_when_boxes_are_given() -> None:
    model = model_with_many_classes(CLASSES)
    prepared = tf.nest.map_structure(tf.constant, model.prepare())
    specs = [*asked_for(), tf.TensorSpec([1, REGIONS, 4])]
    guessed = class_tensors(lambda *values: model.segment(*values, None, prepared), *specs)
    assert set(guessed.values()) == {
        (REGIONS, CLASSES + 1),
        (1, REGIONS, CLASSES + 1),
        (1, REGIONS, CLASSES),
    }
    specs.append(tf.TensorSpec([1, REGIONS], tf.int32))
    assert class_tensors(lambda *values: model.segment(*values, prepared), *specs) == {}


def test_tensors_with_classes_are_found() -> None:
    """The search can fail: masks of all classes, boxes of all classes, also inside a loop."""
    rows = tf.Variable(tf.ones([CLASSES, 4, 32]))

    def wasteful(images: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
        vectors = tf.reshape(images[:, :REGIONS, :32, 0], [REGIONS, 32])
        deltas = tf.matmul(vectors, tf.reshape(rows, [4 * CLASSES, 32]), transpose_b=True)
        loop = tf.while_loop(lambda step, _: step < 3, lambda step, all_of: (step + 1, all_of * 2.0), (0, deltas))
        return tf.reduce_sum(loop[1]) + tf.reduce_sum(sizes)

    shapes = class_tensors(wasteful, *asked_for())
    assert any(name.startswith("MatMul") for name in shapes)
    assert any(name.startswith("Mul") for name in shapes)  # of the loop's body
    assert {(REGIONS, 4 * CLASSES)} == set(shapes.values())


# (g) as many classes as Visual Genome


def test_three_thousand_classes() -> None:
    model = model_with_many_classes(3000)
    assert model.mask.prepare()[0].shape == (3000, 32)
    asked = inputs()
    found = model(asked)
    classes, valid = np.asarray(found.classes), np.asarray(found.valid)
    assert valid.all()
    assert classes.min() >= 1
    assert classes.max() > 500
    scene = model.scene(asked["images"], asked["image_sizes"])
    expected = model.mask.probabilities(scene, found.boxes, found.classes, model.mask.prepare())
    np.testing.assert_allclose(found.masks, expected, atol=1e-3)
    # The same region under another class is another mask.
    other = model.mask.probabilities(scene, found.boxes, found.classes % 3000 + 1, model.mask.prepare())
    assert np.abs(other - found.masks).max() > 1e-2


def test_losses_of_three_thousand_classes() -> None:
    model = model_with_many_classes(3000)
    targets = truth()._replace(classes=tf.constant([[3000, 2, 0], [1777, 1, 0]]))
    losses = model.losses_of(*loss_inputs(targets))
    for name, loss in losses.items():
        assert np.isfinite(loss_ops.mean(loss)), name
        assert loss.total > 0, name


# (h) a fixed table in the detector's place


@pytest.fixture
def table(tmp_path) -> Any:
    """Words of nine numbers, and the file that they are in."""
    rows = np.random.default_rng(0).normal(size=(3, 9))
    np.save(tmp_path / "words.npy", rows)
    return rows, tmp_path / "words.npy"


def test_table(table) -> None:
    rows, path = table
    model = small_model(config(transfer={"input": "embedding", "embedding": str(path), "stop_gradient": False}))
    np.testing.assert_array_equal(model.mask.filters.embeddings.rows(), rows.astype(np.float32))
    expected = reference.transfer(rows, dense_of(model.mask.filters.transfer.dense), "leaky_relu")
    np.testing.assert_allclose(model.mask.prepare()[0], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    # The table is kept with the weights, and never learns.
    assert any(weight is model.table for weight in model.non_trainable_variables)
    assert not any(weight is model.table for weight in model.trainable_variables)
    learned = mask_loss(model)
    assert learned.total > 0
    for path_of_weight, gradient in learned.gradients.items():
        if path_of_weight.startswith("box_predictor"):
            assert is_zero(gradient), path_of_weight
    assert not is_zero(learned.gradients["transfer/fc1/kernel"])
    model.trainable = False
    model.trainable = True
    assert not any(weight is model.table for weight in model.trainable_variables)


def test_table_is_kept_with_the_weights(table, tmp_path) -> None:
    rows, path = table
    settings = config(transfer={"input": "embedding", "embedding": str(path)})
    build(settings).save_weights(tmp_path / "model.weights.h5")
    np.save(path, 0 * rows)
    other = build(settings)
    assert not other.table.numpy().any()
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(other.table, rows.astype(np.float32))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.ones([4, 9]), r"shape \(4, 9\), expected floats \[3, size\]"),
        (np.ones([3]), r"expected floats \[3, size\]"),
        (np.ones([3, 9], np.int64), "a int64 array"),
        (np.array([[1.0, 2.0], [3.0, np.nan], [5.0, 6.0]]), "row 1 has a number that is not finite"),
        (np.array([[None], ["x"], [{}]], dtype=object), r"no \.npy table"),
    ],
    ids=["a row too many", "one dimension", "integers", "NaN", "pickled objects"],
)
def test_a_table_that_does_not_fit(rows, message, tmp_path) -> None:
    np.save(tmp_path / "bad.npy", rows, allow_pickle=True)
    with pytest.raises(BadInput, match=message):
        build(config(transfer={"input": "embedding", "embedding": str(tmp_path / "bad.npy")}))


def test_a_table_that_is_not_there(tmp_path) -> None:
    with pytest.raises(BadInput, match=r"no \.npy table"):
        build(config(transfer={"input": "embedding", "embedding": str(tmp_path / "none.npy")}))
    (tmp_path / "text.npy").write_text("not numbers")
    with pytest.raises(BadInput, match=r"no \.npy table"):
        build(config(transfer={"input": "embedding", "embedding": str(tmp_path / "text.npy")}))


def test_unknown_input() -> None:
    with pytest.raises(ValueError, match="expected one of cls, box, cls_box"):
        BoxWeights(None, input="words")
