"""GrabCut's masks of boxes: as a stand-in for a model's, and as a data set to train on."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from maskx_tf.checkpoints import io
from maskx_tf.cli import run
from maskx_tf.config import Config
from maskx_tf.data.formats.readers import DataFiles, for_evaluation, for_training
from maskx_tf.masks.paste import paste
from maskx_tf.models.build import build
from maskx_tf.tasks.models import load
from maskx_tf.tasks.pseudo import GrabCutMaker
from tests.commands.test_eval import SETTINGS, WHERE
from tests.data.samples import labelme
from tests.masks.test_grabcut import scene
from tests.models.small import predict_eagerly

pytest.importorskip("cv2", reason="the extra grabcut is not installed")
BALL = np.array([[36, 111, 84, 159]])
CUT = ["data", "pseudo", *WHERE, "--grabcut"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of one picture: a disc with a wrong mask, one of another class without, and a crowd."""
    predict_eagerly(monkeypatch)
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
    assert run([*CUT, "--out", "all.json", "--masks", "none", "--least", "0"]) == 0
    assert capsys.readouterr().out == "wrote all.json: 2 masks made, 0 as they were, 0 instances without\n"
    made = json.loads(Path("all.json").read_text())["annotations"]
    for one, top in zip(made, (0, 90), strict=False):
        mask = coco_mask.decode(one["segmentation"])[top : top + 90].astype(bool)
        assert (mask & disc).sum() / (mask | disc).sum() > 0.95
        assert one["mask_source"] == "grabcut"
        assert 0.9 < one["mask_quality"] <= 1.0
    assert "segmentation" not in made[2]
    for policy in ("[disc]", "all"):
        assert run([*CUT, "--out", "kept.json", "--masks", policy]) == 0
        kept = json.loads(Path("kept.json").read_text())["annotations"]
        assert isinstance(kept[0]["segmentation"], list)
        assert "mask_source" not in kept[0]
        assert kept[1] == made[1]


def test_masks_that_seem_wrong_are_left_out(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(Path("instances.json").read_text())
    data["annotations"][1]["bbox"] = [20, 95, 90, 80]  # of something larger than the disc
    Path("instances.json").write_text(json.dumps(data))
    assert run([*CUT, "--out", "tight.json"]) == 0
    assert capsys.readouterr().out == "wrote tight.json: 0 masks made, 1 as they were, 1 instances without\n"
    assert run([*CUT, "--out", "all.json", "--least", "0"]) == 0
    assert capsys.readouterr().out == "wrote all.json: 1 masks made, 1 as they were, 0 instances without\n"
    assert json.loads(Path("all.json").read_text())["annotations"][1]["mask_quality"] == 0.0


def test_masks_of_a_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are those of the true boxes and classes; a class that the model does not know gets none."""
    config = Config.model_validate(SETTINGS).with_classes(("cat", "ball"))
    keras.utils.set_random_seed(0)  # a mask of about half of the box
    io.save(build(config.model), config, "mine")
    data = json.loads(Path("instances.json").read_text())
    del data["annotations"][0]["segmentation"]
    Path("instances.json").write_text(json.dumps(data))
    assert run(["data", "pseudo", *WHERE, "--model", "mine", "--out", "made.json", "--least", "0"]) == 0
    assert capsys.readouterr().out == "wrote made.json: 1 masks made, 0 as they were, 1 instances without\n"
    unknown, made, crowd = json.loads(Path("made.json").read_text())["annotations"]
    assert "segmentation" not in unknown | crowd
    found = load("mine").predictor.segment(np.asarray(Image.open("images/a.png")), BALL, np.array([2]))
    mask, expected = found.masks[0], paste(found.masks, found.boxes, 180, 120)[0]
    np.testing.assert_array_equal(coco_mask.decode(made["segmentation"]), expected)
    rows, columns = (np.flatnonzero(expected.any(axis=axis)) for axis in (1, 0))
    tight = (np.ptp(rows) + 1) * (np.ptp(columns) + 1) / 48**2
    assert made["mask_quality"] == pytest.approx(tight * mask[mask >= 0.5].mean(), abs=1e-4)
    assert made["mask_source"] == "mine"
    assert run(["data", "pseudo", *WHERE, "--out", "made.json"]) == 2
    assert "expected one of --model DIR and --grabcut" in capsys.readouterr().err


def test_made_masks_are_learned_from_and_are_no_truth(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*CUT, "--out", "made.json"]) == 0
    source = DataFiles(Path("images"), Path("made.json"))
    learned = for_training([source], "all").images[0].instances
    assert [one.has_mask for one in learned] == [True, True, False]
    assert [one.mask_source for one in learned] == [None, "grabcut", None]
    said: list[str] = []
    true = for_evaluation([source], say=said.append).images[0].instances
    assert [one.has_mask for one in true] == [True, False, False]
    assert said == ["made.json: 1 masks with mask_source (grabcut) are not taken for truth"]
    Path("recipe.yaml").write_text(json.dumps(SETTINGS))
    capsys.readouterr()
    assert run(["eval", "recipe.yaml", "--images", "images", "--annotations", "made.json"]) == 0
    assert capsys.readouterr().err.count("are not taken for truth") == 1
    assert run(["data", "convert", "--images", "images", "--annotations", "made.json", "--out", "again.json"]) == 0
    assert json.loads(Path("again.json").read_text()) == json.loads(Path("made.json").read_text())


def test_mistakes_are_one_line(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run([*CUT, "--out", "a.json", "--masks", "[dics]"]) == 2
    assert "did you mean 'disc'?" in capsys.readouterr().err
    Path("images/a.png").rename("moved.png")
    assert run([*CUT, "--out", "a.json"]) == 2
    assert capsys.readouterr().err == (
        "maskx: error: images/a.png: image 5 of instances.json: expected an image, found no such file\n"
    )
    assert not Path("a.json").exists()
    labelme(Path("drawn"))
    inside = ["--images", "drawn/images", "--annotations", "drawn/drawn", "--format", "labelme", "--grabcut"]
    monkeypatch.setattr(GrabCutMaker, "__call__", None)  # it is not asked
    assert run(["data", "pseudo", *inside, "--out", "a.json"]) == 2
    assert "expected an image in a file, whose name can be written" in capsys.readouterr().err
    assert run([*CUT, "--out", "moved.png/a.json"]) == 2
    assert "moved.png/a.json: cannot be written" in capsys.readouterr().err


def test_masks_of_a_model_are_refined_and_divided(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An evaluation goes on with its own detections, and never with those of other steps."""
    config = Config.model_validate(SETTINGS).with_classes(("disc", "ball"))
    io.save(build(config.model), config, "model")
    where = [*WHERE, "--boxes", "truth", "--out", "evals"]
    masks = []
    for steps in ([], ["--disjoint"], ["--refine", "--disjoint"]):
        assert run(["eval", "model", *where, *steps]) == 0
        assert "going on" not in capsys.readouterr().err
        masks.append(Path("evals/results.json").read_text())
    assert json.loads(Path("evals/metrics.json").read_text())["name"].endswith("with refined masks and disjoint masks")
    assert run(["eval", "model", *where, "--refine", "--disjoint"]) == 0
    assert "going on" in capsys.readouterr().err
    assert masks[0] == masks[1]  # the boxes of the truth do not overlap


def test_at_test_time_on_the_truths_boxes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {**SETTINGS, "model": {**SETTINGS["model"], "family": "faster_rcnn"}}
    del settings["model"]["mask"]
    Path("recipe.yaml").write_text(json.dumps(settings))
    assert run([*CUT, "--masks", "none", "--out", "grabcut.json"]) == 0
    data = json.loads(Path("grabcut.json").read_text())
    for one in data["annotations"]:
        one.pop("mask_source", None)  # so that they are taken for truth
    Path("grabcut.json").write_text(json.dumps(data))
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
