"""Every family: models are built, predict, learn, freeze and compile.

A few combinations run by default, chosen so that every setting is in one of them; --slow runs the others.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from maskx_tf import losses as loss_ops
from maskx_tf.config import ModelConfig, load
from maskx_tf.errors import BadInput
from maskx_tf.layers.resnet import VARIANTS, Variant
from maskx_tf.models.boxes import DetectionFilter
from maskx_tf.models.build import FAMILIES, build
from maskx_tf.models.filters import Table
from maskx_tf.models.inference import Predictor
from maskx_tf.models.rcnn import RCNN
from tests.layers.counting import record_weights
from tests.models import small
from tests.models.small import assert_same_detections, config, inputs, loss_inputs, of_image, small_model

TABLE = "a table, put in its place by `model_of`"

HEADS: dict[str, dict[str, Any]] = {
    "faster": {"family": "faster_rcnn"},
    "faster, agnostic boxes": {"family": "faster_rcnn", "box": {"class_agnostic": True, "layers": 1}},
    "mask": {"family": "mask_rcnn"},
    "mask, agnostic boxes": {"family": "mask_rcnn", "box": {"class_agnostic": True}},
    "mask, agnostic": {"family": "mask_rcnn", "mask": {"outputs": "agnostic"}},
    "mask + reference": {"family": "mask_rcnn", "mask": {"mlp_branch": "reference"}},
    "mask + lean": {"family": "mask_rcnn", "mask": {"mlp_branch": "lean"}},
    "mask, agnostic + reference": {"family": "mask_rcnn", "mask": {"outputs": "agnostic", "mlp_branch": "reference"}},
    "mask, agnostic + lean": {"family": "mask_rcnn", "mask": {"outputs": "agnostic", "mlp_branch": "lean"}},
    "mask, softmax": {"family": "mask_rcnn", "mask": {"activation": "softmax"}},
    "mask, mlp": {"family": "mask_rcnn", "mask": {"head": "mlp"}},
    "mask, mlp, agnostic": {"family": "mask_rcnn", "mask": {"head": "mlp", "outputs": "agnostic", "mlp_layers": 3}},
    "mask, one layer of each": {
        "family": "mask_rcnn",
        "box": {"layers": 0},
        "mask": {"head": "mlp", "outputs": "agnostic", "mlp_layers": 0, "mlp_side": 20},
    },
    "mask, hourglass": {"family": "mask_rcnn", "mask": {"trunk": "hourglass", "channels": 8, "margin": 0.1}},
    "mask, residual": {"family": "mask_rcnn", "mask": {"trunk": "residual", "pixels": True, "outputs": "agnostic"}},
    "x hourglass, boxes": {
        "mask": {
            "trunk": "hourglass",
            "channels": 16,
            "pixels": True,
            "margin": 0.1,
            "regions": "jittered",
            "box_losses": ("projection", "pairwise"),
        }
    },
    "x cls": {"transfer": {"input": "cls"}},
    "x box": {"transfer": {"input": "box", "layers": 1, "init": "small"}},
    "x cls_box": {},
    "x table": {"transfer": {"input": "embedding", "embedding": TABLE}},
    "x cls + reference": {"transfer": {"input": "cls"}, "mask": {"mlp_branch": "reference"}},
    "x cls_box + reference": {"mask": {"mlp_branch": "reference"}},
    "x cls_box + lean": {"mask": {"mlp_branch": "lean"}, "transfer": {"layers": 3, "unit_rms": True}},
    "x box, learning": {"transfer": {"input": "box", "stop_gradient": False, "activation": "relu"}},
    "x table, agnostic boxes": {
        "transfer": {"input": "embedding", "embedding": TABLE},
        "box": {"class_agnostic": True},
    },
    "x cls, agnostic boxes": {"transfer": {"input": "cls"}, "box": {"class_agnostic": True}},
}

TRUNKS: dict[str, dict[str, Any]] = {
    "small fpn": {},
    "small c5": {"backbone": {"neck": "c5", "frozen_stages": 3}},
    "mobilenet fpn": {"backbone": {"name": "mobilenet_v2"}},
    "mobilenet fpn batch": {"backbone": {"name": "mobilenet_v2", "norm": "batch", "frozen_stages": 0}},
    "mobilenet c5": {"backbone": {"name": "mobilenet_v2", "neck": "c5", "frozen_stages": 3}},
    "keras_resnet50 fpn": {"backbone": {"name": "keras_resnet50"}},
    "keras_resnet50 c5": {"backbone": {"name": "keras_resnet50", "neck": "c5", "norm": "batch"}},
    "keras_resnet101 fpn": {"backbone": {"name": "keras_resnet101"}},
    **{
        f"{name} {neck}": {"backbone": {"name": name, "neck": neck}}
        for name in ("resnet50", "resnet101", "resnet152", "resnext101_32x8d", "resnext101_64x4d")
        for neck in ("fpn", "c4", "c5", "dc5")
    },
    **{
        f"resnet50 {neck} {norm}": {
            "backbone": {"name": "resnet50", "neck": neck, "norm": norm, "stride_in_1x1": True, "frozen_stages": 1}
        }
        for neck in ("fpn", "c4", "c5", "dc5")
        for norm in ("batch", "group")
    },
}

REGIONS: dict[str, dict[str, Any]] = {
    "align": {},
    "torchvision": {"roi": {"aligned": False, "level_epsilon": "torchvision"}, "anchors": {"rounding": "torchvision"}},
    "detectron": {
        "roi": {"aligned": False, "level_epsilon": "detectron"},
        # Small enough for each level to have some inside the image.
        "anchors": {
            "rounding": "detectron",
            "order": "size_major",
            "sizes": ((4.0, 6.0), (8.0, 12.0), (12.0, 16.0), (16.0, 20.0), (24.0, 32.0)),
        },
        "rpn": {"ignore_straddling": True, "min_size": 2.0, "normaliser": "fixed", "smooth_l1_beta": 0.0},
        "box": {"smooth_l1_beta": 1.0},
        "input": {"channel_order": "bgr", "pixel_std": (1.0, 1.0, 1.0)},
    },
    "align max": {"roi": {"reduce": "max", "samples": 1}},
    "pool": {"roi": {"op": "pool"}},
    "warp": {"roi": {"op": "warp"}},
    "warp max": {"roi": {"op": "warp", "reduce": "max", "box_size": 5, "mask_size": 10}},
}

Name = tuple[str, str, str]
DEFAULT: list[Name] = [
    ("faster", "mobilenet fpn", "align"),
    ("faster, agnostic boxes", "small c5", "pool"),
    ("mask", "small fpn", "torchvision"),
    ("mask, agnostic + reference", "small fpn", "warp"),
    ("mask, softmax", "small fpn", "align max"),
    ("mask, mlp", "small fpn", "detectron"),
    ("x cls_box", "small fpn", "align"),
    ("x cls_box + lean", "mobilenet fpn batch", "align"),
    ("x table", "small c5", "warp max"),
    ("x cls", "resnet50 c4", "align"),
    ("mask", "resnet50 dc5 group", "align"),
    ("x hourglass, boxes", "small fpn", "align"),
]


# With one trunk every head is driven through everything; other combinations through what their parts change.
ALONE: list[Name] = [(head, "small fpn", "align") for head in HEADS]
OTHERS: list[Name] = [
    *DEFAULT,
    *((head, trunk, "align") for head in HEADS for trunk in ("small c5", "resnet50 c4", "resnet50 dc5")),
    *((head, "small fpn", regions) for head in ("faster", "mask", "mask, mlp", "x cls_box") for regions in REGIONS),
    *(("x cls_box", trunk, regions) for trunk in ("resnet50 c4", "small c5") for regions in REGIONS),
    *(("x cls_box", trunk, "align") for trunk in TRUNKS),
]


def named(names: list[Name]) -> Any:
    """Parametrises a test over combinations."""
    return pytest.mark.parametrize("name", [pytest.param(name, id=" / ".join(name)) for name in dict.fromkeys(names)])


by_default = named(DEFAULT)
# What depends on fewer parts runs by default on a trunk of each kind; test_every_head and test_every_combination run it
# on all.
on_each_trunk = named([DEFAULT[index] for index in (0, 7, 8, 9)])


def settings_of(name: Name, **sections: Any) -> Any:
    head, trunk, regions = name
    merged: dict[str, Any] = {}
    for part in (TRUNKS[trunk], REGIONS[regions], HEADS[head], sections):
        for key, value in part.items():
            merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
    if "resnet50 c4" in trunk:
        merged["mask"] = {**merged.get("mask", {}), "convs": 0}
        merged["roi"] = {"box_size": 14, **merged.get("roi", {})}
    if merged.get("transfer", {}).get("embedding") == TABLE:
        merged["transfer"] = {**merged["transfer"], "embedding": str(table_path())}
    return config(**merged)


@pytest.fixture(scope="module", autouse=True)
def narrow_resnet() -> Iterator[None]:
    """A ResNet-50 of fewer and narrower blocks, since C4 refuses resnet_small; its outputs are as wide as ever."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, "resnet50", Variant((1, 2, 1, 1), group_width=32))
        yield


@pytest.fixture(scope="module", autouse=True)
def tables(tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("tables") / "words.npy"
    np.save(path, np.random.default_rng(0).normal(size=(len(small.CLASSES), 9)))
    TABLES.append(path)


TABLES: list[Path] = []


def table_path() -> Path:
    return TABLES[0]


def model_of(name: Name) -> RCNN:
    """The model of a combination, made once: those by default stay, of the others one at a time is enough to hold."""
    return (kept if name in DEFAULT else passing)(name)


@functools.cache
def kept(name: Name) -> RCNN:
    return small_model(settings_of(name))


@functools.lru_cache(maxsize=1)
def passing(name: Name) -> RCNN:
    return small_model(settings_of(name))


def is_family(model: RCNN, name: Name) -> bool:
    head = name[0]
    if head.startswith("faster"):
        return model.outputs == {"boxes"}
    filters = model.mask.filters
    if head.startswith("x"):
        return filters is not None and isinstance(filters.embeddings, Table) == ("table" in head)
    return filters is None and model.mask.softmax == ("softmax" in head)


def side_of_masks(name: Name) -> int:
    size = 10 if name[2] == "warp max" else 14
    # Without a pyramid res5 halves the region before the deconvolution doubles it; head mlp does not care.
    return size if "c4" in name[1] and "mlp" not in name[0] else 2 * size


@by_default
def test_detections(name) -> None:
    """Padded, finite, inside their images, best first, of the promised shapes and types."""
    model = model_of(name)
    assert is_family(model, name)
    found = model(inputs())
    count = small.DEFAULTS["detections"]["limit"]
    assert (found.boxes.shape, found.boxes.dtype) == ((2, count, 4), tf.float32)
    assert (found.scores.shape, found.scores.dtype) == ((2, count), tf.float32)
    assert (found.classes.shape, found.classes.dtype) == ((2, count), tf.int32)
    assert (found.valid.shape, found.valid.dtype) == ((2, count), tf.bool)
    boxes, scores, classes, valid = (np.asarray(part) for part in found[:4])
    assert valid[:, 0].all()
    assert np.isfinite(boxes).all()
    assert (boxes[valid][:, 2:] > boxes[valid][:, :2]).all()
    assert (boxes >= 0).all()
    assert (boxes <= np.tile(small.IMAGE_SIZES[:, None, ::-1], 2)).all()
    assert ((scores[valid] > 0.05) & (scores[valid] <= 1)).all()
    assert (np.diff(scores, axis=1) <= 0).all()
    assert set(classes[valid]) <= {1, 2, 3}
    for part in (boxes, scores, classes):
        assert not part[~valid].any()
    if name[0].startswith("faster"):
        assert found.masks is None
        return
    side = side_of_masks(name)
    assert (found.masks.shape, found.masks.dtype) == ((2, count, side, side), tf.float32)
    masks = np.asarray(found.masks)
    assert np.isfinite(masks).all()
    assert ((masks >= 0) & (masks <= 1)).all()
    assert masks[valid].std() > 1e-3  # not one grey square


@on_each_trunk
def test_nothing_found(name, monkeypatch) -> None:
    model = model_of(name)
    monkeypatch.setattr(model.box, "filter", model.box.filter._replace(score=1.0))
    found = model(inputs())
    for part in found[:4]:
        assert not np.asarray(part).any()
    assert found.masks is None or np.isfinite(found.masks).all()


@on_each_trunk
def test_an_image_does_not_see_its_neighbours(name) -> None:
    """Nor what lies on its canvas beyond it."""
    model, asked = model_of(name), inputs()
    both = model(asked)
    turned = model({key: value[::-1] for key, value in asked.items()})
    dirty = asked["images"].numpy()
    dirty[1, 49:], dirty[1, :, 58:] = 255.0, 77.0
    for image in range(2):
        alone = model({"images": dirty[image : image + 1], "image_sizes": asked["image_sizes"][image : image + 1]})
        assert_same_detections(alone, of_image(both, image))
        assert_same_detections(of_image(turned, 1 - image), of_image(both, image))


@by_default
def test_losses(name) -> None:
    """Finite, and every weight that learns gets a gradient."""
    model = model_of(name)
    weights = model.get_weights()
    with tf.GradientTape() as tape:
        losses = model.losses_of(*loss_inputs())
        means = {key: loss_ops.mean(loss) for key, loss in losses.items()}
        total = tf.add_n(list(means.values()))
    expected = {"loss_rpn_objectness", "loss_rpn_box", "loss_class", "loss_box"}
    if not name[0].startswith("faster"):
        expected |= {"loss_mask"}
    if "hourglass, boxes" in name[0]:
        expected |= {"loss_mask_projection", "loss_mask_pairwise"}
    assert set(means) == expected
    assert losses["loss_box"].count == losses["loss_class"].count > 2 * model.box.foreground  # of two images
    for key, value in means.items():
        assert value.dtype == tf.float32, key
        assert np.isfinite(value), key
        assert value > 0, key
    variables = model.trainable_variables
    gradients = tape.gradient(total, [variable.value for variable in variables])
    model.set_weights(weights)  # batch norm has changed its statistics
    for variable, gradient in zip(variables, gradients, strict=True):
        assert gradient is not None, variable.path
        values = tf.convert_to_tensor(gradient).numpy()
        assert np.isfinite(values).all(), variable.path
        assert (values != 0).any(), variable.path


@named([DEFAULT[index] for index in (4, 6)])
def test_predictor_detects_as_the_model(name) -> None:
    model = model_of(name)
    predictor = Predictor(model, (small.SIDE, small.SIDE), freeze=name in (DEFAULT[0], DEFAULT[4]))
    asked = inputs()
    assert_same_detections(predictor.detect(**asked), model(asked))
    # Any number of images, and none of what was found above the threshold.
    alone = predictor.detect(asked["images"][1:], asked["image_sizes"][1:])
    assert_same_detections(alone, of_image(model(asked), 1))


@pytest.mark.slow
@named([DEFAULT[index] for index in (5, 6, 8)])
def test_predictor_segments(name) -> None:
    """Given boxes get the masks that the model makes of them, for given classes or for the likeliest."""
    model = model_of(name)
    predictor = Predictor(model, (small.SIDE, small.SIDE))
    asked = inputs()
    pixels, sizes = asked["images"], asked["image_sizes"]
    boxes = tf.constant(
        [[[2.0, 3.0, 30.0, 40.0], [5.5, 5.5, 50.0, 20.0]], [[1.0, 1.0, 9.0, 9.0], [0.0, 0.0, 58.0, 49.0]]]
    )
    classes = tf.constant([[1, 3], [2, 2]])
    scene = model.scene(pixels, sizes)
    features = scene.features

    given = predictor.segment(pixels, sizes, boxes, classes)
    np.testing.assert_array_equal(given.boxes, boxes)
    np.testing.assert_array_equal(given.classes, classes)
    np.testing.assert_array_equal(given.scores, 1.0)
    assert np.asarray(given.valid).all()
    expected = model.mask.probabilities(scene, boxes, classes, model.mask.prepare())
    np.testing.assert_allclose(given.masks, expected, atol=1e-4)

    guessed = predictor.segment(pixels, sizes, boxes)
    best, scores = model.box.classify(model.scene(pixels, sizes), boxes)
    probs = tf.nn.softmax(model.box.predictor(model.box.vectors(features, boxes))).numpy()[..., 1:]
    np.testing.assert_array_equal(guessed.classes, probs.argmax(axis=-1) + 1)
    np.testing.assert_array_equal(guessed.classes, best)
    np.testing.assert_allclose(guessed.scores, probs.max(axis=-1), atol=1e-4)
    np.testing.assert_allclose(guessed.scores, scores, atol=1e-4)
    np.testing.assert_allclose(
        guessed.masks, model.mask.probabilities(scene, boxes, best, model.mask.prepare()), atol=1e-4
    )


def test_faster_rcnn_has_no_masks_to_give() -> None:
    predictor = Predictor(model_of(DEFAULT[0]), (small.SIDE, small.SIDE))
    with pytest.raises(TypeError, match="faster_rcnn has neither masks nor keypoints"):
        predictor.segment(*inputs().values(), tf.zeros([2, 1, 4]))


@pytest.mark.slow
@named([DEFAULT[index] for index in (2, 6)])
def test_portable(name) -> None:
    """Made of operations that XLA compiles, with the same answer."""
    model = model_of(name)
    portable = build(settings_of(name), portable=True)
    portable.set_weights(model.get_weights())
    asked, expected = inputs(), model(inputs())
    assert_same_detections(portable(asked), expected)
    compiled = tf.function(
        lambda images, sizes: portable({"images": images, "image_sizes": sizes}), autograph=False, jit_compile=True
    )
    assert_same_detections(compiled(*asked.values()), expected)


@pytest.mark.slow
@named(ALONE)
def test_every_head(name, monkeypatch) -> None:
    test_detections(name)
    test_losses(name)
    test_an_image_does_not_see_its_neighbours(name)
    test_predictor_detects_as_the_model(name)
    if not name[0].startswith("faster"):
        test_predictor_segments(name)
    test_portable(name)
    test_nothing_found(name, monkeypatch)


@pytest.mark.slow
@named([name for name in OTHERS if name not in ALONE])
def test_every_combination(name, monkeypatch) -> None:
    test_detections(name)
    test_losses(name)
    test_an_image_does_not_see_its_neighbours(name)
    test_nothing_found(name, monkeypatch)


@pytest.mark.parametrize("operation", ["pool", "warp"])
def test_portable_without_align(operation) -> None:
    with pytest.raises(BadInput):
        build(config(roi={"op": operation}), portable=True)


def test_the_default_selection_has_every_setting() -> None:
    """Each value of a setting that chooses parts of the model stands in one of the default combinations."""
    chosen = [settings_of(name) for name in DEFAULT]
    assert {settings.family for settings in chosen} == set(FAMILIES) - {"fcis"}  # its tests are in test_fcis.py
    assert {settings.backbone.neck for settings in chosen} == {"fpn", "c4", "c5", "dc5"}
    assert {settings.backbone.norm for settings in chosen} == {"frozen_batch", "batch", "group"}
    assert {settings.roi.op for settings in chosen} == {"align", "pool", "warp"}
    assert {settings.mask.mlp_branch for settings in chosen} == {"none", "reference", "lean"}
    assert {settings.mask.head for settings in chosen} == {"fcn", "mlp"}
    assert {settings.mask.outputs for settings in chosen} == {"specific", "agnostic"}
    assert {settings.mask.activation for settings in chosen} == {"sigmoid", "softmax"}
    assert {settings.anchors.rounding for settings in chosen} == {"none", "torchvision", "detectron"}
    of_x = [settings.transfer for settings in chosen if settings.family == "mask_x_rcnn"]
    assert {transfer.input for transfer in of_x} == {"cls", "cls_box", "embedding"}  # box is in cls_box
    assert {transfer.unit_rms for transfer in of_x} == {False, True}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(DEFAULT[6], id="x"), pytest.param(DEFAULT[9], id="c4"), pytest.param(DEFAULT[8], id="table")]
)
def test_weights_on_disk(name, tmp_path) -> None:
    """Every weight is written once, under a name that says where it is, and read back."""
    model = model_of(name)
    assert len({id(weight) for weight in model.weights}) == len(model.weights)
    assert len({weight.path for weight in model.weights}) == len(model.weights)
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    other = small_model(settings_of(name), seed=1)
    assert any((ours != theirs).any() for ours, theirs in zip(other.get_weights(), model.get_weights(), strict=True))
    other.load_weights(path)
    assert [weight.path for weight in other.weights] == [weight.path for weight in model.weights]
    for ours, theirs in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_names_of_weights() -> None:
    """The names that importers and checkpoints lean on: paths of layers, without the model's name or counters."""
    model = model_of(DEFAULT[6])
    roots = {weight.path.split("/")[0] for weight in model.weights if not weight.path.startswith("network")}
    paths = {weight.path for weight in model.weights}
    for path in (
        "fpn/lateral2/kernel",
        "fpn/output5/bias",
        "rpn/conv/kernel",
        "rpn/objectness/bias",
        "rpn/deltas/kernel",
        "box_head/fc1/kernel",
        "box_predictor/class_rows",
        "box_predictor/class_bias",
        "box_predictor/box_rows",
        "box_predictor/box_bias",
        "mask_head/trunk/conv1/kernel",
        "mask_head/trunk/deconv_kernel",
        "transfer/fc2/bias",
    ):
        assert path in paths, sorted(paths - {weight.path for weight in model.backbone.weights})
    assert {"fpn", "rpn", "box_head", "box_predictor", "mask_head", "transfer"} <= roots


def test_no_classes() -> None:
    with pytest.raises(BadInput, match="class_names is empty"):
        build(config(class_names=()))


@pytest.mark.slow
def test_one_class() -> None:
    for head in ("mask", "mask, softmax", "x cls_box"):
        model = small_model(settings_of((head, "small fpn", "align"), class_names=("cell",)))
        found = model(inputs())
        assert set(np.asarray(found.classes).flat) <= {0, 1}
        assert np.isfinite(found.masks).all()


def test_probabilities_of_the_softmax_head() -> None:
    """Those of each region's own class, as for every family."""
    model = model_of(DEFAULT[4])
    asked = inputs()
    scene = model.scene(asked["images"], asked["image_sizes"])
    boxes = tf.constant([[[2.0, 3.0, 30.0, 40.0]]] * 2)
    own = model.mask.probabilities(scene, boxes, tf.constant([[1], [3]]), ())
    every = tf.nn.softmax(model.mask.head.all_outputs(model.mask.pooled(scene, boxes)))
    np.testing.assert_allclose(own[0, 0], every[0, 0, ..., 1], atol=1e-4)
    np.testing.assert_allclose(own[1, 0], every[1, 0, ..., 3], atol=1e-4)


def test_softmax_masks_compete() -> None:
    """Over background and classes the probabilities of a pixel add up to one (Mask R-CNN, table 2b)."""
    model = model_of(DEFAULT[4])
    asked = inputs()
    scene = model.scene(asked["images"], asked["image_sizes"])
    boxes = tf.constant([[[2.0, 3.0, 30.0, 40.0]]] * 2)
    masks = [model.mask.probabilities(scene, boxes, tf.fill([2, 1], number), ()) for number in range(4)]
    np.testing.assert_allclose(np.sum(masks, axis=0), 1.0, atol=1e-5)


@pytest.mark.slow
def test_c4_with_an_odd_mask_size() -> None:
    settings = config(
        family="mask_rcnn", backbone={"name": "resnet50", "neck": "c4"}, mask={"convs": 0}, roi={"mask_size": 7}
    )
    model = build(settings)
    assert model(inputs()).masks.shape[-1] == model.mask.head.side == settings.mask_side


@pytest.fixture(scope="module")
def precisions() -> tuple[RCNN, RCNN]:
    """The same model in float32 and in mixed_bfloat16."""
    plain = model_of(DEFAULT[6])
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = build(settings_of(DEFAULT[6]))
    finally:
        keras.config.set_dtype_policy(before)
    mixed.set_weights(plain.get_weights())
    return plain, mixed


def test_mixed_precision_of_features(precisions) -> None:
    plain, mixed = (model.features(*inputs().values()) for model in precisions)
    assert {weight.dtype for weight in precisions[1].weights} == {"float32"}
    for level, wanted in zip(mixed, plain, strict=True):
        assert level.dtype == tf.bfloat16
        assert np.abs(tf.cast(level, tf.float32) - wanted).max() < 0.1 * np.abs(wanted).max()


@pytest.mark.slow
def test_mixed_precision_of_detections(precisions) -> None:
    found = Predictor(precisions[1], (small.SIDE, small.SIDE)).detect(**inputs())
    assert found.boxes.dtype == found.scores.dtype == found.masks.dtype == tf.float32
    assert all(np.isfinite(part).all() for part in found)
    # Corners lie between the numbers that bfloat16 has around 40: quarters of a pixel.
    assert (np.asarray(found.boxes) % 0.25 > 0.01).any()


def test_mixed_precision_of_losses(precisions) -> None:
    plain, mixed = (model.losses_of(*loss_inputs()) for model in precisions)
    for key, loss in mixed.items():
        assert loss.total.dtype == loss.count.dtype == tf.float32
        np.testing.assert_allclose(loss_ops.mean(loss), loss_ops.mean(plain[key]), rtol=0.2)


def test_mixed_precision_of_the_model(precisions) -> None:
    assert precisions[1](inputs()).boxes.dtype == tf.float32


RECIPES = [path.stem for path in sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))]
# The first of each family, neck and kind of heads.
BUILT_BY_DEFAULT = (
    "ablation_agnostic_mlp_r50_fpn_coco_nonvoc",
    "ablation_e2e_no_stop_r50_fpn_coco_nonvoc",
    "ccp_detector",
    "fcis_r101_coco",
    "keypoint_rcnn_r101_fpn_coco",
    "mask_keypoint_rcnn_r101_fpn_coco",
    "mask_rcnn_r101_c4_coco",
    "mask_rcnn_r50_c5_roi_align_coco",
    "mask_rcnn_r50_fpn_mlp2_coco",
    "naive_mnc_r101_voc",
)


def model_of_recipe(name: str) -> ModelConfig:
    """Without Keras' download, and without a table that its user provides."""
    settings = load(name).model
    backbone = settings.backbone.model_copy(update={"weights": "none"})
    transfer = settings.transfer.model_copy(update={"input": "cls", "embedding": None})
    plain = {"transfer": transfer} if settings.transfer.embedding else {}
    names = settings.class_names or tuple(f"class {index}" for index in range(80))
    return settings.model_copy(update={"backbone": backbone, "class_names": names, **plain})


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in BUILT_BY_DEFAULT else pytest.mark.slow) for name in RECIPES]
)
def test_recipes_build(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the numbers of their weights, which would take longer than all the rest."""
    record_weights(monkeypatch)
    settings = model_of_recipe(name)
    assert build(settings).name == settings.family


@pytest.mark.slow
def test_a_recipe_of_each_kind_is_built_by_default() -> None:
    def kind(name: str) -> tuple[Any, ...]:
        model = load(name).model
        return model.family, model.backbone.neck, model.mask.head, model.keypoint.use

    assert {kind(name) for name in BUILT_BY_DEFAULT} == {kind(name) for name in RECIPES}


@pytest.mark.parametrize(("limit", "count"), [(100, 1), (150, 150)])
def test_candidates_suffice_for_many_detections(limit: int, count: int) -> None:
    """The best 2000 regions are one box, which leaves one detection of them; there are 20 candidates a detection."""
    corners = tf.concat([tf.zeros([2000]), 10.0 + 2.0 * tf.range(500.0)], axis=0)
    boxes = tf.stack([corners, corners, corners + 1.0, corners + 1.0], axis=-1)[None]
    chosen_by = DetectionFilter(0.0, 0.5, limit)
    chosen = chosen_by.candidates(tf.linspace(1.0, 0.5, 2500)[None, :, None], tf.ones([1, 2500], tf.bool))
    own = tf.gather(boxes, chosen.regions, batch_dims=1)
    found = chosen_by.detections(own, chosen, tf.constant([[2000.0, 2000.0]]))
    assert int(tf.math.count_nonzero(found.valid)) == count
