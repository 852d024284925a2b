"""detectron2's files: made up, with every name and shape of spec/mask_rcnn.md, section 8; the heads are narrow."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.checkpoints.settings import resolve
from maskx_tf.errors import BadInput
from maskx_tf.importers.detectron2 import plan
from maskx_tf.importers.plan import ImportRequest
from maskx_tf.importers.run import convert
from maskx_tf.names import COCO
from tests.importers import transcription
from tests.importers.files import Tensors, layers, random_tensors, resnet_shapes

NORM = (".weight", ".bias", ".running_mean", ".running_var")
R50, R101 = (3, 4, 6, 3), (3, 4, 23, 3)
RPN = "proposal_generator.rpn_head"


def shapes(neck: str, classes: int = 80, blocks: tuple[int, ...] = R50, **options: Any) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a Mask R-CNN; foreground classes, as the file's boxes and masks have them."""

    def names(stage: int, block: int, part: str) -> tuple[str, str]:
        body = "backbone.bottom_up" if neck == "fpn" else "backbone"
        if neck == "c4" and stage == 5:
            body = "roi_heads"
        conv = f"{body}.stem.conv1" if part == "stem" else f"{body}.res{stage}.{block}.{part}"
        return f"{conv}.weight", f"{conv}.norm"

    channels = {"fpn": 5, "c4": 1024, "dc5": 2048}[neck]
    anchors = 3 if neck == "fpn" else 15
    heads: dict[str, tuple[int, ...]] = {}
    if neck == "fpn":
        heads |= {f"backbone.fpn_lateral{level}": (5, 64 << level, 1, 1) for level in range(2, 6)}
        heads |= {f"backbone.fpn_output{level}": (5, 5, 3, 3) for level in range(2, 6)}
    heads[f"{RPN}.conv"] = (channels, channels, 3, 3)
    heads[f"{RPN}.objectness_logits"] = (anchors, channels, 1, 1)
    heads[f"{RPN}.anchor_deltas"] = (4 * anchors, channels, 1, 1)
    vector = 2048 if neck == "c4" else 6
    if neck != "c4":
        heads |= {"roi_heads.box_head.fc1": (6, channels * 49), "roi_heads.box_head.fc2": (6, 6)}
    heads["roi_heads.box_predictor.cls_score"] = (classes + 1, vector)
    heads["roi_heads.box_predictor.bbox_pred"] = (4 * classes, vector)
    convs = 0 if neck == "c4" else 4
    for index in range(convs):
        heads[f"roi_heads.mask_head.mask_fcn{index + 1}"] = (4, channels if index == 0 else 4, 3, 3)
    found = resnet_shapes(blocks, names, NORM, **options) | layers(heads)
    found["roi_heads.mask_head.deconv.weight"] = (2048 if neck == "c4" else 4, 4, 2, 2)
    found["roi_heads.mask_head.deconv.bias"] = (4,)
    return found | layers({"roi_heads.mask_head.predictor": (classes, 4, 1, 1)})


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    return random_tensors(shapes("fpn"))


def layer(tensors: Tensors, name: str) -> tuple[np.ndarray, np.ndarray]:
    return tensors[f"{name}.weight"], tensors[f"{name}.bias"]


def test_heads_against_numpy(tensors: Tensors, put: Callable[[Any], Path]) -> None:
    imported = convert("detectron2", ImportRequest(put({"model": tensors, "__author__": "made up"})))
    model, generator = imported.model, np.random.default_rng(5)
    assert imported.config.model.class_names == COCO
    assert (imported.meta["used"], imported.meta["skipped"]) == (len(tensors), {})

    pooled = generator.standard_normal((3, 5, 7, 7)).astype(np.float32)
    heads = [layer(tensors, f"roi_heads.box_head.fc{index}") for index in (1, 2)]
    vectors = transcription.box_head(pooled, heads)
    ours = model.box.head(pooled.transpose(0, 2, 3, 1)[None])
    np.testing.assert_allclose(ours[0], vectors, atol=1e-5)
    scores = transcription.dense(vectors, layer(tensors, "roi_heads.box_predictor.cls_score"))
    rolled = np.concatenate([scores[:, 80:], scores[:, :80]], axis=1)  # the background comes first with us
    np.testing.assert_allclose(model.box.predictor(ours)[0], rolled, atol=1e-5)
    deltas = transcription.dense(vectors, layer(tensors, "roi_heads.box_predictor.bbox_pred")).reshape(3, 80, 4)
    classes = tf.constant([[1, 80, 17]])
    expected = deltas[np.arange(3), [0, 79, 16]]
    np.testing.assert_allclose(model.box.predictor.deltas(ours, classes)[0], expected, atol=1e-5)

    pooled = generator.standard_normal((3, 5, 14, 14)).astype(np.float32)
    convs = [layer(tensors, f"roi_heads.mask_head.mask_fcn{index}") for index in (1, 2, 3, 4)]
    features = transcription.mask_features(pooled, convs, layer(tensors, "roi_heads.mask_head.deconv"))
    filters, bias = layer(tensors, "roi_heads.mask_head.predictor")
    masks = transcription.all_masks(features, filters[:, :, 0, 0]) + bias[:, None, None]
    found = model.mask.logits(pooled.transpose(0, 2, 3, 1)[None], classes, model.mask.prepare())
    np.testing.assert_allclose(found[0], masks[np.arange(3), [0, 79, 16]], atol=1e-5)

    level = generator.standard_normal((1, 5, 4, 6)).astype(np.float32)
    hidden = transcription.relu(transcription.conv(level, layer(tensors, f"{RPN}.conv")))
    logits, deltas = model.rpn.head([level.transpose(0, 2, 3, 1)])
    expected = transcription.conv(hidden, layer(tensors, f"{RPN}.objectness_logits"))  # [1, 3, H, W]
    np.testing.assert_allclose(logits[0], expected.transpose(0, 2, 3, 1).reshape(1, -1), atol=1e-5)
    expected = transcription.conv(hidden, layer(tensors, f"{RPN}.anchor_deltas"))  # anchor * 4 + coordinate
    np.testing.assert_allclose(deltas[0], expected.transpose(0, 2, 3, 1).reshape(1, -1, 4), atol=1e-5)


def test_conventions(tensors: Tensors, put: Callable[[Any], Path]) -> None:
    settings = plan(ImportRequest(put({"model": tensors}))).settings
    assert settings["backbone"] == {
        "name": "resnet50",
        "neck": "fpn",
        "norm_epsilon": 1e-5,
        "stride_in_1x1": True,
        "fpn_channels": 5,
    }
    assert settings["input"]["channel_order"] == "bgr"
    assert settings["input"]["pixel_mean"] == [103.53, 116.28, 123.675]
    assert settings["input"]["pixel_std"] == [1.0, 1.0, 1.0]
    assert settings["anchors"] == {"rounding": "none", "order": "size_major"}
    assert (settings["roi"]["aligned"], settings["roi"]["samples"]) == (True, 0)
    assert settings["detections"]["paste"] == "continuous"


def empty(every: dict[str, tuple[int, ...]]) -> Tensors:
    return {key: np.broadcast_to(np.float32(0), shape) for key, shape in every.items()}  # no memory


def assert_complete(found: Any, every: dict[str, tuple[int, ...]]) -> None:
    config = resolve({"model": {**found.settings, "class_names": list(found.labels.names)}})
    tensors = [entry.tensor for entry in found.table(config.model).entries]
    assert sorted(tensors) == sorted(every)


def test_resnext(put: Callable[[Any], Path]) -> None:
    every = shapes("fpn", 80, R101, groups=32, group_width=8)
    found = plan(ImportRequest(put({"model": empty(every)})))
    assert found.settings["backbone"]["name"] == "resnext101_32x8d"
    assert found.settings["backbone"]["stride_in_1x1"] is False
    assert found.settings["input"]["pixel_std"] == [57.375, 57.12, 58.395]
    assert_complete(found, every)


def test_pixels_of_the_file_win(tensors: Tensors, put: Callable[[Any], Path]) -> None:
    buffers = {
        "pixel_mean": np.float32([103.53, 116.28, 1.5]).reshape(3, 1, 1),
        "pixel_std": np.float32([57.375, 1, 2]).reshape(3, 1, 1),
    }
    found = plan(ImportRequest(put({"model": {**tensors, **buffers}})))
    assert found.settings["input"]["pixel_mean"] == [103.53, 116.28, 1.5]
    assert found.settings["input"]["pixel_std"] == [57.375, 1.0, 2.0]


@pytest.mark.parametrize("neck", ["c4", "dc5"])
def test_other_necks(neck: str, put: Callable[[Any], Path]) -> None:
    every = shapes(neck)
    found = plan(ImportRequest(put({"model": empty(every)})))
    assert found.settings["backbone"]["neck"] == neck
    assert found.settings["mask"]["convs"] == (0 if neck == "c4" else 4)
    assert found.settings["anchors"]["sizes"] == [[32.0, 64.0, 128.0, 256.0, 512.0]]
    assert_complete(found, every)


@pytest.mark.parametrize("neck", ["c4", pytest.param("dc5", marks=pytest.mark.slow)])
def test_other_necks_fill_a_model(neck: str, put: Callable[[Any], Path]) -> None:
    every = shapes(neck)
    imported = convert("detectron2", ImportRequest(put({"model": empty(every)})))
    assert imported.meta["used"] == len(every)


@pytest.mark.parametrize(("neck", "expected"), [("fpn", 3), ("c4", 15)])
def test_other_anchors_are_named_as_such(neck: str, expected: int, put: Callable[[Any], Path]) -> None:
    every = empty(shapes(neck) | {f"{RPN}.objectness_logits.weight": (4, 5, 1, 1)})
    with pytest.raises(
        BadInput, match=f"logits.weight: expected {expected} anchors a cell, of 3 ratios and .*, found 4;"
    ):
        convert("detectron2", ImportRequest(put({"model": every})))


def test_agnostic_boxes_and_masks(put: Callable[[Any], Path]) -> None:
    every = shapes("fpn")
    every |= layers({"roi_heads.box_predictor.bbox_pred": (4, 6), "roi_heads.mask_head.predictor": (1, 4, 1, 1)})
    found = plan(ImportRequest(put({"model": empty(every)})))
    assert found.settings["box"]["class_agnostic"] is True
    assert found.settings["mask"]["outputs"] == "agnostic"
    assert_complete(found, every)


def test_files_of_the_zoo(tensors: Tensors, tmp_path: Path) -> None:
    # Without the larger half of the backbone, which a plan does not look at.
    tensors = {name: array for name, array in tensors.items() if not re.search(r"conv[13]\.weight|shortcut", name)}
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps({"model": tensors, "__author__": "made up"}, 2))
    found = plan(ImportRequest(tmp_path / "zoo.pkl")).tensors
    assert set(found) == set(tensors)
    assert all(np.array_equal(found[name], array) for name, array in tensors.items())


def test_keypoints(put: Callable[[Any], Path]) -> None:
    """Three keypoints, whose names no file says; the deconvolution's weights have its inputs first."""
    heads = {f"roi_heads.keypoint_head.conv_fcn{index}": (4, 5 if index == 1 else 4, 3, 3) for index in (1, 2)}
    extra: dict[str, tuple[int, ...]] = layers(heads)
    extra |= {"roi_heads.keypoint_head.score_lowres.weight": (4, 3, 4, 4)}
    extra |= {"roi_heads.keypoint_head.score_lowres.bias": (3,)}
    tensors = random_tensors(shapes("fpn", classes=1) | extra)
    imported = convert("detectron2", ImportRequest(put({"model": tensors, "__author__": "made up"})))
    settings = imported.config.model
    assert settings.class_names == ("person",)
    assert settings.keypoint.names == ("keypoint 1", "keypoint 2", "keypoint 3")
    assert (settings.keypoint.convs, settings.keypoint.channels, settings.keypoint.score) == (2, 4, "probability")
    assert settings.box.smooth_l1_beta == 0.5
    assert imported.meta["used"] == len(tensors)
    head = imported.model.branch("keypoint").layers()[0]
    theirs = tensors["roi_heads.keypoint_head.score_lowres.weight"]
    for index in np.ndindex(*theirs.shape):
        assert head.deconv_kernel[index[2], index[3], index[1], index[0]] == theirs[index]
    np.testing.assert_array_equal(head.deconv_bias, tensors["roi_heads.keypoint_head.score_lowres.bias"])


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("roi_heads.box_head.0.fc1.weight", "a Cascade R-CNN"),
        ("sem_seg_head.p2.0.weight", "a panoptic model"),
        ("head.cls_score.weight", "a RetinaNet"),
        ("backbone.fpn_lateral2.norm.weight", "a model with normalisation in its pyramid or heads"),
        ("roi_heads.mask_head.mask_fcn1.norm.weight", "a model with normalisation in its pyramid or heads"),
        ("roi_heads.box_head.conv1.weight", "a box head of convolutions"),
        ("backbone.body.conv1.weight", "a torchvision model, by this source,"),
        ("res2_0_branch2a_w", "a Detectron model, by this source,"),
    ],
)
def test_unsupported(name: str, problem: str, put: Callable[[Any], Path]) -> None:
    path = put({"model": {name: np.zeros(1, np.float32)}})
    with pytest.raises(BadInput) as caught:
        plan(ImportRequest(path))
    assert str(caught.value) == f"{path}: {name}: {problem} cannot be imported"
