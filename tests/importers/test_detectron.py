"""Files of Detectron and seg_every_thing: made up, with every blob of spec/maskx.md, section 10, and narrow heads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import yaml

from maskx_tf.checkpoints import io
from maskx_tf.checkpoints.settings import resolve
from maskx_tf.errors import BadInput
from maskx_tf.importers import tables
from maskx_tf.importers.detectron import BACKUP, DETECTRON_FOLDED, RESTORED, _anchors, plan
from maskx_tf.importers.detectron_cfg import ignored, look_up, parse
from maskx_tf.importers.plan import ImportRequest
from maskx_tf.importers.run import convert, import_file
from maskx_tf.names import COCO
from tests.importers import transcription
from tests.importers.files import Tensors, layers, python2_pickle, random_tensors, resnet_shapes

R50, R101 = (3, 4, 6, 3), (3, 4, 23, 3)
PYRAMID, VECTOR, MASK, SIDE = 5, 6, 4, 3  # 256, 1024, 256 and 14 in the real ones
EMBEDDED = {"cls": VECTOR, "box": 4 * VECTOR, "cls_box": 5 * VECTOR, "table": 9}


def block_names(stage: int, block: int, part: str) -> tuple[str, str]:
    if part == "stem":
        return "conv1_w", "res_conv1_bn"
    branch = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "shortcut": "branch1"}[part]
    return f"res{stage}_{block}_{branch}_w", f"res{stage}_{block}_{branch}_bn"


def detector(
    total: int = 81, blocks: tuple[int, ...] = R50, pyramid: int = PYRAMID, vector: int = VECTOR, **options: Any
) -> dict[str, tuple[int, ...]]:
    """A Faster R-CNN with FPN; classes with the background."""
    last = [f"res{stage}_{count - 1}_sum" for stage, count in enumerate(blocks, start=2)]
    heads: dict[str, tuple[int, ...]] = {f"fpn_inner_{last[3]}": (pyramid, 2048, 1, 1)}
    heads |= {f"fpn_inner_{last[level]}_lateral": (pyramid, 256 << level, 1, 1) for level in range(3)}
    heads |= {f"fpn_{name}": (pyramid, pyramid, 3, 3) for name in last}
    heads |= {"conv_rpn_fpn2": (pyramid, pyramid, 3, 3), "rpn_cls_logits_fpn2": (3, pyramid, 1, 1)}
    heads |= {"rpn_bbox_pred_fpn2": (12, pyramid, 1, 1), "fc6": (vector, 49 * pyramid), "fc7": (vector, vector)}
    heads |= {"cls_score": (total, vector), "bbox_pred": (4 * total, vector)}
    return resnet_shapes(blocks, block_names, ("_s", "_b"), **options) | layers(heads, ("_w", "_b"))


def mask_trunk(channels: int = MASK, pyramid: int = PYRAMID) -> dict[str, tuple[int, ...]]:
    convs = {f"_[mask]_fcn{index}": (channels, pyramid if index == 1 else channels, 3, 3) for index in (1, 2, 3, 4)}
    return layers({**convs, "conv5_mask": (channels, channels, 2, 2)}, ("_w", "_b"))


def transfer(width: int, count: int, channels: int = MASK) -> dict[str, tuple[int, ...]]:
    hidden = {f"bbox2mask_mlp_l{index}": (channels, width if index == 1 else channels) for index in range(1, count)}
    last = {"mask_fcn_logits_w_flat": (channels, width if count == 1 else channels)}
    return layers({**hidden, **last}, ("_w", "_b"))


def mlp(channels: int = MASK, side: int = 2 * SIDE) -> dict[str, tuple[int, ...]]:
    return layers({"mask_mlp_logits_raw": (side * side, channels * side * side)}, ("_w", "_b"))


@pytest.fixture(scope="module")
def boxes() -> Tensors:
    return random_tensors(detector())


def layer(blobs: Tensors, name: str) -> tuple[np.ndarray, np.ndarray]:
    return blobs[f"{name}_w"], blobs[f"{name}_b"]


def assert_masks(imported: Any, blobs: Tensors, reads: str, hidden: int, leak: float, branch: bool) -> None:
    """The imported model's masks, filters and all, against the transcription's."""
    model = imported.model
    t_layers = [layer(blobs, f"bbox2mask_mlp_l{index}") for index in range(1, hidden + 1)]
    t_layers.append(layer(blobs, "mask_fcn_logits_w_flat"))
    rows = blobs["v_glove"] if reads == "table" else blobs["cls_score_w"]
    filters = transcription.transfer(rows, blobs["bbox_pred_w"], t_layers, reads, leak)
    (found,) = model.mask.prepare()
    np.testing.assert_allclose(found, filters[1:], atol=1e-5)
    size = imported.config.model.roi.mask_size
    pooled = np.random.default_rng(5).standard_normal((3, PYRAMID, size, size)).astype(np.float32)
    convs = [layer(blobs, f"_[mask]_fcn{index}") for index in (1, 2, 3, 4)]
    features = transcription.mask_features(pooled, convs, layer(blobs, "conv5_mask"))
    masks = transcription.all_masks(features, filters, layer(blobs, "mask_mlp_logits_raw") if branch else None)
    classes = [1, 80, 17]
    ours = model.mask.logits(pooled.transpose(0, 2, 3, 1)[None], tf.constant([classes]), model.mask.prepare())
    np.testing.assert_allclose(ours[0], masks[np.arange(3), classes], atol=1e-4)


@pytest.mark.parametrize(
    ("reads", "hidden", "activation", "branch"),
    [
        ("cls_box", 1, "leaky_relu", True),
        ("cls", 0, "leaky_relu", False),
        ("box", 2, "relu", False),
        ("table", 1, "leaky_relu", False),
    ],
)
def test_mask_x(
    reads: str, hidden: int, activation: str, branch: bool, boxes: Tensors, put: Callable[[Any], Path], tmp_path: Path
) -> None:
    extra = mask_trunk() | transfer(EMBEDDED[reads], hidden + 1) | (mlp() if branch else {})
    blobs = {**boxes, **random_tensors(extra, seed=1)}
    if reads == "table":
        blobs["v_glove"] = np.random.default_rng(2).standard_normal((81, EMBEDDED["table"])).astype(np.float32)
    cfg = f"MRCNN: {{BBOX2MASK: {{USE_LEAKYRELU: {activation == 'leaky_relu'}, STOP_DET_W_GRAD: false}}}}\n"
    path = put({"blobs": blobs, "cfg": cfg})
    imported = convert("detectron", ImportRequest(path))
    config = imported.config.model
    assert (config.family, config.class_names) == ("mask_x_rcnn", COCO)
    settings = config.transfer
    assert settings.input == ("embedding" if reads == "table" else reads)
    assert (settings.layers, settings.activation, settings.stop_gradient) == (hidden + 1, activation, False)
    assert config.mask.mlp_branch == ("reference" if branch else "none")
    assert_masks(imported, blobs, reads, hidden, 0.1 if activation == "leaky_relu" else 0.0, branch)
    skipped = imported.meta["skipped"]
    assert skipped.pop(tables.BACKGROUND) == ["bbox_pred_w", "bbox_pred_b"]
    if reads == "table":
        assert skipped.pop(tables.TABLE_BACKGROUND) == ["v_glove"]
        io.save(imported.model, imported.config, tmp_path / "model")
        again = io.load(tmp_path / "model")
        np.testing.assert_array_equal(again.model.mask.filters.embeddings.rows(), blobs["v_glove"][1:])
    assert skipped == {}
    assert imported.meta["used"] == len(blobs)


def test_box_head_and_affine_layers(boxes: Tensors, put: Callable[[Any], Path]) -> None:
    blobs = {**boxes, "conv1_b": np.linspace(-1, 1, 64, dtype=np.float32), "conv1_w_momentum": boxes["conv1_w"]}
    imported = convert("detectron", ImportRequest(put({"blobs": blobs})))
    model, generator = imported.model, np.random.default_rng(5)
    assert imported.config.model.family == "faster_rcnn"
    assert imported.meta["skipped"][DETECTRON_FOLDED] == ["conv1_b"]
    assert imported.meta["skipped"]["momentum of the optimizer"] == ["conv1_w_momentum"]

    picture = generator.standard_normal((1, 3, 12, 10)).astype(np.float32)
    stem = transcription.conv(picture, (blobs["conv1_w"], blobs["conv1_b"]), stride=2)
    stem = transcription.relu(stem * blobs["res_conv1_bn_s"][:, None, None] + blobs["res_conv1_bn_b"][:, None, None])
    np.testing.assert_allclose(
        model.backbone.stem(picture.transpose(0, 2, 3, 1)), stem.transpose(0, 2, 3, 1), atol=1e-5
    )

    pooled = generator.standard_normal((2, PYRAMID, 7, 7)).astype(np.float32)
    vectors = transcription.box_head(pooled, [layer(blobs, "fc6"), layer(blobs, "fc7")])
    ours = model.box.head(pooled.transpose(0, 2, 3, 1)[None])
    np.testing.assert_allclose(
        model.box.predictor(ours)[0], transcription.dense(vectors, layer(blobs, "cls_score")), atol=1e-5
    )
    deltas = transcription.dense(vectors, layer(blobs, "bbox_pred")).reshape(2, 81, 4)
    found = model.box.predictor.deltas(ours, tf.constant([[1, 80]]))
    np.testing.assert_allclose(found[0], deltas[[0, 1], [1, 80]], atol=1e-5)


def empty(every: dict[str, tuple[int, ...]]) -> Tensors:
    return {key: np.broadcast_to(np.float32(0), shape) for key, shape in every.items()}  # no memory


def assert_complete(found: Any, every: dict[str, tuple[int, ...]]) -> None:
    settings = {**found.settings, "class_names": list(found.labels.names)}
    if found.embedding is not None:
        settings["transfer"] = {**settings["transfer"], "embedding": "given"}
    tensors = [entry.tensor for entry in found.table(resolve({"model": settings}).model).entries]
    assert sorted(tensors) == sorted(every)


@pytest.mark.parametrize(("outputs", "kind"), [(81, "specific"), (1, "agnostic")])
def test_baselines(outputs: int, kind: str, put: Callable[[Any], Path]) -> None:
    every = detector() | mask_trunk() | layers({"mask_fcn_logits": (outputs, MASK, 1, 1)}, ("_w", "_b")) | mlp()
    found = plan(ImportRequest(put({"blobs": empty(every)})))
    assert found.settings["family"] == "mask_rcnn"
    assert found.settings["mask"]["outputs"] == kind
    assert_complete(found, every)


@pytest.mark.parametrize(
    ("cfg", "samples", "note"),
    [
        ("{}", 2, ""),
        ("{FAST_RCNN: {ROI_XFORM_SAMPLING_RATIO: 0}, MRCNN: {ROI_XFORM_SAMPLING_RATIO: 0}}", 0, ""),
        ("{FAST_RCNN: {ROI_XFORM_SAMPLING_RATIO: 1}}", 1, ""),
        (
            "{FAST_RCNN: {ROI_XFORM_SAMPLING_RATIO: 2}, MRCNN: {ROI_XFORM_SAMPLING_RATIO: 0}}",
            2,
            "2 for boxes and 0 for masks (0: as many as a bin is cells long) at the source, here 2 for both",
        ),
        ("{FAST_RCNN: {ROI_XFORM_SAMPLING_RATIO: 4}}", 2, "4 for boxes and 4 for masks"),
    ],
)
def test_samples_of_the_configuration(cfg: str, samples: int, note: str, put: Callable[[Any], Path]) -> None:
    every = detector() | mask_trunk() | layers({"mask_fcn_logits": (81, MASK, 1, 1)}, ("_w", "_b"))
    found = plan(ImportRequest(put({"blobs": empty(every), "cfg": cfg})))
    assert found.settings["roi"]["samples"] == samples
    assert note in " ".join(found.notes)
    assert ("samples" in " ".join(found.notes)) == bool(note)


def test_other_anchors_are_named_as_such(put: Callable[[Any], Path]) -> None:
    every = empty(detector() | {"rpn_cls_logits_fpn2_w": (4, PYRAMID, 1, 1)})
    with pytest.raises(
        BadInput, match="rpn_cls_logits_fpn2_w: expected 3 anchors a cell, of 3 ratios and 1 sizes, found 4"
    ):
        convert("detectron", ImportRequest(put({"blobs": every})))


def test_agnostic_boxes(put: Callable[[Any], Path]) -> None:
    """Detectron keeps four rows for the background before those for everything else."""
    every = detector() | layers({"bbox_pred": (8, VECTOR)}, ("_w", "_b"))
    found = plan(ImportRequest(put({"blobs": empty(every)})))
    assert found.settings["box"]["class_agnostic"] is True
    config = resolve({"model": {**found.settings, "class_names": list(found.labels.names)}}).model
    layouts = {entry.variable: entry.layout for entry in found.table(config).entries}
    boxes = np.arange(8.0 * VECTOR).reshape(8, VECTOR)
    np.testing.assert_array_equal(layouts["box_predictor/box_rows"].convert(boxes), boxes[None, 4:])
    np.testing.assert_array_equal(layouts["box_predictor/box_bias"].convert(boxes[:, 0]), boxes[None, 4:, 0])


def test_r101_and_resnext(put: Callable[[Any], Path]) -> None:
    for options, name, in_1x1 in (
        ({}, "resnet101", True),
        ({"groups": 64, "group_width": 4}, "resnext101_64x4d", False),
    ):
        every = detector(blocks=R101, **options)
        assert "fpn_inner_res4_22_sum_lateral_w" in every
        found = plan(ImportRequest(put({"blobs": empty(every)})))
        assert (found.settings["backbone"]["name"], found.settings["backbone"]["stride_in_1x1"]) == (name, in_1x1)
        assert_complete(found, every)


def test_c4(put: Callable[[Any], Path]) -> None:
    heads = {"conv_rpn": (1024, 1024, 3, 3), "rpn_cls_logits": (15, 1024, 1, 1), "rpn_bbox_pred": (60, 1024, 1, 1)}
    heads |= {"cls_score": (81, 2048), "bbox_pred": (324, 2048), "mask_fcn_logits": (81, 256, 1, 1)}
    every = resnet_shapes(R50, block_names, ("_s", "_b")) | layers(heads, ("_w", "_b"))
    every |= {"conv5_mask_w": (2048, 256, 2, 2), "conv5_mask_b": (256,)}
    found = plan(ImportRequest(put({"blobs": empty(every)})))
    assert found.settings["backbone"]["neck"] == "c4"
    assert found.settings["anchors"]["order"] == "ratio_major"
    assert_complete(found, every)
    every |= mlp(256, 20)
    found = plan(ImportRequest(put({"blobs": empty(every)})))
    assert resolve({"model": found.settings}).model.mask_side == 20
    assert_complete(found, every)


def test_blobs_of_the_whole_vocabulary(boxes: Tensors, put: Callable[[Any], Path]) -> None:
    blobs = {**boxes, **random_tensors(mask_trunk() | transfer(EMBEDDED["cls_box"], 2), seed=1)}
    for name, rows in (("cls_score", 90), ("bbox_pred", 360)):
        blobs |= {
            f"{key}{BACKUP}": array
            for key, array in random_tensors(layers({name: (rows, VECTOR)}, ("_w", "_b"))).items()
        }
    found = plan(ImportRequest(put({"blobs": blobs})))
    assert len(found.labels.names) == 89
    assert found.settled == {RESTORED: ["cls_score_w", "cls_score_b", "bbox_pred_w", "bbox_pred_b"]}
    assert found.tensors["cls_score_w"] is blobs[f"cls_score_w{BACKUP}"]
    assert not any(name.endswith(BACKUP) for name in found.tensors)


def test_without_proposals(boxes: Tensors, put: Callable[[Any], Path], reuse: None) -> None:
    blobs = {name: array for name, array in boxes.items() if "rpn" not in name}
    path = put({"blobs": blobs})
    with pytest.raises(BadInput, match="weights: has no region proposal network; with --without-rpn it can segment"):
        convert("detectron", ImportRequest(path))
    imported = convert("detectron", ImportRequest(path, without_rpn=True))
    assert imported.meta["fresh"] == [
        f"rpn/{name}/{end}" for name in ("conv", "deltas", "objectness") for end in ("bias", "kernel")
    ]
    assert imported.meta["used"] == len(blobs)


def test_names_that_detectron_shares(boxes: Tensors, put: Callable[[Any], Path]) -> None:
    every = mask_trunk() | transfer(EMBEDDED["cls"], 1)
    blobs = {**boxes, **{name.replace("_[mask]_", ""): array for name, array in random_tensors(every).items()}}
    blobs |= {"v_randn_0": np.zeros((81, 300)), "fc1000_w": np.zeros((1000, 2048)), "fc1000_b": np.zeros(1000)}
    found = plan(ImportRequest(put(blobs)))  # flat, as older files are
    assert found.settings["mask"]["convs"] == 4
    assert {name for name in found.tensors if "fcn" in name} == {name for name in every if "fcn" in name}
    assert found.embedding is None


def test_choice_of_a_table(boxes: Tensors, put: Callable[[Any], Path]) -> None:
    blobs = {**boxes, **random_tensors(mask_trunk() | transfer(9, 2))}
    for name in ("v_glove", "v_randn_0"):
        blobs[name] = np.full((81, 9), len(name), np.float32)
    cfg = "MRCNN: {BBOX2MASK: {PRETRAINED_EMBED_NAME: v_randn_0}}"
    found = plan(ImportRequest(put({"blobs": blobs, "cfg": cfg})))
    assert found.embedding is not None
    assert found.embedding.shape == (80, 9)
    assert np.all(found.embedding == len("v_randn_0"))
    assert "v_glove" in found.tensors  # left out by a rule
    path = put({"blobs": blobs})
    with pytest.raises(BadInput, match="found the tables v_glove and v_randn_0, of which its cfg names none"):
        plan(ImportRequest(path))
    path = put({"blobs": {**blobs, "v_randn_0": np.zeros((80, 9), np.float32)}, "cfg": cfg})
    with pytest.raises(BadInput, match=r"weights: v_randn_0: expected 81 rows, one a class, found 80"):
        plan(ImportRequest(path))


CFG = """
!!python/object/new:utils.collections.AttrDict
dictitems:
  MODEL: !!python/object/new:utils.collections.AttrDict
    dictitems:
      BBOX_REG_WEIGHTS: &weights !!python/tuple [10.0, 10.0, 5.0, 2.5]
      SAME: *weights
      TYPE: !!python/str mask_rcnn
    state: {__immutable__: true}
  PIXEL_MEANS: [[[100.5, 110, 120.25]]]
  RESNETS: {STRIDE_1X1: false}
  FAST_RCNN: {ROI_XFORM_METHOD: !!binary Um9JUG9vbEY=}
  FPN: {RPN_ANCHOR_START_SIZE: 16, RPN_ASPECT_RATIOS: !!python/tuple [1, 3]}
  TRAIN: {RPN_PRE_NMS_TOP_N: 3000, RPN_POST_NMS_TOP_N: 800}
  TEST:
    {SCALE: 600, MAX_SIZE: 1000, SCORE_THRESH: 0.01, NMS: 0.3, DETECTIONS_PER_IM: 50, RPN_PRE_NMS_TOP_N: 100,
     RPN_POST_NMS_TOP_N: 900, RPN_NMS_THRESH: 0.6}
  HOSTILE: !!python/object/apply:os.system ["touch ran"]
  OTHER: !!python/name:os.system
  MODULE: !!python/module:os
state: {__immutable__: true}
"""


def test_settings_of_the_file(boxes: Tensors, put: Callable[[Any], Path], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    found = plan(ImportRequest(put({"blobs": boxes, "cfg": CFG}))).settings
    assert not Path("ran").exists()
    assert found["box"]["delta_weights"] == [10.0, 10.0, 5.0, 2.5]
    assert found["input"]["pixel_mean"] == [100.5, 110.0, 120.25]
    assert (found["input"]["short_side"], found["input"]["long_side"]) == (600, 1000)
    assert found["backbone"]["stride_in_1x1"] is False
    assert found["detections"] == {"score": 0.01, "nms_iou": 0.3, "limit": 50, "paste": "integer"}
    assert found["roi"]["op"] == "pool"
    assert found["anchors"]["sizes"] == [[16.0], [32.0], [64.0], [128.0], [256.0]]
    assert found["anchors"]["ratios"] == [1.0, 3.0]
    numbers = {key: found["rpn"][key] for key in ("pre_nms_train", "post_nms_train", "pre_nms_test", "nms_iou")}
    assert numbers == {"pre_nms_train": 3000, "post_nms_train": 800, "pre_nms_test": 100, "nms_iou": 0.6}
    assert found["rpn"]["post_nms_test"] == 500  # all that five levels leave
    assert look_up(parse(CFG, tmp_path), "HOSTILE", []) == ["touch ran"]


PYTHON2_ARRAY = """
PIXEL_MEANS: !!python/object/apply:numpy.core.multiarray._reconstruct
  args:
  - !!python/name:numpy.ndarray ''
  - !!python/tuple [0]
  - b
  state: !!python/tuple
  - 1
  - !!python/tuple [1, 1, 3]
  - !!python/object/apply:numpy.dtype
    args: [f8, 0, 1]
    state: !!python/tuple [3, <, null, null, null, -1, -1, 0]
  - false
  - !!binary AAAAAAAgWUAAAAAAAIBbQAAAAAAAEF5A
"""


def test_pixel_means_are_an_array(boxes: Tensors, put: Callable[[Any], Path]) -> None:
    means = np.array([[[100.5, 110.0, 120.25]]])
    dumps = [yaml.dump({"PIXEL_MEANS": array}) for array in (means, means.astype(">f4"), np.asfortranarray(means))]
    for cfg in (PYTHON2_ARRAY, *dumps):
        assert "multiarray._reconstruct" in cfg
        found = plan(ImportRequest(put({"blobs": boxes, "cfg": cfg}))).settings
        assert found["input"]["pixel_mean"] == [100.5, 110.0, 120.25]
    path = put({"blobs": boxes, "cfg": PYTHON2_ARRAY.replace("AAAAAAAg", "")})
    with pytest.raises(BadInput, match=r"cfg: PIXEL_MEANS: expected 3 numbers, found .*args"):
        plan(ImportRequest(path))


def test_anchors_of_c4() -> None:
    cfg = {"RPN": {"SIZES": [64, 128, 256, 512], "ASPECT_RATIOS": [0.5, 1, 2]}}
    assert _anchors(Path(), cfg, "c4") == {"sizes": [[64.0, 128.0, 256.0, 512.0]], "ratios": [0.5, 1.0, 2.0]}
    assert _anchors(Path(), None, "c4")["sizes"] == [[32.0, 64.0, 128.0, 256.0, 512.0]]


def test_settings_that_are_not_imported_are_named() -> None:
    assert ignored(None) == ignored({"TEST": {"SOFT_NMS": {"ENABLED": False}, "RPN_MIN_SIZE": 0}}) == ()
    (note,) = ignored({"TEST": {"SOFT_NMS": {"ENABLED": True}}})
    assert note.startswith("its cfg has TEST.SOFT_NMS.ENABLED True, which is not imported")
    assert len(ignored({"FPN": {"ROI_CANONICAL_SCALE": 112}, "TEST": {"BBOX_VOTE": {"ENABLED": True}}})) == 2


def test_boxes_and_masks_pooled_in_two_ways(put: Callable[[Any], Path]) -> None:
    cfg = "{FAST_RCNN: {ROI_XFORM_METHOD: RoIPoolF}, MRCNN: {ROI_XFORM_METHOD: RoIAlign}}"
    masks = mask_trunk() | layers({"mask_fcn_logits": (81, MASK, 1, 1)}, ("_w", "_b"))
    for every, notes in ((detector(), 0), (detector() | masks, 1)):
        found = plan(ImportRequest(put({"blobs": empty(every), "cfg": cfg})))
        assert found.settings["roi"]["op"] == "pool"
        assert sum("boxes are pooled by RoIPoolF and masks by RoIAlign" in note for note in found.notes) == notes


def test_conventions_without_settings(boxes: Tensors, put: Callable[[Any], Path]) -> None:
    found = plan(ImportRequest(put({"blobs": boxes}))).settings
    assert found["box"]["delta_weights"] == [10.0, 10.0, 5.0, 5.0]
    assert found["input"]["pixel_mean"] == [102.9801, 115.9465, 122.7717]
    assert found["input"]["channel_order"] == "bgr"
    assert found["anchors"]["rounding"] == "detectron"
    assert found["roi"]["aligned"] is False
    assert found["roi"]["level_epsilon"] == "detectron"
    assert found["backbone"]["stride_in_1x1"] is True
    # Settings without this key are from before there was one: inference then used ones.
    found = plan(ImportRequest(put({"blobs": boxes, "cfg": "MODEL: {TYPE: mask_rcnn}"}))).settings
    assert found["box"]["delta_weights"] == [1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("cfg", "problem"),
    [
        ("a: [", "cfg: expected YAML: "),
        ("- a", "cfg: expected settings, found a list"),
        ("MODEL: {BBOX_REG_WEIGHTS: [1, 2]}", "cfg: MODEL.BBOX_REG_WEIGHTS: expected 4 numbers, found [1, 2]"),
        ("PIXEL_MEANS: {a: 1}", "cfg: PIXEL_MEANS: expected 3 numbers, found {'a': 1}"),
        ("FPN: {RPN_ASPECT_RATIOS: []}", "cfg: FPN.RPN_ASPECT_RATIOS: expected some numbers, found []"),
        ("MRCNN: {DILATION: 2}", "cfg: MRCNN.DILATION: a dilated mask head cannot be imported"),
    ],
)
def test_wrong_settings(cfg: str, problem: str, boxes: Tensors, put: Callable[[Any], Path]) -> None:
    path = put({"blobs": {**boxes, **empty(mask_trunk() | transfer(VECTOR, 1))}, "cfg": cfg})
    with pytest.raises(BadInput) as caught:
        plan(ImportRequest(path))
    assert str(caught.value).startswith(f"{path}: {problem}")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("kps_score_w", "a keypoint model"),
        ("conv_fcn1_w", "a keypoint model"),
        ("retnet_cls_conv_n0_fpn3_w", "a RetinaNet"),
        ("res2_0_branch2a_gn_s", "a model with GroupNorm"),
        ("fc_mask_head_mlp_l1_w", "an MLP mask branch of more than one layer"),
        ("head_conv1_w", "a box head of convolutions"),
        ("backbone.body.conv1.weight", "a torchvision or detectron2 model, by this source,"),
    ],
)
def test_unsupported(name: str, problem: str, boxes: Tensors, put: Callable[[Any], Path]) -> None:
    path = put({"blobs": {**boxes, name: np.zeros(1, np.float32)}})
    with pytest.raises(BadInput) as caught:
        plan(ImportRequest(path))
    assert str(caught.value) == f"{path}: {name}: {problem} cannot be imported"


@pytest.mark.parametrize(
    ("name", "shape", "problem"),
    [
        ("bbox2mask_mlp_l1_b", (5,), "bbox2mask_mlp_l1_b: expected shape [4], found [5]"),
        ("_[mask]_fcn3_w", (4, 5, 3, 3), "_[mask]_fcn3_w: expected shape [4, 4, 3, 3], found [4, 5, 3, 3]"),
        ("mask_mlp_logits_raw_w", (36, 140), "mask_mlp_logits_raw_w: 140 inputs, expected a square map of 4 channels"),
        ("cls_score_b", (80,), "cls_score_b: expected shape [81], found [80]"),
        ("res4_5_branch2a_bn_s", (9,), "res4_5_branch2a_bn_s: expected shape [256], found [9]"),
        ("more", (1,), "holds more, for which this model has no place"),
        ("conv1_b", (7,), "holds conv1_b, for which this model has no place"),
        ("conv5_mask_b", None, "expected a tensor conv5_mask_b, found none"),
        ("bbox2mask_mlp_l1_w", None, "T reads neither rows of the classifier nor of the boxes"),
    ],
)
def test_wrong_blobs(
    name: str, shape: tuple[int, ...] | None, problem: str, boxes: Tensors, put: Callable[[Any], Path], reuse: None
) -> None:
    blobs = {**boxes, **random_tensors(mask_trunk() | transfer(EMBEDDED["cls_box"], 2) | mlp(), seed=1)}
    if shape is None:
        del blobs[name]
    else:
        blobs[name] = np.zeros(shape, np.float32)
    path = put({"blobs": blobs})
    with pytest.raises(BadInput) as caught:
        convert("detectron", ImportRequest(path))
    assert str(caught.value).startswith(f"{path}: {problem}")


@pytest.mark.slow
def test_full_size_file(tmp_path: Path) -> None:
    every = detector(pyramid=256, vector=1024) | mask_trunk(256, 256) | transfer(5120, 2, 256) | mlp(256, 28)
    assert every["mask_mlp_logits_raw_w"] == (784, 200_704)
    blobs = random_tensors(every)
    path = tmp_path / "model_final.pkl"
    cfg = CFG.replace("[1, 3]", "[0.5, 1, 2]")
    path.write_bytes(python2_pickle({"blobs": blobs, "cfg": cfg}))
    imported = import_file("detectron", ImportRequest(path), tmp_path / "model")
    assert imported.config.model.roi.mask_size == 14
    kernel = imported.model.mask.head.branches[0].dense.kernel
    assert kernel.shape == (200_704, 784)
    # Row: y, x, channel of the map; in the file: channel, y, x.
    source = blobs["mask_mlp_logits_raw_w"].reshape(784, 256, 28, 28)
    np.testing.assert_array_equal(kernel.numpy().reshape(28, 28, 256, 784)[3, 5, 7], source[:, 7, 3, 5])
    again = io.load(tmp_path / "model").model
    np.testing.assert_array_equal(again.mask.prepare()[0], imported.model.mask.prepare()[0])
