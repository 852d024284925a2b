"""`maskx eval`: tables, files, resuming after a kill, and one line for an error."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from maskx_tf.checkpoints import io
from maskx_tf.cli import run
from maskx_tf.config import Config
from maskx_tf.config.data import DataConfig, Source
from maskx_tf.data import splits
from maskx_tf.data.formats import readers
from maskx_tf.data.formats.readers import read
from maskx_tf.errors import BadInput
from maskx_tf.evaluation import table
from maskx_tf.models.build import build
from maskx_tf.tasks import evaluate
from maskx_tf.tasks.evaluate import classes_a
from maskx_tf.tasks.evaluation_data import file_facts, open_data
from tests.data.samples import coco, coco_data, labelme, write_json
from tests.models.small import predict_eagerly

SETTINGS = {
    "model": {
        "family": "mask_x_rcnn",
        "backbone": {"name": "resnet_small", "norm": "group", "frozen_stages": 0, "fpn_channels": 16},
        "input": {"canvas": [64, 64], "short_side": 64, "long_side": 64},
        "rpn": {"pre_nms_test": 20, "post_nms_test": 20},
        "box": {"width": 16},
        "mask": {"channels": 16, "convs": 1},
        "detections": {"limit": 5},
    },
    "evaluate": {"score": 0.0},
}
WHERE = ["--images", "images", "--annotations", "instances.json"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a data set and a recipe, in which the command runs."""
    coco(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(json.dumps(SETTINGS))
    return tmp_path


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    predict_eagerly(monkeypatch)


def evaluated(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[list[str], str]:
    """Lines on the standard output of an evaluation that succeeds, and its other messages."""
    assert run(["eval", "recipe.yaml", *WHERE, *options]) == 0
    captured = capsys.readouterr()
    return captured.out.splitlines(), captured.err


def test_evaluation(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lines, said = evaluated(capsys, "--masks", "[dog]", "--out", "out", "--per-class", "--batch", "2")
    assert said == ""
    assert lines[0] == "2 images; in per cent; - where no object is"
    assert lines[2].split() == ["box", "AP", "AP50", "AP75", "APs", "APm", "APl", "AR100"]
    assert [line.split()[0] for line in lines[3:6]] == ["A", "B", "all"]
    assert ["dog", "A"] in [line.split()[:2] for line in lines]
    assert sorted(os.listdir("out")) == ["detections.jsonl", "metrics.json", "results.json"]
    figures = json.loads(Path("out/metrics.json").read_text())
    assert figures["a_classes"] == ["dog"]
    assert figures["data"]["val"][0]["annotations"] == str(here / "instances.json")
    assert set(figures["groups"]) == {"box", "mask"}
    results = json.loads(Path("out/results.json").read_text())
    assert {one["image_id"] for one in results} == {one["id"] for one in coco_data()["images"]}
    assert {one["category_id"] for one in results} <= {one["id"] for one in coco_data()["categories"]}

    predict_eagerly(monkeypatch)  # one graph is enough
    # Random weights are others each time, and so is the fingerprint.
    _, said = evaluated(capsys, "--out", "out", "--oracle", "out/metrics.json", "--json", "m.json")
    assert said == (
        "maskx: out/detections.jsonl: its detections are of another model, data set or settings: starting again\n"
    )
    assert set(json.loads(Path("m.json").read_text())["groups"]["box"]) == {"all"}


@pytest.mark.usefixtures("eager")
def test_the_data_that_a_run_names(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("names.yml").write_text("dog: hound")
    data = {"val": [{"images": "images", "annotations": "instances.json"}], "names": "names.yml"}
    names = ["hound", "traffic light"]
    config = Config.model_validate({**SETTINGS, "model": {**SETTINGS["model"], "class_names": names}, "data": data})
    io.save(build(config.model), config, Path("model"))
    assert run(["eval", "model", "--out", "out", "--per-class"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("hound") for line in lines)
    assert not any("dog" in line for line in lines)
    assert run(["report", "out", "--out", "page.html"]) == 0
    assert "No pictures" not in Path("page.html").read_text()
    capsys.readouterr()

    for options, said in (
        (["model", "--images", "images"], "--images images: expected both --images and --annotations"),
        (
            ["recipe.yaml"],
            "recipe.yaml: expected --images and --annotations, or a run whose configuration has data.val",
        ),
    ):
        assert run(["eval", *options]) == 2
        assert capsys.readouterr().err == f"maskx: error: {said}\n"


@pytest.mark.usefixtures("eager")
def test_the_rules_of_lvis(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(Path("instances.json").read_text())
    assert run(["eval", "recipe.yaml", *WHERE, "--metric", "lvis"]) == 2
    assert "instances.json: expected LVIS' annotations" in capsys.readouterr().err
    for image in data["images"]:
        image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    for category in data["categories"]:
        category["frequency"] = "c"
    Path("instances.json").write_text(json.dumps(data))
    lines, _ = evaluated(capsys, "--metric", "lvis")
    assert lines[0] == "2 images, by LVIS' rules; in per cent; - where no object is"
    assert lines[2].split()[-4:] == ["APr", "APc", "APf", "AR300"]
    assert run(["eval", "recipe.yaml", *WHERE, "--metric", "lvis", "--faster"]) == 2
    assert "expected --metric coco" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_neither_the_figures_nor_their_file_is_lost_with_the_other(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "evaluate", lambda *_: SimpleNamespace(as_json=dict))
    monkeypatch.setattr(table, "as_text", lambda *_, **__: "the figures")
    monkeypatch.setattr(evaluate, "write_metrics", lambda _, path: path.touch())

    def broken(*_: object, **__: object) -> str:
        raise BadInput("a closed pipe")

    with monkeypatch.context() as patch:
        patch.setattr(table, "as_text", broken)
        assert run(["eval", "recipe.yaml", *WHERE, "--json", "m.json"]) == 2
    assert Path("m.json").exists()
    capsys.readouterr()
    monkeypatch.setattr(evaluate, "write_metrics", broken)
    assert run(["eval", "recipe.yaml", *WHERE, "--json", "m.json"]) == 2
    assert capsys.readouterr().out == "the figures\n"


def test_masks_of_true_boxes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines, _ = evaluated(capsys, "--boxes", "truth")
    assert lines[0] == "2 images, boxes and classes of the truth; in per cent; - where no object is"
    assert lines[2].split()[-1] == "IoU"
    assert not any(line.startswith("box") for line in lines)


def save_model() -> None:
    names = ["dog", "traffic light"]
    config = Config.model_validate({**SETTINGS, "model": {**SETTINGS["model"], "class_names": names}})
    io.save(build(config.model), config, Path("model"))


def found(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[list, str]:
    """The results of an evaluation of that model, and what it said."""
    assert run(["eval", "model", *WHERE, "--out", "out", *options]) == 0
    return json.loads(Path("out/results.json").read_text()), capsys.readouterr().err


@pytest.mark.usefixtures("eager")
def test_an_ensemble_of_a_model_with_itself_finds_what_the_model_finds(here, capsys) -> None:
    """Through the images' own pixels, a union and a mean."""
    save_model()
    (plain, _), (twice, said) = found(capsys), found(capsys, "--ensemble", "model")
    assert "starting again" in said
    assert len(plain) == len(twice) > 5
    for one, other in zip(plain, twice, strict=True):
        assert one["category_id"] == other["category_id"]
        np.testing.assert_allclose([*one["bbox"], one["score"]], [*other["bbox"], other["score"]], atol=1e-2)
        overlap = coco_mask.iou([one["segmentation"]], [other["segmentation"]], [0])
        assert overlap >= 0.98 or one["segmentation"] == other["segmentation"]


@pytest.mark.slow
def test_results_with_views_are_stored_separately(here, capsys) -> None:
    save_model()
    plain, _ = found(capsys)
    views, _ = found(capsys, "--scales", "64,96")
    assert views != plain
    again, said = found(capsys, "--scales", "64,96")
    assert again == views
    assert "starting again" not in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--scales", "400,x"], "--scales: expected whole numbers of pixels with commas between them, found '400,x'"),
        (["--boxes", "truth", "--augment"], "--boxes truth cannot be combined with --augment, --scales or --ensemble"),
        (["--boxes", "found"], "--boxes: expected detected or truth, found 'found'"),
        (["--ensemble", "no"], "no: "),
        (["--oracle", "no.json"], "no.json: cannot be read: No such file"),
        (["--oracle", "recipe.yaml"], "recipe.yaml: expected the figures of maskx eval: images: Field required"),
        (["--format", "vco"], "expected one of coco, voc"),
        (["--masks", "[dgo]"], "did you mean 'dog'?"),
        (["--out", "recipe.yaml/out"], "cannot be written"),
        (["--json", "recipe.yaml/m.json"], "cannot be written"),
    ],
)
def test_bad_options(here: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str) -> None:
    assert run(["eval", "recipe.yaml", *WHERE, *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("maskx: error: ")
    assert said in error
    assert error.count("\n") == 1


def test_images_in_memory_and_folders_that_are_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The truth has no names of files, which images in memory lack, and which depend on the folder of the program."""
    source = labelme(tmp_path)
    places = {"images": str(source.images), "annotations": str(source.annotations), "format": "labelme"}
    data = DataConfig.model_validate({"val": [places]})
    held = open_data(data)
    assert [isinstance(image.file, bytes) for image in held.dataset.images] == [False, True]
    assert len(held.truth["images"]) == len(file_facts(held.dataset)) == 2
    monkeypatch.chdir(tmp_path.parent)
    assert open_data(data).truth == held.truth


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("images/a.jpg", "a.jpg: image 1 of instances.json: expected an image"),
        ("instances.json", "instances.json: expected JSON"),
        ("recipe.yaml", "recipe.yaml"),
    ],
)
def test_broken_files(here: Path, capsys: pytest.CaptureFixture[str], broken: str, said: str) -> None:
    Path(broken).write_text("- {]")
    assert run(["eval", "recipe.yaml", *WHERE, "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not Path("out/metrics.json").exists()


def test_classes_of_another_data_set(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {**SETTINGS, "model": {**SETTINGS["model"], "class_names": ["zebra", "bear"]}}
    Path("recipe.yaml").write_text(json.dumps(settings))
    assert run(["eval", "recipe.yaml", *WHERE]) == 2
    assert "expected classes of the model, such as zebra, bear; found others, such as " in capsys.readouterr().err


def test_no_annotations(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(Path("instances.json"), {**coco_data(), "annotations": []})
    lines, _ = evaluated(capsys, "--boxes", "truth")
    assert lines[3].split() == ["all", *["-"] * 10]


@pytest.mark.parametrize(
    ("settings", "meta", "masks", "apart", "expected"),
    [
        ({"data": {"masks": ["dog"]}}, {}, None, False, {"dog"}),
        ({"data": {"masks": "all"}, "evaluate": {"masks": ["dog"]}}, {}, None, False, {"dog"}),
        ({"data": {"masks": ["dog"]}}, {"a_classes": ["traffic light"]}, None, False, {"traffic light"}),
        ({}, {"a_classes": ["dog"]}, "[traffic light]", False, {"traffic light"}),
        ({}, {}, None, True, {"dog"}),
        ({}, {}, None, False, None),
        ({}, {}, "all", True, None),
        ({}, {"a_classes": ["dog", "traffic light"]}, None, True, None),
    ],
)
def test_whose_masks_training_saw(here: Path, settings, meta, masks, apart: bool, expected) -> None:
    data = coco_data()
    for one in data["annotations"]:
        if one["category_id"] == data["categories"][1]["id"]:
            one.pop("segmentation", None)
    write_json(Path("instances.json"), data)
    source = Source(images="images", annotations="instances.json", masks_b="apart.json" if apart else None)
    dataset = read(readers.DataFiles(Path("images"), Path("instances.json")))
    config = Config.model_validate({"model": {"class_names": dataset.class_names}, **settings})
    policy = None if masks is None else splits.parse_text(masks)
    assert classes_a(policy, dataset, DataConfig(val=(source,)), config, meta.get("a_classes")) == expected
