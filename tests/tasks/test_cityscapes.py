"""A folder of Cityscapes from the check to the submission, and what is written for the evaluation server."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from maskx_tf.checkpoints import io
from maskx_tf.cli import run
from maskx_tf.config import load
from maskx_tf.data.formats import readers
from maskx_tf.data.formats.readers import DataFiles
from maskx_tf.data.images import id_map
from maskx_tf.errors import BadInput
from maskx_tf.evaluation import cityscapes
from maskx_tf.evaluation.cityscapes import LabelledMask
from maskx_tf.masks import rle
from maskx_tf.masks.paste import Crop
from maskx_tf.models.build import build
from maskx_tf.names import CITYSCAPES_IDS
from maskx_tf.tasks.submission import Submission
from tests.data.samples import ids_png
from tests.training import runs

HEIGHT, WIDTH = 64, 128
COCO_START = ("person", "bicycle", "car", "motorcycle", "bus", "train", "truck", "dog")
WHERE = ["--images", "leftImg8bit/val", "--annotations", "gtFine/val", "--format", "cityscapes"]


def made_up(folder: Path, part: str, count: int, seed: int) -> None:
    """Noise with rectangles of all classes, a group, void and a caravan."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        ids = np.full([HEIGHT, WIDTH], 7)
        for value in (0, 26, 29000, *(label * 1000 + number for label in CITYSCAPES_IDS)):
            x, y, width, height = rng.integers([0, 0, 12, 12], [WIDTH - 40, HEIGHT - 30, 40, 30])
            ids[y : y + height, x : x + width] = value
        scene = f"bonn/bonn_{seed:06}_{number:06}"
        ids_png(folder / "gtFine" / part / f"{scene}_gtFine_instanceIds.png", ids)
        image = folder / "leftImg8bit" / part / f"{scene}_leftImg8bit.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 100, [HEIGHT, WIDTH, 3]) + (ids // 250 % 130)[..., None]
        Image.fromarray(pixels.astype(np.uint8)).save(image)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made_up(tmp_path, "train", 4, 1)
    made_up(tmp_path, "val", 3, 2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def submitted(folder: Path, stem: str) -> list[LabelledMask]:
    """What the text file of an image lists, read as the official evaluator reads it."""
    (text,) = folder.rglob(f"{stem}*.txt")
    found = []
    for line in text.read_text().splitlines():
        path, label, score = line.split(" ")
        with Image.open(folder / path) as image:
            found.append(LabelledMask(int(label), float(score), rle.encode(np.asarray(image.convert("L")) != 0)))
    return found


def test_submission(tmp_path: Path) -> None:
    files = [tmp_path / f"bonn_000000_00000{number}_leftImg8bit.png" for number in range(2)]
    crops = [
        Crop(3, 2, np.ones([5, 7], bool)),
        Crop(0, 0, np.zeros([4, 4], bool)),
        Crop(20, 30, np.eye(9, dtype=bool)),
        Crop(0, 0, np.ones([4, 4], bool)),
    ]
    submission = Submission(tmp_path / "out", files, ["dog", "car", "rider"])
    submission.add(files[0], ["car", "car", "rider", "dog"], [0.75, 0.5, 1 / 3, 1.0], crops, (HEIGHT, WIDTH))
    submission.add(files[1], [], [], [], (HEIGHT, WIDTH))
    assert submitted(tmp_path / "out", "bonn_000000_000001") == []
    expected = [(26, 0.75, crops[0]), (25, 0.333333, crops[2])]
    for one, (label, score, crop) in zip(submitted(tmp_path / "out", "bonn_000000_000000"), expected, strict=True):
        assert (one.label, one.score) == (label, score)
        assert one.mask == rle.encode_crop(crop, HEIGHT, WIDTH)
    with pytest.raises(BadInput, match=r"expected a model with some of person, .* found dog, cat"):
        Submission(tmp_path, files, ["dog", "cat"])
    with pytest.raises(BadInput, match=r"expected images of different names, found .*a.png and .*a.jpg"):
        Submission(tmp_path, [Path("x/a.png"), Path("y/a.jpg")], ["car"])


def test_cityscapes_folder_with_a_broken_map(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = next(here.glob("gtFine/val/bonn/*1_gtFine_instanceIds.png"))
    path.write_bytes(path.read_bytes()[:60])
    assert run(["data", "check", *WHERE]) == 2
    assert path.name in capsys.readouterr().out
    with pytest.raises(BadInput, match=f"{path.name}: expected a"):
        readers.read(DataFiles(here / "leftImg8bit/val", here / "gtFine/val", "cityscapes"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--metric", "city"], "--metric: expected one of coco, cityscapes, lvis, found 'city'"),
        (["--metric", "cityscapes", "--faster"], "--faster: expected --metric coco with it, found cityscapes"),
    ],
)
def test_cityscapes_options(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "model", *options]) == 2
    assert capsys.readouterr().err == f"maskx: error: {said}\n"


@pytest.mark.slow
def test_cityscapes_folder_from_check_to_submission(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("train", "val"):
        where = ["--images", f"leftImg8bit/{part}", "--annotations", f"gtFine/{part}", "--format", "cityscapes"]
        assert run(["data", "check", *where]) == 0

    # The start: COCO's classes, of which seven are Cityscapes', in another order; rider is new.
    settings = yaml.safe_load(runs.recipe(here, here).read_text())
    settings["model"] |= {"family": "mask_rcnn", "input": {"canvas": [64, 128], "short_side": 64, "long_side": 128}}
    settings["data"] = {
        part: [{"images": f"leftImg8bit/{part}", "annotations": f"gtFine/{part}", "format": "cityscapes"}]
        for part in ("train", "val")
    }
    settings["train"] |= {"steps": 2, "weights": "start"}
    settings["evaluate"] = {"score": 0.01}
    settings["model"]["detections"] = {"limit": 20, "score": 0.01}
    Path("recipe.yaml").write_text(yaml.safe_dump(settings))
    config = load(Path("recipe.yaml")).with_classes(COCO_START)
    io.save(build(config.model), config, Path("coco"))
    assert run(["vocabulary", "coco", "add", "rider", "--out", "more"]) == 0
    assert run(["vocabulary", "more", "reorder", *CITYSCAPES_IDS.values(), "--only", "--out", "start"]) == 0
    capsys.readouterr()
    assert run(["train", "recipe.yaml", "--out", "run"]) == 0
    assert "started from start\n" in capsys.readouterr().err  # and nothing is fresh

    assert run(["eval", "run", "--metric", "cityscapes", "--out", "evaluation", "--per-class"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 images, by Cityscapes' rules; in per cent; - where no object is"
    assert lines[2].split() == ["mask", "AP", "AP50"]
    assert run(["report", "evaluation", "--out", "page.html"]) == 0

    assert run(["predict", "run", "leftImg8bit/val", "--no-images", "--cityscapes", "sent", "--score", "0.01"]) == 0
    scenes = []
    for path in sorted(here.glob("gtFine/val/*/*.png")):
        stem = path.name.removesuffix("_gtFine_instanceIds.png")
        found = submitted(Path("sent"), stem)
        assert found
        scenes.append(cityscapes.scenes_of(id_map(path), found))
    matrix = cityscapes.precision_matrix(scenes)
    figures = json.loads(Path("evaluation/metrics.json").read_text())
    assert figures["metric"] == "cityscapes"
    assert figures["groups"]["mask"]["all"]["AP"] == pytest.approx(np.nanmean(matrix), abs=1e-9)
    measured = np.array([one["figures"]["AP50"] for one in figures["classes"]["mask"]], float)  # None becomes nan
    np.testing.assert_allclose(measured, matrix[:, 0], atol=1e-9)

    assert run(["data", "convert", *WHERE, "--out", "val.json"]) == 0
    capsys.readouterr()
    assert run(["eval", "run", "--images", ".", "--annotations", "val.json", "--metric", "cityscapes"]) == 2
    said = "maskx: error: metric cityscapes: expected one data set of format cityscapes, found coco\n"
    assert capsys.readouterr().err == said
