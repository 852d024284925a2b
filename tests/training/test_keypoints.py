"""What holds of the keypoint branch through real steps of the optimizer, and what it can learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from maskx_tf import cli
from maskx_tf.checkpoints import io
from maskx_tf.config import load
from maskx_tf.synthetic import generate
from maskx_tf.synthetic.parameters import Recipe
from maskx_tf.training import fit
from tests.training import runs

KEYPOINT = "model.keypoint={use: true, convs: 1, channels: 16}"


@pytest.mark.slow
def test_keypoint_stage_changes_the_keypoint_branch_alone(tmp_path: Path) -> None:
    """By the command, on a detector that another run trained; the data say what the keypoints are."""
    data = tmp_path / "data"
    generate.generate(Recipe(images=20, size=64, classes=24, a=17), data, workers=1, keypoints=True)
    recipe, detector, points = runs.recipe(tmp_path, data), tmp_path / "detector", tmp_path / "points"
    few = ["model.family=faster_rcnn", "train.steps=2", "train.batch=2"]
    assert cli.run(["train", str(recipe), *few, "--out", str(detector)]) == 0
    start = [f"train.weights={detector}", "train.stage=keypoint", "train.keypoint_weight=2", KEYPOINT]
    assert cli.run(["train", str(recipe), *few, *start, "--out", str(points)]) == 0
    config = load(points / "config.yaml")
    assert len(config.model.keypoint.names) == 4
    assert len(config.model.keypoint.skeleton) > 0
    before = {variable.path: variable.numpy() for variable in io.open_model(detector).model.weights}
    after = {variable.path: variable.numpy() for variable in io.open_model(points).model.weights}
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name], err_msg=name)
    fresh = {variable.path: variable.numpy() for variable in fit.compiled(config).weights}
    added = set(after) - set(before)
    assert {name.split("/")[0] for name in added} == {"keypoint_head"}
    assert all(not np.array_equal(fresh[name], after[name]) for name in added)
    line = (points / "log.csv").read_text().splitlines()
    values = dict(zip(line[0].split(","), line[1].split(","), strict=True))
    assert float(values["loss"]) == pytest.approx(2 * float(values["loss_keypoint"]), rel=1e-3)


@pytest.mark.slow
def test_eight_images_are_learned_by_heart(tmp_path: Path) -> None:
    """8 scenes on a canvas of 128, 4 images a step, 1500 steps: keypoints and boxes > .9, masks of A > .8."""
    data = tmp_path / "data"
    generate.generate(Recipe(images=20, size=128, classes=24, a=17), data, workers=1, keypoints=True)
    path = data / "instances_train.json"
    whole = json.loads(path.read_text())
    whole["images"] = whole["images"][:8]
    kept = {image["id"] for image in whole["images"]}
    whole["annotations"] = [one for one in whole["annotations"] if one["image_id"] in kept]
    path.write_text(json.dumps(whole))
    overrides = [
        "model.family=mask_rcnn",
        "model.input={canvas: [128, 128], short_side: 128, long_side: 128}",
        "model.backbone.fpn_channels=64",
        "model.box.rois=64",
        "model.box.width=256",
        "model.mask={channels: 64, convs: 2}",
        "model.keypoint={use: true, convs: 4, channels: 64}",
        "model.anchors={sizes: [[12], [24], [48], [72], [100]]}",
        "model.rpn={pre_nms_train: 300, pre_nms_test: 300, post_nms_train: 200, post_nms_test: 50, samples: 128}",
        "model.detections.limit=20",
        f"data.val=[{{images: {data / 'train'}, annotations: {path}}}]",
        "data.flip=false",
        "train.rate=0.02",
        "train.steps=1500",
        "train.warm_up={steps: 50, start: 0.1}",
        "train.schedule=cosine",
        "train.clip_norm=10.0",
        "train.weight_decay=0",
        "train.checkpoint_every=1500",
        "train.log_every=100",
    ]
    out = tmp_path / "run"
    assert cli.run(["train", str(runs.recipe(tmp_path, data)), *overrides, "--out", str(out)]) == 0
    figures = json.loads((out / "summary.json").read_text())["figures"]
    print(figures)
    assert figures["keypoint/all/AP"] > 0.9
    assert figures["box/all/AP"] > 0.9
    assert figures.get("mask/A/AP", figures.get("mask/all/AP")) > 0.8
