"""`maskx import`: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from maskx_tf import cli
from maskx_tf.checkpoints import io
from maskx_tf.commands.import_ import describe
from maskx_tf.importers.published import PublishedFile
from maskx_tf.tasks import models
from tests.importers.conftest import start_with_zeros
from tests.importers.files import python2_pickle, random_tensors
from tests.importers.test_detectron import detector


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    start_with_zeros(monkeypatch)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.run(["import", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err.removeprefix("maskx: error: ").rstrip("\n")


def test_a_file_becomes_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    blobs = random_tensors(detector(4))
    blobs["conv1_w_momentum"] = np.zeros(1, np.float32)
    Path("model.pkl").write_bytes(python2_pickle({"blobs": blobs, "cfg": "TEST: {NMS: 0.4}"}))
    Path("names.txt").write_text("кот\npurple dog\nx\n", encoding="utf-8")
    arguments = ["import", "detectron", "model.pkl", "--out", "model", "--classes", "names.txt", "--json"]
    assert cli.run([*arguments, "model.detections.score=0.3"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["out"], summary["family"], summary["classes"]) == ("model", "faster_rcnn", 3)
    assert summary["skipped"]["momentum of the optimizer"] == ["conv1_w_momentum"]
    assert summary["conventions"]["model.anchors.rounding"] == "detectron"
    text = describe(summary)
    assert text.startswith("wrote model: faster_rcnn, resnet50, 3 classes\n")
    assert f"\ntensors used: {len(blobs) - 1}\n" in text
    assert "\nleft out: conv1_w_momentum: momentum of the optimizer\n" in text
    assert "\n  model.detections.nms_iou = 0.4\n" in text
    assert "\n- boxes are inclusive at the source" in text
    loaded = io.open_model("model")
    assert loaded.config.model.class_names == ("кот", "purple dog", "x")
    assert loaded.config.model.detections.score == 0.3
    assert loaded.meta["source"] == {
        "program": "detectron",
        "file": "model.pkl",
        "bytes": Path("model.pkl").stat().st_size,
    }


def test_published_weights_become_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows a name is a setting, not a file."""
    monkeypatch.setenv("MASKX_HOME", "home")
    file = PublishedFile("detectron", "http://127.0.0.1:9/model.pkl", "")
    monkeypatch.setattr(models, "lookup", lambda name: file)
    file.path.parent.mkdir(parents=True)
    file.path.write_bytes(python2_pickle({"blobs": random_tensors(detector(2))}))
    assert cli.run(["import", "detectron2:any", "model.detections.score=0.3", "--out", "model"]) == 0
    config = io.open_model("model").config
    assert config.model.detections.score == 0.3


def test_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert fails(capsys, "detectron2", "none.pkl", "--out", "a").startswith("none.pkl: cannot be read: ")
    Path("empty.pkl").touch()
    Path("photos").mkdir()
    Path("photos/a.jpg").touch()
    assert fails(capsys, "detectron2", "empty.pkl", "--out", "photos").endswith("model folder to replace, found a.jpg")
    assert "cut short, damaged or no pickle" in fails(capsys, "torchvision", "empty.pkl", "--out", "a")
    assert fails(capsys, "torchvision", "empty.pkl").startswith("Missing option '--out'")
    assert fails(capsys, "torchvision", "--out", "a") == "Missing argument 'FILE'"
    assert fails(capsys, "torchvision:maskrcnn", "--out", "a").startswith("torchvision:maskrcnn: no published weights")
    assert "is not one of" in fails(capsys, "caffe", "empty.pkl", "--out", "a")
    assert not Path("a").exists()
