"""GrabCut's masks of boxes: as a stand-in for a model's, and as a data set to train on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from maskx_tf.checkpoints import io
from maskx_tf.cli import run
from maskx_tf.config import Config
from maskx_tf.models.build import build
from tests.commands.test_eval import SETTINGS, WHERE
from tests.masks.test_grabcut import scene

pytest.importorskip("cv2", reason="the extra grabcut is not installed")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of one picture: a disc with a wrong mask, one of another class without, and a crowd."""
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    image, _ = scene()
    Image.fromarray(np.concatenate([image, image])).save("images/a.png")
    square = [[36.0, 21.0, 40.0, 21.0, 40.0, 25.0]]
    annotations = [
        {"id": 1, "category_id": 1, "bbox": [36, 21, 48, 48], "segmentation": square},
        {"id": 2, "category_id": 2, "bbox": [36, 111, 48, 48]},
        {"id": 3, "category_id": 2, "bbox": [0, 0, 120, 180], "iscrowd": 1},
    ]
    data = {
        "images": [{"id": 5, "file_name": "a.png", "width": 120, "height": 180}],
        "annotations": [{"image_id": 5, "area": 2304, **one} for one in annotations],
        "categories": [{"id": 1, "name": "disc"}, {"id": 2, "name": "ball"}],
    }
    Path("instances.json").write_text(json.dumps(data))
    return tmp_path


def test_a_data_set_to_train_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disc = scene()[1]
    assert run(["data", "grabcut", *WHERE, "--out", "all.json"]) == 0
    assert capsys.readouterr().out == "wrote all.json: 1 images, 2 instances with masks\n"
    made = json.loads(Path("all.json").read_text())["annotations"]
    for one, top in zip(made, (0, 90), strict=False):
        mask = coco_mask.decode(one["segmentation"])[top : top + 90].astype(bool)
        assert (mask & disc).sum() / (mask | disc).sum() > 0.95
    assert "segmentation" not in made[2]
    assert run(["data", "grabcut", *WHERE, "--out", "kept.json", "--keep", "[disc]"]) == 0
    kept = json.loads(Path("kept.json").read_text())["annotations"]
    assert isinstance(kept[0]["segmentation"], list)
    assert kept[1] == made[1]


def test_mistakes_are_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "grabcut", *WHERE, "--out", "a.json", "--keep", "[dics]"]) == 2
    assert "did you mean 'disc'?" in capsys.readouterr().err
    Path("images/a.png").unlink()
    assert run(["data", "grabcut", *WHERE, "--out", "a.json"]) == 2
    assert capsys.readouterr().err == (
        "maskx: error: images/a.png: image 5 of instances.json: expected an image, found no such file\n"
    )
    assert not Path("a.json").exists()


def test_masks_of_a_model_are_refined_and_divided(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An evaluation goes on with its own detections, and never with those of other steps."""
    config = Config.model_validate(SETTINGS).with_classes(("disc", "ball"))
    io.save(build(config.model), config, "model")
    where = [*WHERE, "--boxes", "truth", "--out", "evals"]
    masks = []
    for steps in ([], ["--refine"], ["--disjoint"], ["--refine", "--disjoint"]):
        assert run(["eval", "model", *where, *steps]) == 0
        assert "going on" not in capsys.readouterr().err
        masks.append(Path("evals/results.json").read_text())
    assert json.loads(Path("evals/metrics.json").read_text())["name"].endswith("with refined masks and disjoint masks")
    assert run(["eval", "model", *where, "--refine", "--disjoint"]) == 0
    assert "going on" in capsys.readouterr().err
    assert masks[0] == masks[2]  # the boxes of the truth do not overlap


def test_at_test_time_on_the_truths_boxes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {**SETTINGS, "model": {**SETTINGS["model"], "family": "faster_rcnn"}}
    del settings["model"]["mask"]
    Path("recipe.yaml").write_text(json.dumps(settings))
    assert run(["data", "grabcut", *WHERE, "--out", "grabcut.json"]) == 0
    where = ["--images", "images", "--annotations", "grabcut.json"]
    assert run(["eval", "recipe.yaml", *where, "--boxes", "truth", "--grabcut", "--json", "m.json"]) == 0
    figures = json.loads(Path("m.json").read_text())
    assert figures["groups"]["mask"]["all"]["IoU"] == 1.0  # GrabCut's own masks
    assert "GrabCut" in figures["name"]
    capsys.readouterr()
    assert run(["eval", "recipe.yaml", *where, "--grabcut", "--refine"]) == 2
    assert "refine: expected no grabcut" in capsys.readouterr().err
    assert run(["eval", "recipe.yaml", *where, "--boxes", "truth"]) == 2
    assert "expected a model with masks" in capsys.readouterr().err
