"""torchvision's files: the oracle's weights in every form of file, and what is noted and refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from maskx_tf.checkpoints import npz
from maskx_tf.checkpoints.settings import resolve
from maskx_tf.checkpoints.variables import named
from maskx_tf.errors import BadInput
from maskx_tf.importers import tables
from maskx_tf.importers.plan import ImportRequest
from maskx_tf.importers.run import Imported, convert
from maskx_tf.importers.torchvision import plan
from maskx_tf.models.build import build
from maskx_tf.names import COCO_IDS
from maskx_tf.ops import images
from tests import oracle
from tests.importers.files import Tensors, layers, random_tensors, resnet_shapes, write_safetensors, write_torch

SIZE = ("model.input.canvas=[256, 256]", "model.input.short_side=256", "model.input.long_side=256")
NORM = (".weight", ".bias", ".running_mean", ".running_var")


def block_names(stage: int, block: int, part: str) -> tuple[str, str]:
    if part == "stem":
        return "backbone.body.conv1.weight", "backbone.body.bn1"
    home = f"backbone.body.layer{stage - 1}.{block}"
    if part == "shortcut":
        return f"{home}.downsample.0.weight", f"{home}.downsample.1"
    return f"{home}.{part}.weight", f"{home}.bn{part[-1]}"


def shapes(classes: int, blocks: tuple[int, ...] = (3, 4, 6, 3), **options: Any) -> dict[str, tuple[int, ...]]:
    """Names and shapes of spec/mask_rcnn.md, section 8; the pyramid and the heads are narrow."""
    heads = {f"backbone.fpn.inner_blocks.{level}.0": (5, 256 << level, 1, 1) for level in range(4)}
    heads |= {f"backbone.fpn.layer_blocks.{level}.0": (5, 5, 3, 3) for level in range(4)}
    heads |= {"rpn.head.conv.0.0": (5, 5, 3, 3), "rpn.head.cls_logits": (3, 5, 1, 1)}
    heads |= {"rpn.head.bbox_pred": (12, 5, 1, 1), "roi_heads.box_head.fc6": (6, 5 * 49)}
    heads |= {"roi_heads.box_head.fc7": (6, 6), "roi_heads.box_predictor.cls_score": (classes, 6)}
    heads |= {"roi_heads.box_predictor.bbox_pred": (4 * classes, 6)}
    heads |= {f"roi_heads.mask_head.{index}.0": (4, 5 if index == 0 else 4, 3, 3) for index in range(4)}
    heads |= {"roi_heads.mask_predictor.conv5_mask": (4, 4, 2, 2)}
    heads |= {"roi_heads.mask_predictor.mask_fcn_logits": (classes, 4, 1, 1)}
    return resnet_shapes(blocks, block_names, NORM, **options) | layers(heads)


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    """A COCO model of torchvision's, with narrow heads."""
    return random_tensors(shapes(91))


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    """Written over a model whose weights are all 7."""
    path = tmp_path_factory.mktemp("oracle") / "weights.pth"
    extra = {"backbone.body.bn1.num_batches_tracked": np.array(3)}
    write_torch(path, {**oracle.weights(), **extra})
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RandomNormal", "VarianceScaling", "Zeros", "Ones"):
            patch.setattr(getattr(keras.initializers, name), "__call__", keras.initializers.Constant(7.0).__call__)
        return convert("torchvision", ImportRequest(path, SIZE))


@oracle.needs_oracle
def test_every_variable_is_set(imported: Imported) -> None:
    found = named(imported.model)
    assert list(found) == list(named(build(imported.config.model)))
    for name, variable in found.items():
        ours = variable.numpy()
        assert np.isfinite(ours).all(), name
        assert (ours != 7).any(), name
    assert imported.meta["used"] == len(oracle.weights())
    assert imported.meta["fresh"] == []
    assert imported.meta["skipped"] == {
        "counters of batch norm: they play no part in inference": ["backbone.body.bn1.num_batches_tracked"],
        tables.BACKGROUND: [
            f"roi_heads.{layer}.{end}"
            for layer in ("box_predictor.bbox_pred", "mask_predictor.mask_fcn_logits")
            for end in ("weight", "bias")
        ],
    }


@pytest.mark.slow  # by default, tests/models/test_oracle_models.py asks the same of a model from the same importer
@oracle.needs_oracle
def test_detections_are_torchvisions(imported: Imported) -> None:
    stored = oracle.outputs()
    pixels, size = images.letterbox(stored["a/image_uint8"], canvas=(256, 256), short_side=256, long_side=256)
    features = imported.model.features(pixels[None], size[None])
    for level, ours in enumerate(features, start=2):
        expected = oracle.nhwc(f"a/p{level}_every16th_channel")
        np.testing.assert_allclose(ours[..., ::16], expected, atol=1e-3 * np.abs(expected).max())
    found = imported.model({"images": pixels[None], "image_sizes": size[None]})
    ours, theirs = oracle.matched_pairs(
        found.boxes[0].numpy(), stored["a/det_boxes_resized"], found.classes[0].numpy(), stored["a/labels"]
    )
    assert len(ours) == len(stored["a/labels"])
    np.testing.assert_allclose(found.scores[0].numpy()[ours], stored["a/scores"][theirs], atol=1e-3)
    masks = stored["a/det_masks28"].reshape(-1, 28, 28)[theirs]
    np.testing.assert_allclose(found.masks[0].numpy()[ours], masks, atol=1e-2)


def test_forms_of_files_agree(tensors: Tensors, tmp_path: Path) -> None:
    """The third form, .pth, is the one that is imported above."""
    npz.write(tmp_path / "a.npz", tensors.items())
    write_safetensors(tmp_path / "b.safetensors", tensors)
    for path in tmp_path.iterdir():
        found = plan(ImportRequest(path)).tensors
        assert set(found) == set(tensors)
        for name, array in tensors.items():
            np.testing.assert_array_equal(found[name], array, err_msg=path.name)


def older(tensors: Tensors) -> Tensors:
    """The same under the names before torchvision 0.13."""
    renamed = {}
    for name, array in tensors.items():
        name = re.sub(r"(_blocks\.\d)\.0\.", r"\1.", name).replace("rpn.head.conv.0.0", "rpn.head.conv")
        match = re.match(r"roi_heads\.mask_head\.(\d)\.0\.(\w+)", name)
        renamed[f"roi_heads.mask_head.mask_fcn{int(match[1]) + 1}.{match[2]}" if match else name] = array
    return renamed


def test_older_names(tensors: Tensors, put: Callable[[Any], Path]) -> None:
    assert not set(older(tensors)) >= set(tensors)
    modern, old = plan(ImportRequest(put(tensors))), plan(ImportRequest(put(older(tensors))))
    assert set(old.tensors) == set(modern.tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(old.tensors[name], array)
    assert modern.settings["backbone"]["norm_epsilon"] == 1e-5
    assert 0 < old.settings["backbone"]["norm_epsilon"] < 1e-20
    assert "model.backbone.norm_epsilon=1e-5" in old.notes[0]
    assert "model.backbone.norm_epsilon=1e-30" in modern.notes[0]
    old_variance = np.float32(1e-12) + np.float32(old.settings["backbone"]["norm_epsilon"])
    assert old_variance == np.float32(1e-12)


def test_coco_loses_its_unused_ids(tensors: Tensors, put: Callable[[Any], Path]) -> None:
    imported = convert("torchvision", ImportRequest(put(tensors)))
    variables = named(imported.model)
    assert imported.config.model.class_names == tuple(COCO_IDS.values())
    assert imported.meta["category_ids"] == list(COCO_IDS)
    ids = list(COCO_IDS)
    scores, boxes = (tensors[f"roi_heads.box_predictor.{name}.weight"] for name in ("cls_score", "bbox_pred"))
    masks = tensors["roi_heads.mask_predictor.mask_fcn_logits.weight"]
    assert (ids[11], COCO_IDS[13]) == (13, "stop sign")  # the first id behind an unused one
    for index, number in enumerate(ids):
        np.testing.assert_array_equal(variables["box_predictor/class_rows"][index + 1], scores[number])
        np.testing.assert_array_equal(variables["box_predictor/box_rows"][index], boxes[4 * number : 4 * number + 4])
        np.testing.assert_array_equal(variables["mask_head/predictor/rows"][index], masks[number, :, 0, 0])
    np.testing.assert_array_equal(variables["box_predictor/class_rows"][0], scores[0])


def test_all_ids(tensors: Tensors, put: Callable[[Any], Path], tmp_path: Path) -> None:
    path = put(tensors)
    every = plan(ImportRequest(path, all_ids=True))
    assert len(every.labels.names) == 90
    assert every.labels.names[11:13] == ("unused 12", "stop sign")
    own = tmp_path / "names.txt"
    own.write_text("\n".join(f"thing {index}" for index in range(90)))
    assert plan(ImportRequest(path, classes=own)).labels.names[-1] == "thing 89"
    own.write_text("\n".join(f"thing {index}" for index in range(80)))
    assert plan(ImportRequest(path, classes=own)).labels.category_ids == tuple(COCO_IDS)
    own.write_text("one\ntwo\n")
    with pytest.raises(BadInput, match=r"names.txt: names 2 classes, expected the 80 of "):
        plan(ImportRequest(path, classes=own))


def test_facts_that_shapes_tell(put: Callable[[Any], Path], tmp_path: Path) -> None:
    some = random_tensors(shapes(4))
    own = tmp_path / "names.json"
    own.write_text('{"categories": [{"id": 7, "name": "b"}, {"id": 5, "name": "a"}, {"id": 9, "name": "c"}]}')
    found = plan(ImportRequest(put(some), classes=own))
    assert found.labels == (("a", "b", "c"), (5, 7, 9))
    assert found.settings["family"] == "mask_rcnn"
    assert found.settings["backbone"]["name"] == "resnet50"
    assert found.settings["backbone"]["fpn_channels"] == 5
    assert (found.settings["box"]["width"], found.settings["roi"]["box_size"]) == (6, 7)
    assert found.settings["mask"] == {"convs": 4, "channels": 4}
    assert (found.settings["input"]["rounding"], found.settings["roi"]["samples"]) == ("torchvision", 2)
    boxes = {name: array for name, array in some.items() if ".mask_" not in name}
    found = plan(ImportRequest(put(boxes)))
    assert found.settings["family"] == "faster_rcnn"
    assert found.labels.names == ("class 1", "class 2", "class 3")


@pytest.mark.parametrize(
    ("name", "blocks", "groups", "width"),
    [
        ("resnet101", (3, 4, 23, 3), 1, 64),
        ("resnet152", (3, 8, 36, 3), 1, 64),
        ("resnext101_32x8d", (3, 4, 23, 3), 32, 8),
        ("resnext101_64x4d", (3, 4, 23, 3), 64, 4),
    ],
)
def test_backbones(name: str, blocks: tuple[int, ...], groups: int, width: int, put: Callable[[Any], Path]) -> None:
    every = shapes(4, blocks, groups=groups, group_width=width)
    empty = {key: np.broadcast_to(np.float32(0), shape) for key, shape in every.items()}  # no memory
    found = plan(ImportRequest(put(empty)))
    assert found.settings["backbone"]["name"] == name
    assert {entry.tensor for entry in found.table(config_of(found)).entries} == set(every)


def config_of(found: Any) -> Any:
    return resolve({"model": {**found.settings, "class_names": list(found.labels.names)}}).model


def without(name: str) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.pop(name)


def having(name: str, *shape: int, kind: type = np.float32) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.update({name: np.zeros(shape, kind)})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (without("rpn.head.cls_logits.bias"), "expected a tensor rpn.head.cls_logits.bias, found none"),
        (without("backbone.body.layer2.1.bn2.running_var"), "expected a tensor backbone.body.layer2.1.bn2.running_var"),
        (
            without("roi_heads.box_predictor.cls_score.weight"),
            "expected a tensor roi_heads.box_predictor.cls_score.weight",
        ),
        (having("rpn.head.more", 3), "holds rpn.head.more, for which this model has no place"),
        (
            having("roi_heads.box_head.fc7.weight", 7, 6),
            "roi_heads.box_head.fc7.weight: expected shape [6, 6], found [7, 6]",
        ),
        (
            having("roi_heads.box_predictor.bbox_pred.weight", 12, 6),
            "roi_heads.box_predictor.bbox_pred.weight: expected shape [16, 6], found [12, 6]",
        ),
        (
            having("roi_heads.mask_predictor.mask_fcn_logits.bias", 3),
            "roi_heads.mask_predictor.mask_fcn_logits.bias: expected shape [4], found [3]",
        ),
        (
            having("rpn.head.cls_logits.weight", 15, 5, 1, 1),
            "rpn.head.cls_logits.weight: expected 3 anchors a cell, of 3 ratios and 1 sizes, found 15; set "
            "model.anchors.ratios and model.anchors.sizes as the model was trained",
        ),
        (
            having("rpn.head.bbox_pred.bias", 12, kind=np.int64),
            "rpn.head.bbox_pred.bias: expected floating point numbers, found int64",
        ),
        (
            lambda tensors: tensors.update({"rpn.head.bbox_pred.bias": np.full(12, np.nan, np.float32)}),
            "rpn.head.bbox_pred.bias: expected finite numbers, found nan",
        ),
        (
            having("roi_heads.box_head.fc6.weight", 6, 100),
            "roi_heads.box_head.fc6.weight: 100 inputs, expected a square map of 5 channels",
        ),
        (
            having("backbone.body.layer1.0.conv2.weight", 128, 128, 3, 3),
            "a ResNet of blocks (3, 4, 6, 3) whose first 3x3 convolutions have 128 channels in groups of 128",
        ),
        (having("roi_heads.box_head.5.weight", 1), "roi_heads.box_head.5.weight: a v2 model"),
        (having("head.classification_head.x", 1), "head.classification_head.x: a model without regions"),
        (having("backbone.body.0.0.weight", 1), "backbone.body.0.0.weight: a MobileNet backbone"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_tensors(
    change: Callable[[Tensors], object], problem: str, few: Tensors, reuse: None, put: Callable[[Any], Path]
) -> None:
    wrong = dict(few)
    change(wrong)
    path = put(wrong)
    with pytest.raises(BadInput) as caught:
        convert("torchvision", ImportRequest(path))
    assert str(caught.value).startswith(f"{path}: {problem}")


@pytest.fixture(scope="module")
def few() -> Tensors:
    return random_tensors(shapes(4))


def test_other_settings(few: Tensors, reuse: None, put: Callable[[Any], Path]) -> None:
    """Overrides that move the variables, and one that leaves no place for the file's tensors."""
    path = put(few)
    imported = convert("torchvision", ImportRequest(path, ("model.backbone.norm=batch", "model.detections.limit=7")))
    assert imported.meta["conventions"]["model.detections.limit"] == 7
    norm = imported.model.backbone.stages[2].blocks[1].conv2.norm_layer
    source = "backbone.body.layer3.1.bn2."
    for variable, end in ((norm.gamma, "weight"), (norm.beta, "bias"), (norm.moving_variance, "running_var")):
        np.testing.assert_array_equal(variable.numpy(), few[source + end])
    with pytest.raises(BadInput, match=r"has what belongs into mask_head/.* a model with these settings does not have"):
        convert("torchvision", ImportRequest(path, ("model.mask.head=mlp",)))
    with pytest.raises(BadInput, match="expected the ResNet of the file, found mobilenet_v2"):
        convert("torchvision", ImportRequest(path, ("model.backbone.name=mobilenet_v2",)))
    with pytest.raises(BadInput, match=r"weights: expected a tensor for mask_head/mlp_branch/fc/.*, found none"):
        convert("torchvision", ImportRequest(path, ("model.mask.mlp_branch=lean",)))


def test_other_anchors_are_settings(few: Tensors, put: Callable[[Any], Path]) -> None:
    """Five ratios, once they are named."""
    others = {
        **few,
        **random_tensors(layers({"rpn.head.cls_logits": (5, 5, 1, 1), "rpn.head.bbox_pred": (20, 5, 1, 1)})),
    }
    imported = convert("torchvision", ImportRequest(put(others), ("model.anchors.ratios=[0.3, 0.5, 1, 2, 3]",)))
    np.testing.assert_array_equal(named(imported.model)["rpn/objectness/bias"], others["rpn.head.cls_logits.bias"])


@pytest.mark.parametrize(
    ("overrides", "canvas"),
    [
        ((), (1344, 1344)),
        (SIZE[1:], (256, 256)),
        (("model.input.long_side=2000",), (2016, 2016)),
        (("model.input.long_side=900", "model.input.canvas=[640, 928]"), (640, 928)),
    ],
)
def test_canvas_fits_the_sides(
    overrides: tuple[str, ...], canvas: tuple[int, int], few: Tensors, reuse: None, put: Callable[[Any], Path]
) -> None:
    """torchvision pads an image of 800 x 1333 to 800 x 1344, and one of 1333 x 800 to 1344 x 800."""
    imported = convert("torchvision", ImportRequest(put(few), overrides))
    assert imported.config.model.input.canvas == canvas
    assert imported.meta["conventions"]["model.input.canvas"] == list(canvas)


def test_requests_that_do_not_fit(few: Tensors, reuse: None, put: Callable[[Any], Path]) -> None:
    path = put(few)
    for request, problem in (
        (ImportRequest(path, all_ids=True), f"{path}: expected 91 rows of classes to keep all ids, found 4"),
        (ImportRequest(path, without_rpn=True), "only Detectron's files may lack a region proposal network"),
        (
            ImportRequest(path, ("model.class_names=[a]",)),
            f"model.class_names: expected the 3 classes of {path}, found 1",
        ),
        (ImportRequest(path, ("model.roi.sample=1",)), "override 'model.roi.sample=1': model.roi.sample: unknown"),
    ):
        with pytest.raises(BadInput) as caught:
            convert("torchvision", request)
        assert str(caught.value).startswith(problem)
    with pytest.raises(BadInput, match="only torchvision's files have rows for all ids"):
        convert("detectron2", ImportRequest(path, all_ids=True))
