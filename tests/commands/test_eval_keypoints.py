"""`maskx eval` of a model with keypoints: the table, the results file, and pycocotools on that file."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskx_tf.cli import run
from tests.commands.test_eval import SETTINGS
from tests.data.samples import coco_keypoints, coco_keypoints_data
from tests.models.small import predict_eagerly

NAMES = coco_keypoints_data()["categories"][1]["keypoints"]
KEYPOINT = {"use": True, "names": NAMES, "flip": [["left_hand", "right_hand"]], "convs": 1, "channels": 16}
WHERE = ["--images", "images", "--annotations", "keypoints.json"]


def write_recipe(**keypoint: object) -> None:
    model = {**SETTINGS["model"], "family": "mask_rcnn", "keypoint": {**KEYPOINT, **keypoint}}
    settings = {**SETTINGS, "model": model}
    settings["evaluate"] = {"score": 0.0, "sigmas": [0.9] * 4}  # so that random weights are not wholly wrong
    Path("recipe.yaml").write_text(json.dumps(settings))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    predict_eagerly(monkeypatch)
    coco_keypoints(tmp_path)
    monkeypatch.chdir(tmp_path)
    write_recipe()
    return tmp_path


def test_evaluation_of_keypoints(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keras.utils.set_random_seed(2)  # with other weights no keypoint might be near enough
    assert run(["eval", "recipe.yaml", *WHERE, "--out", "out", "--per-class"]) == 0
    lines = capsys.readouterr().out.splitlines()
    heads = [line.split()[0] for line in lines if " AP50 " in line and "by class" not in line]
    assert heads == ["box", "mask", "keypoint"]
    (table,) = [line.split() for line in lines if line.startswith("keypoint ")]
    assert table == ["keypoint", "AP", "AP50", "AP75", "APm", "APl", "AR"]
    figures = json.loads(Path("out/metrics.json").read_text())
    found = figures["groups"]["keypoint"]["all"]
    assert [one["name"] for one in figures["classes"]["keypoint"]] == ["person"]
    results = json.loads(Path("out/results.json").read_text())
    assert results
    assert all(len(one["keypoints"]) == 12 for one in results)

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = coco_keypoints_data()
        for one in truth.dataset["annotations"]:
            filled = {"keypoints": [0] * 12, "area": one["bbox"][2] * one["bbox"][3]}
            if one.get("segmentation"):
                filled["area"] = sum(one["segmentation"]["counts"][1::2])
            one |= {**filled, **one} if one.get("keypoints") else {**one, **filled}
            one["num_keypoints"] = int((np.array(one["keypoints"][2::3]) > 0).sum())
        truth.createIndex()
        kept = ("image_id", "category_id", "score", "keypoints")
        run_by_hand = COCOeval(truth, truth.loadRes([{key: one[key] for key in kept} for one in results]), "keypoints")
        run_by_hand.params.kpt_oks_sigmas = np.array([0.9] * 4)
        run_by_hand.params.catIds = [1]
        run_by_hand.evaluate()
        run_by_hand.accumulate()
        run_by_hand.summarize()
    expected = [None if value == -1 else pytest.approx(value, abs=1e-12) for value in run_by_hand.stats.tolist()]
    assert list(found.values()) == expected
    assert found["AR50"] > 0

    assert run(["report", "out", "--out", "page.html"]) == 0
    page = Path("page.html").read_text()
    assert "<h3>Keypoint</h3>" in page
    assert "No pictures" not in page


def test_keypoints_of_other_data(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_recipe(names=["nose", "tail"], flip=[])
    assert run(["eval", "recipe.yaml", *WHERE]) == 2
    said = "expected the model's 2 keypoints, such as nose, tail, found 4, such as head, left_hand, right_hand"
    assert capsys.readouterr().err.strip().endswith(f"keypoints.json: {said}")
