"""From a configuration to a model: every setting changes the part that it describes."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
import pytest
from pydantic import BaseModel

from maskx_tf.config.model import ModelConfig
from maskx_tf.errors import BadInput
from maskx_tf.layers.applications import NETWORKS, Application
from maskx_tf.models.build import build
from maskx_tf.models.rcnn import RCNN
from tests import reference
from tests.layers.counting import Weight, record_weights
from tests.models import small
from tests.models.small import inputs, small_model
from tests.small_backbone import SMALL_NETWORK

BASE: dict[str, Any] = {
    "class_names": ("cat", "dog"),
    "backbone": {"name": "resnet_small"},
    "mask": {"mlp_branch": "lean"},
}
POINTS: dict[str, Any] = {"keypoint": {"use": True, "names": ("a", "b")}}
FCIS: dict[str, Any] = {
    "family": "fcis",
    "backbone": {"name": "resnet_small", "neck": "dc5"},
    "anchors": {"sizes": ((8.0, 16.0, 32.0),)},
    "mask": {"mlp_branch": "none"},
}
# For each setting another value, and the settings that it needs as well.
OTHERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "family": ("mask_rcnn", {}),
    "class_names": (("cat", "dog", "horse"), {}),
    "input.pixel_mean": ((1.0, 2.0, 3.0), {}),
    "input.pixel_std": ((1.0, 2.0, 3.0), {}),
    "input.channel_order": ("bgr", {}),
    "backbone.name": ("resnext101_32x8d", {}),
    "backbone.norm": ("batch", {}),
    "backbone.norm_epsilon": (1e-3, {}),
    "backbone.stride_in_1x1": (True, {}),
    "backbone.frozen_stages": (0, {}),
    "backbone.stem_pool": ("ceil", {}),
    "backbone.neck": ("dc5", {"backbone": {"neck": "c5"}, "anchors": {"sizes": ((32.0, 64.0),)}}),
    "backbone.non_local": (True, {}),
    "backbone.fpn_channels": (128, {}),
    "anchors.sizes": (((1.0,), (2.0,), (4.0,), (8.0,), (16.0,)), {}),
    "anchors.ratios": ((1.0, 2.0), {}),
    "anchors.rounding": ("torchvision", {}),
    "anchors.order": ("size_major", {}),
    "rpn.pre_nms_train": (500, {}),
    "rpn.pre_nms_test": (500, {}),
    "rpn.post_nms_train": (300, {}),
    "rpn.post_nms_test": (300, {}),
    "rpn.nms_iou": (0.6, {}),
    "rpn.min_size": (3.0, {}),
    "rpn.positive_iou": (0.8, {}),
    "rpn.negative_iou": (0.2, {}),
    "rpn.samples": (100, {}),
    "rpn.positive_fraction": (0.3, {}),
    "rpn.ignore_straddling": (True, {}),
    "rpn.smooth_l1_beta": (0.0, {}),
    "rpn.normaliser": ("fixed", {}),
    "roi.op": ("pool", {}),
    "roi.aligned": (False, {}),
    "roi.samples": (1, {}),
    "roi.reduce": ("max", {}),
    "roi.level_epsilon": ("detectron", {}),
    "roi.box_size": (8, {}),
    "roi.mask_size": (12, {}),
    "roi.keypoint_size": (12, POINTS),
    "box.width": (512, {}),
    "box.layers": (1, {}),
    "box.class_agnostic": (True, {"transfer": {"input": "cls"}}),
    "box.delta_weights": ((1.0, 1.0, 1.0, 1.0), {}),
    "box.smooth_l1_beta": (1.0, {}),
    "box.rois": (64, {}),
    "box.positive_fraction": (0.5, {}),
    "box.positive_iou": (0.6, {}),
    "box.background_iou": ((0.1, 0.5), {}),
    "mask.regions": ("truth", {}),
    "mask.jitter": (0.2, {"mask": {"regions": "jittered"}}),
    "mask.head": ("mlp", {"family": "mask_rcnn", "mask": {"mlp_branch": "none"}}),
    "mask.convs": (2, {}),
    "mask.channels": (128, {}),
    "mask.mlp_layers": (1, {"family": "mask_rcnn", "mask": {"mlp_branch": "none", "head": "mlp"}}),
    "mask.mlp_side": (21, {"family": "mask_rcnn", "mask": {"mlp_branch": "none", "head": "mlp"}}),
    "mask.mlp_width": (64, {"family": "mask_rcnn", "mask": {"mlp_branch": "none", "head": "mlp"}}),
    "mask.outputs": ("agnostic", {"family": "mask_rcnn"}),
    "mask.activation": ("softmax", {"family": "mask_rcnn", "mask": {"mlp_branch": "none"}}),
    "mask.trunk": ("hourglass", {}),
    "mask.pixels": (True, {}),
    "mask.margin": (0.1, {}),
    "mask.rois": (3, {}),
    "mask.box_losses": (("projection",), {}),
    "mask.mlp_branch": ("reference", {}),
    "keypoint.names": (("a", "b", "c"), POINTS),
    "keypoint.classes": (("cat",), POINTS),
    "keypoint.convs": (2, POINTS),
    "keypoint.channels": (64, POINTS),
    "keypoint.normaliser": ("fixed", POINTS),
    "keypoint.score": ("probability", POINTS),
    "fcis.scores": ("separate", FCIS),
    "fcis.group": (3, FCIS),
    "fcis.size": (14, FCIS),
    "fcis.pooling": ("bilinear", FCIS),
    "fcis.channels": (64, FCIS),
    "fcis.rpn_channels": (64, FCIS),
    "fcis.mask_weight": (1.0, FCIS),
    "fcis.ohem": (True, FCIS),
    "fcis.passes": (1, FCIS),
    "fcis.min_side": (3.0, FCIS),
    "fcis.merge_iou": (0.6, FCIS),
    "fcis.threshold": (0.3, FCIS),
    "fcis.prebinarize": (False, FCIS),
    "fcis.voters": ("own_class", FCIS),
    "transfer.input": ("cls", {}),
    "transfer.layers": (3, {}),
    "transfer.activation": ("relu", {}),
    "transfer.init": ("small", {}),
    "transfer.unit_rms": (True, {}),
    "transfer.stop_gradient": (False, {}),
    "detections.score": (0.5, {}),
    "detections.nms_iou": (0.3, {}),
    "detections.soft_nms": ("linear", {}),
    "detections.soft_sigma": (0.3, {"detections": {"soft_nms": "gaussian"}}),
    "detections.box_voting": (0.8, {}),
    "detections.limit": (7, {}),
}
# Read by whoever calls the model, or tested with a file in its hands.
ELSEWHERE = {
    "input.canvas",
    "input.short_side",
    "input.long_side",
    "detections.paste",
    "input.rounding",
    "backbone.weights",
    "transfer.embedding",
    "keypoint.use",
    "keypoint.skeleton",
    "keypoint.flip",
}


def leaves(section: type[BaseModel] = ModelConfig, prefix: str = "") -> set[str]:
    """The dotted names of all settings."""
    found = set()
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= leaves(field.annotation, f"{prefix}{name}.")
        else:
            found.add(prefix + name)
    return found


def merged(*layers: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            result[key] = {**result.get(key, {}), **value} if isinstance(value, dict) else value
    return result


def facts_of(value: Any) -> Any:
    """Everything that an object holds, down to plain values; layers by their configuration."""
    if isinstance(value, keras.layers.Layer):
        return value.get_config()
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return type(value).__name__, {name: facts_of(part) for name, part in value._asdict().items()}
    if isinstance(value, tuple | list):
        return [facts_of(part) for part in value]
    if type(value).__module__.startswith("maskx_tf."):
        return type(value).__name__, {name: facts_of(part) for name, part in vars(value).items()}
    return value


def fingerprint(model: RCNN, weights: list[Weight]) -> dict[str, Any]:
    """All that a setting can change of a model."""
    parts = ("normaliser", "backbone", "neck", "rpn", "sampler", "box", "branches")
    return {"parts": {part: facts_of(getattr(model, part)) for part in parts}, "weights": list(weights)}


def test_every_setting_is_listed() -> None:
    assert leaves() == set(OTHERS) | ELSEWHERE


@functools.cache
def printed(settings: ModelConfig) -> str:
    with pytest.MonkeyPatch.context() as patch:
        weights = record_weights(patch)
        return str(fingerprint(build(settings), weights))


@pytest.mark.parametrize("name", OTHERS)
def test_no_setting_is_lost(name) -> None:
    value, needed = OTHERS[name]
    section, _, key = name.rpartition(".")
    change = {section: {key: value}} if section else {key: value}
    before, after = (ModelConfig(**merged(BASE, needed, changed)) for changed in ({}, change))
    assert printed(before) != printed(after)


def test_the_settings_of_the_backbone_arrive() -> None:
    for frozen, first in ((0, "stem"), (2, "res3"), (5, None)):
        settings = small.config(backbone={"frozen_stages": frozen, "norm_epsilon": 0.5})
        backbone = build(settings).backbone
        assert backbone.stem.epsilon == backbone.stages[2].blocks[0].conv2.epsilon == 0.5
        learning = [variable.path.split("/")[1] for variable in backbone.trainable_variables]
        assert (learning[0] if learning else None) == first


@pytest.mark.parametrize("stride_in_1x1", [False, True])
def test_the_stride_of_res5_in_the_box_head(stride_in_1x1, monkeypatch) -> None:
    record_weights(monkeypatch)
    settings = small.config(backbone={"name": "resnet50", "neck": "c4", "stride_in_1x1": stride_in_1x1})
    model = build(settings)
    for block in (model.backbone.stages[2].blocks[0], model.box.head.stage.blocks[0]):
        assert (block.conv1.strides, block.conv2.strides) == ((2, 1) if stride_in_1x1 else (1, 2))
    # The mask head reads through the very same weights.
    assert model.mask.pool.head is model.box.head


@pytest.mark.parametrize(("key", "value"), [("norm_epsilon", 0.1), ("stride_in_1x1", True)])
def test_what_a_network_of_keras_cannot_have_is_refused(key, value) -> None:
    with pytest.raises(ValueError, match=key):
        small.config(backbone={"name": "mobilenet_v2", key: value})


@pytest.fixture
def quick_mobilenet(monkeypatch) -> None:
    monkeypatch.setitem(NETWORKS, "mobilenet_v2", SMALL_NETWORK)


@pytest.mark.usefixtures("quick_mobilenet")
@pytest.mark.parametrize(
    ("weights", "error", "said"),
    [
        ("imagenet", Exception("URL fetch failure on https://a.b -- no route"), "could not download .* no route"),
        ("imagenet", OSError(), "could not download the weights: OSError"),
        (__file__, ValueError("not HDF5\nand more"), "test_build.py: not the weights of this backbone: not HDF5$"),
        ("nowhere.h5", AssertionError("not asked"), "found no file nowhere.h5"),
    ],
)
def test_weights_that_cannot_be_had(monkeypatch, weights: str, error: Exception, said: str) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Application, "load_imagenet", fail)
    with pytest.raises(BadInput, match=said):
        build(small.config(backbone={"name": "mobilenet_v2", "weights": weights}))


@pytest.mark.usefixtures("quick_mobilenet")
def test_a_bug_is_not_bad_input(monkeypatch) -> None:
    monkeypatch.setattr(Application, "load_imagenet", None)
    with pytest.raises(TypeError):
        build(small.config(backbone={"name": "mobilenet_v2", "weights": "imagenet"}))


def test_rpn_anchors() -> None:
    """Sizes x ratios outputs a cell."""
    settings = small.config(anchors={"sizes": ((1.0, 2.0),) * 5, "ratios": (1.0, 2.0, 3.0)})
    assert build(settings).rpn.head.anchors == 6


def test_detect_is_the_slow_pipeline() -> None:
    """Proposals, scores, candidates, boxes and suppression, one image and one number at a time."""
    model = small_model(small.config())
    asked = inputs()
    features = model.features(asked["images"], asked["image_sizes"])
    logits, deltas, anchors = model.rpn.outputs(features)
    settings = small.DEFAULTS
    found = model(asked)
    for image, (height, width) in enumerate(small.IMAGE_SIZES):
        regions, scores = reference.proposals(
            [np.asarray(level[image]) for level in logits],
            [np.asarray(level[image]) for level in deltas],
            [np.asarray(level) for level in anchors],
            (height, width),
            settings["rpn"]["pre_nms_test"],
            settings["rpn"]["post_nms_test"],
            0.7,
            0.0,
        )
        assert len(scores) == settings["rpn"]["post_nms_test"]
        vectors = np.asarray(model.box.vectors(features, np.stack([regions.astype(np.float32)] * 2))[image], np.float64)
        rows, bias = model.box.predictor.class_rows.numpy(), model.box.predictor.class_bias.numpy()
        powers = np.exp(vectors @ rows.T.astype(np.float64) + bias)
        probs = (powers / powers.sum(axis=1, keepdims=True))[:, 1:]  # background is first
        chosen = reference.candidates(probs, np.ones(len(probs), bool), 0.05, 2000)
        boxes = []
        for _, region, number in chosen:
            own = model.box.predictor.box_rows.numpy()[number - 1].astype(np.float64) @ vectors[region]
            own += model.box.predictor.box_bias.numpy()[number - 1]
            boxes.append(reference.clip(reference.decode(own, regions[region], (10, 10, 5, 5)), height, width))
        classes = [number for _, _, number in chosen]
        kept = reference.nms(boxes, [score for score, _, _ in chosen], classes, [True] * len(boxes), 0.5, 7)
        assert np.asarray(found.valid[image]).sum() == len(kept)
        np.testing.assert_array_equal(found.classes[image, : len(kept)], [classes[index] for index in kept])
        np.testing.assert_allclose(found.scores[image, : len(kept)], [chosen[index][0] for index in kept], atol=1e-3)
        np.testing.assert_allclose(found.boxes[image, : len(kept)], [boxes[index] for index in kept], atol=0.02)


def test_classify_leaves_out_the_background() -> None:
    model = small_model(small.config())
    model.box.predictor.class_bias.assign([50.0, 0.0, 0.0, 0.0])
    asked = inputs()
    boxes = np.array([[[2.0, 3.0, 30.0, 40.0]]] * 2, np.float32)
    classes, scores = model.box.classify(model.scene(*asked.values()), boxes)
    assert ((np.asarray(classes) >= 1) & (np.asarray(classes) <= 3)).all()
    assert np.asarray(scores).max() < 1e-3
