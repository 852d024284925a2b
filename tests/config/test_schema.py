"""The settings: their defaults and descriptions, and the combinations that are refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from maskx_tf.config import Config, ModelConfig, TrainConfig, load
from maskx_tf.config.explain import valid_keys
from tests.config.helpers import problem, put

FCIS = ("model.family=fcis", "model.backbone.neck=dc5", "model.anchors.sizes=[[64]]")


def test_defaults_are_the_recommended_conventions() -> None:
    model = Config().model
    assert (model.roi.aligned, model.roi.samples, model.anchors.rounding) == (True, 2, "none")
    assert model.rpn.smooth_l1_beta == model.box.smooth_l1_beta == pytest.approx(1 / 9)
    assert (model.detections.paste, model.input.channel_order, model.backbone.stride_in_1x1) == (
        "continuous",
        "rgb",
        False,
    )


def test_configuration_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().train.steps = 5  # type: ignore[misc]


def test_sections_can_be_made_in_code() -> None:
    assert ModelConfig(family="mask_rcnn").backbone.name == "resnet50"
    with pytest.raises(ValueError, match="integer"):
        TrainConfig(steps="5")  # type: ignore[arg-type]


def _fields(section: type[BaseModel], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in section.model_fields.items():
        yield above + name, field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _fields(field.annotation, f"{above}{name}.")


def test_every_setting_is_described_and_has_a_default() -> None:
    fields = dict(_fields(Config))
    assert len(fields) > 80
    assert [key for key, field in fields.items() if not field.description or field.is_required()] == []
    assert set(fields) <= set(valid_keys())
    assert "data.masks.random.seed" in set(valid_keys())
    schema = Config.model_json_schema()
    assert set(schema["properties"]) == {"model", "data", "train", "evaluate", "export"}


@pytest.mark.parametrize(
    ("overrides", "key", "words"),
    [
        (
            ["model.input.canvas=[800, 1000]"],
            "model.input.canvas",
            "multiples of 32, because neck is fpn, found [800, 1000]",
        ),
        (["model.input.short_side=2000"], "model.input.short_side", "at most long_side, which is 1333"),
        (["model.backbone.neck=c4"], "model.anchors.sizes", "1 list of sizes, one for each map of neck c4"),
        (["model.anchors.sizes=[[8], [8], [8], [8]]"], "model.anchors.sizes", "5 lists of sizes"),
        (["model.anchors.sizes=[[8], [8], [8], [8], [8, 9]]"], "model.anchors.sizes", "the same number of sizes"),
        (
            ["model.roi.samples=0", "model.roi.reduce=max"],
            "model.roi.reduce",
            "average, because samples is 0, found 'max'",
        ),
        (["model.roi.samples=3"], "model.roi.samples", "0, 1 or 2, found 3"),
        (["model.rpn.pre_nms_train=10"], "model.rpn.post_nms_train", "at most 50"),
        (["model.rpn.post_nms_test=6000"], "model.rpn.post_nms_test", "at most 5000"),
        (["model.rpn.negative_iou=0.8"], "model.rpn.negative_iou", "at most positive_iou, which is 0.7"),
        (["model.box.background_iou=[0.1, 0.6]"], "model.box.background_iou", "at most positive_iou, which is 0.5"),
        (["model.box.background_iou=[0.5, 0.1]"], "model.box.background_iou", "two ascending numbers"),
        (["model.box.class_agnostic=true"], "model.box.class_agnostic", "T reads a class's own box weights"),
        (["model.keypoint.names=[a]"], "model.keypoint.names", "nothing, because use is false"),
        (["train.keypoint_weight=2"], "train.keypoint_weight", "nothing, for model.keypoint.use is false"),
        (["train.neck_rate_factor=3"], "train.neck_rate_factor", "mask_x_rcnn has no convolution before maps"),
        (
            ["model.family=fcis", "model.fcis={scores: average, passes: 1, threshold: 0.3}"],
            "model.fcis.threshold",
            "nothing, because scores is average",
        ),
        (["model.keypoint={use: true, names: [a, a]}"], "model.keypoint.names", "no name twice"),
        (["model.keypoint={use: true, names: [a, b], skeleton: [[a, c]]}"], "model.keypoint.skeleton", "found 'c'"),
        (["model.keypoint={use: true, names: [a, b], flip: [[a, b], [b, a]]}"], "model.keypoint.flip", "no name twice"),
        (
            ["model.class_names=[cat]", "model.keypoint={use: true, classes: [dog]}"],
            "model.keypoint.classes",
            "classes of class_names, found 'dog'",
        ),
        (["train.stage=keypoint", "train.weights=w"], "train.stage", "no keypoint, for model.keypoint.use is false"),
        (["model.mask.box_losses=[teacher]"], "model.mask.box_losses", "no teacher, for train.ema is null"),
        (["train.stages=[regions, heads]"], "train.stages", "the one before it, found ['regions', 'heads']"),
        (["train.schedule=cosine", "train.drops=[5]"], "train.drops", "none, because schedule is cosine"),
        (
            ["train.schedule=cosine", "train.drop_factor=0.5"],
            "train.drop_factor",
            "nothing, because schedule is cosine",
        ),
        (
            ["model.family=faster_rcnn", "model.mask.box_losses=[projection]"],
            "model.mask.box_losses",
            "none, for family faster_rcnn has no mask head",
        ),
        (["train.stages=[heads]"], "train.weights", "the trained detector on which stage heads builds"),
        (["train.stages=[rpn]", "train.stage=detector"], "train.stage", "all, because stages names what learns"),
        (["train.stage=regions"], "train.proposals", "a run that proposes regions"),
        (["train.proposals=a"], "train.proposals", "null, because stage is not regions"),
        (["model.transfer.input=embedding"], "model.transfer.embedding", "the path of a .npy table"),
        (["model.transfer.embedding=a.npy"], "model.transfer.embedding", "null, because input is cls_box"),
        (["model.family=mask_rcnn", "model.transfer.layers=3"], "model.transfer.layers", "mask_rcnn has no transfer"),
        (["model.mask.activation=softmax"], "model.mask.activation", "sigmoid, because family is mask_x_rcnn"),
        (["model.mask.outputs=agnostic"], "model.mask.outputs", "specific, because family is mask_x_rcnn"),
        (["model.mask.head=mlp"], "model.mask.head", "fcn, because family is mask_x_rcnn"),
        (["model.mask={activation: softmax, outputs: agnostic}"], "model.mask.activation", "no rivals"),
        (["model.family=mask_rcnn", "model.mask={head: mlp, activation: softmax}"], "model.mask.activation", "is mlp"),
        (["model.mask={head: mlp, mlp_branch: lean}"], "model.mask.mlp_branch", "head fcn"),
        (["model.mask={activation: softmax, mlp_branch: lean}"], "model.mask.mlp_branch", "softmax cancels"),
        (["model.backbone={name: mobilenet_v2, norm: group}"], "model.backbone.norm", "batch norm built in"),
        (["model.backbone={name: mobilenet_v2, neck: dc5}"], "model.backbone.neck", "from Keras"),
        (["model.backbone.weights=imagenet"], "model.backbone.weights", "import a checkpoint"),
        (["model.class_names=[cat, dog, cat]"], "model.class_names", "no name twice, found 'cat'"),
        (["model.class_names=[cat]", "data.masks=[dog]"], "data.masks", "classes of model.class_names, found 'dog'"),
        (["model.class_names=[cat]", "data.masks={random: {a: 2}}"], "data.masks.random.a", "at most 1"),
        (["data.masks=oracle", "data.train=[{images: a, annotations: b}]"], "data.masks", "masks_b in data.train"),
        (["data.val=[{images: a, annotations: b, format: coko}]"], "data.val[0].format", "'coco', 'voc'"),
        (["model.family=mask_rcnn", "model.fcis.ohem=true"], "model.fcis.ohem", "has no position-sensitive maps"),
        (["model.family=fcis"], "model.backbone.neck", "dc5, because family is fcis"),
        (
            [*FCIS, "train.stage=detector"],
            "train.stage",
            "all, because the maps",
        ),
        (["model.detections.soft_sigma=0.3"], "model.detections.soft_sigma", "nothing, for soft_nms is none"),
        (
            ["model.detections={soft_nms: gaussian, nms_iou: 0.3}"],
            "model.detections.nms_iou",
            "nothing, for soft_nms is gaussian",
        ),
        (
            [*FCIS, "model.detections.box_voting=0.8"],
            "model.detections.box_voting",
            "null, because family is fcis",
        ),
        (["model.mask.mlp_layers=1"], "model.mask.mlp_layers", "nothing, because head is fcn"),
        ([*FCIS, "model.roi.samples=1"], "model.roi.samples", "nothing, because family is fcis"),
        ([*FCIS, "model.box.layers=1"], "model.box.layers", "nothing, because family is fcis"),
        ([*FCIS, "model.box.class_agnostic=true"], "model.box.class_agnostic", "nothing, because family is fcis"),
        (
            [*FCIS, "model.fcis.ohem=true", "model.box.background_iou=[0.1, 0.5]"],
            "model.box.background_iou",
            "nothing, because fcis.ohem is true",
        ),
        (["model.mask.mlp_side=28"], "model.mask.mlp_side", "null, because head is fcn"),
        (["model.box.layers=0"], "model.box.layers", "at least 1, because family is mask_x_rcnn"),
        (["model.fcis.size=20"], "model.fcis.size", "a multiple of group, which is 7"),
        (["model.fcis.scores=average"], "model.fcis.passes", "1, because scores is average"),
        (
            ["model.backbone.norm=fixed_batch", "model.backbone.name=mobilenet_v2"],
            "model.backbone.norm",
            "batch norm built in",
        ),
        (
            ["model.backbone.stem_pool=ceil", "model.backbone.name=mobilenet_v2"],
            "model.backbone.stem_pool",
            "has its own",
        ),
        (["data.scale_jitter=[2, 0.1]"], "data.scale_jitter", "the smaller number first"),
        (["data.crop=0"], "data.crop", "a number above 0"),
        (["data.photometric.hue=0.6"], "data.photometric.hue", "at most 0.5"),
        (["data.copy_paste=1.5"], "data.copy_paste", "at most 1"),
        (["train.drops=[5, 5]"], "train.drops", "ascending order"),
        (["train.accumulate=3"], "train.accumulate", "a divisor of batch, which is 16"),
        (["train.stage=mask"], "train.weights", "the trained detector"),
        (["model.family=faster_rcnn", "train={stage: mask, weights: a}"], "train.stage", "no masks"),
        (["model.family=faster_rcnn", "evaluate.kinds=[box, mask]"], "evaluate.kinds", "no masks"),
        (["model.family=faster_rcnn", "export.signatures=[segment_boxes]"], "export.signatures", "found ['segment_b"),
    ],
)
def test_impossible_combination_is_one_line(overrides: list[str], key: str, words: str) -> None:
    message = problem(put("a.yaml", ""), overrides)
    assert message.startswith("override ")
    assert f": {key}: expected " in message
    assert words in message


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.backbone.neck=c4", "model.anchors.sizes=[[32, 64, 128, 256, 512]]", "model.input.canvas=[800, 1200]"],
        ["model.family=mask_rcnn", "model.mask={activation: softmax}"],
        ["model.family=mask_rcnn", "model.mask={outputs: agnostic, mlp_branch: reference}"],
        ["model.transfer={input: embedding, embedding: glove.npy}", "model.box.class_agnostic=true"],
        ["model.transfer.input=cls", "model.box.class_agnostic=true"],
        ["model.family=faster_rcnn", "evaluate.kinds=[box]", "train.stage=detector"],
        ["model.input.canvas=[800, 1216]", "train.steps=10", "data.masks=E5_A60"],
        ["train={stage: mask, weights: runs/a}", "data.masks=[cat]", "model.class_names=[dog, cat]"],
        ["data={masks: oracle, names: n.yaml, train: [{images: a, annotations: b, format: voc, masks_b: c}]}"],
        ["data={crop: 0.3, scale_jitter: [0.1, 2], copy_paste: 0.5, photometric: {hue: 0.5, contrast: 1}}"],
    ],
)
def test_possible_combination_is_accepted(overrides: list[str]) -> None:
    load(put("a.yaml", ""), overrides)


def test_configuration_needs_no_tensorflow() -> None:
    code = (
        "import sys, maskx_tf.config; sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
