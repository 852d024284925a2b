"""Masks of the boxes in a COCO file: the same file, with masks where there were none."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from maskx_tf import cli
from maskx_tf.data.dataset import Instance
from maskx_tf.masks import rle
from maskx_tf.masks.grabcut import CutTarget
from maskx_tf.masks.paste import Crop, full
from maskx_tf.masks.steps import NO_STEPS, MaskSteps
from maskx_tf.prediction.images import ImagePredictor
from maskx_tf.tasks import model_masks
from maskx_tf.tasks.batch import review
from tests.export.exported import CATEGORY_IDS, model, model_folder, picture
from tests.models.small import predict_eagerly
from tests.tasks.test_batch import refused

SQUARE = [[4.0, 4.0, 14.0, 4.0, 14.0, 14.0, 4.0, 14.0]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Four images: boxes of three classes, one of which the model does not know; a mask; a crowd; a broken image."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for index in range(3):
        Image.fromarray(picture(40, 60, seed=index)).save(f"photos/{index}.png")
    Path("photos/3.png").write_bytes(b"no image")
    images = [
        {"id": f"i{index}", "file_name": f"{index}.png", "width": 60, "height": 40, "licence": 7} for index in range(4)
    ]
    boxes = [
        {"id": 1, "image_id": "i0", "category_id": 17, "bbox": [4, 4, 20, 24], "author": "me"},
        {"id": 2, "image_id": "i0", "category_id": 5, "bbox": [30, 4, 20, 24]},
        {"id": 3, "image_id": "i0", "category_id": 18, "bbox": [4, 4, 10, 10], "segmentation": SQUARE, "area": 100},
        {"id": 4, "image_id": "i1", "category_id": 18, "bbox": [4, 4, 10, 10], "segmentation": SQUARE, "area": 100},
        {"id": 5, "image_id": "i2", "category_id": 99, "bbox": [10, 5, 45, 30], "iscrowd": 0},
        {"id": 6, "image_id": "i2", "category_id": 99, "bbox": [10, 5, 45, 30], "iscrowd": 1},
        {"id": 7, "image_id": "i3", "category_id": 99, "bbox": [10, 5, 45, 30]},
    ]
    names = [
        {"id": 17, "name": "cat"},
        {"id": 18, "name": "dog"},
        {"id": 99, "name": "horse"},
        {"id": 5, "name": "cow"},
    ]
    data = {"images": images, "annotations": boxes, "categories": names, "info": {"year": 2020}}
    Path("boxes.json").write_text(json.dumps(data))
    return data


class Half:
    """Stands for a model: masks of the left half of the box, of a known quality; none of cows."""

    in_threads, name = False, "half"

    def __init__(self, model: str, class_names: tuple[str, ...], steps: MaskSteps = NO_STEPS) -> None:
        self.cow = class_names.index("cow") + 1

    def __call__(self, pixels: np.ndarray, instances: list[Instance]) -> list[CutTarget]:
        made = []
        for one in instances:
            x1, y1, x2, y2 = (int(edge) for edge in one.box)
            pixels = np.ones([y2 - y1, (x2 - x1) // 2], bool)
            nothing = CutTarget(Crop(0, 0, np.zeros([0, 0], bool)), 0.0)
            made.append(nothing if one.label == self.cow else CutTarget(Crop(x1, y1, pixels), 0.3 + 0.01 * (x2 - x1)))
        return made


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_masks, "ModelMaker", Half)


def label(*options: object, out: str = "out.json") -> dict[str, Any]:
    where = ["--images", "photos", "--annotations", "boxes.json", "--out", out]
    assert cli.run(["label", str(model_folder()), *where, *map(str, options)]) == 0
    return json.loads(Path(out).read_text())


def without_made(one: dict[str, Any]) -> dict[str, Any]:
    made = {"segmentation", "area", "mask_source", "mask_quality", "needs_review"}
    return {key: value for key, value in one.items() if key not in made}


def test_the_file_gets_masks_and_keeps_all_else(
    here: dict[str, Any], half: None, capsys: pytest.CaptureFixture[str]
) -> None:
    data = label("--least", "0.6")
    assert capsys.readouterr().out == "wrote out.json: 2 masks made, 3 boxes to review, 1 images not read\n"
    assert {key: value for key, value in data.items() if key != "annotations"} == {
        key: value for key, value in here.items() if key != "annotations"
    }
    cat, cow, dog, other, horse, crowd, unread = data["annotations"]
    assert [without_made(one) for one in data["annotations"]] == [without_made(one) for one in here["annotations"]]
    assert [dog, other, crowd] == [here["annotations"][index] for index in (2, 3, 5)]
    bitmap = np.zeros([40, 60], bool)
    bitmap[4:28, 4:14] = True
    np.testing.assert_array_equal(rle.bitmap_of(cat["segmentation"]), bitmap)
    assert (cat["area"], cat["mask_source"], cat["mask_quality"]) == (240, "half", 0.5)
    assert [one.get("needs_review") for one in data["annotations"]] == [True, True, None, None, None, None, True]
    assert horse["mask_quality"] == 0.75
    assert "segmentation" not in cow | unread


def test_polygons_have_the_same_pixels(here: dict[str, Any], half: None) -> None:
    data = label("--polygons", "0.5")
    assert data["annotations"][0]["segmentation"] == [[4, 4, 14, 4, 14, 28, 4, 28]]
    assert data["annotations"][0]["area"] == 240


def test_the_page_shows_the_most_doubtful_first(here: dict[str, Any], half: None) -> None:
    label("--review", "review.html", "--least", "0.6")
    page = Path("review.html").read_text()
    captions = re.findall(r"<figcaption>(\w+), quality ([\d.]+)<br>(\S+), annotation (\d)<", page)
    assert captions == [
        ("cow", "0.00", "0.png", "2"),
        ("horse", "0.00", "3.png", "7"),
        ("cat", "0.50", "0.png", "1"),
        ("horse", "0.75", "2.png", "5"),
    ]
    assert page.count('class="flagged"') == 3
    assert page.count("data:image/jpeg;base64,") == 3
    assert "no image" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    label("--review", "review.html", "--most", "1")
    assert Path("review.html").read_text().count("<figcaption>") == 1


def test_a_job_may_run_elsewhere_and_in_parts(
    here: dict[str, Any], half: None, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = ["batch", "plan", str(model_folder()), "photos", "--boxes", "boxes.json", "--out", "job", "--size", "1"]
    assert cli.run(plan) == 0
    assert cli.run(["batch", "run", "job", "--shard", "1/2"]) == 0
    assert label("--job", "job", out="parts.json") == label(out="whole.json")
    capsys.readouterr()
    assert cli.run(["batch", "status", "job"]) == 0
    assert capsys.readouterr().out == "3 of 3 shards done; of 3 images: 1 broken_image, 2 ok\n"
    assert cli.run(["batch", "merge", "job", "--out", "rows.parquet"]) == 0
    rows = pq.read_table("rows.parquet").to_pylist()
    assert [row["annotations"] for row in rows] == [["1", "2"], ["5"], ["7"]]
    assert "maskx label --job" in refused(capsys, "batch", "merge", "job", "--out", "rows.json")


def test_what_is_doubtful(here: dict[str, Any], half: None) -> None:
    """A quality counts as it is written, and a box without a mask always does; earlier flags go."""
    assert not review.is_doubtful(float(np.float32(0.7)), 0.7, has_mask=True)  # rows have float32
    for least in ("0.5", "0"):
        flags = [one.get("needs_review") for one in label("--least", least)["annotations"]]
        assert flags == [None, True, None, None, None, None, True]
    here["annotations"][0]["needs_review"] = True
    Path("boxes.json").write_text(json.dumps(here))
    assert "needs_review" not in label("--least", "0")["annotations"][0]


def test_nothing_is_computed_for_a_file_that_cannot_be_written(
    here: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(model_masks, "ModelMaker", None)  # would fail
    ask = ["label", model_folder(), "--images", "photos", "--annotations", "boxes.json", "--out", "boxes.json"]
    assert "expected another file than that of the boxes" in refused(capsys, *ask)
    assert "boxes.json/a: cannot be written: Not a directory" in refused(capsys, *ask[:-1], "boxes.json/a")
    review = ["--review", "boxes.json/page"]
    assert "boxes.json/page: cannot be written: Not a directory" in refused(capsys, *ask[:-1], "a.json", *review)


def test_a_model_that_was_trained_further_makes_other_masks(
    here: dict[str, Any], half: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where every shard of the job is done."""
    shutil.copytree(model_folder(), "model")
    ask = ["label", "model", "--images", "photos", "--annotations", "boxes.json", "--out", "out.json", "--job", "job"]
    assert cli.run(ask) == 0
    weights = Path("model/weights.npz")
    weights.write_bytes(weights.read_bytes() + b" ")
    assert "expected the model that job was planned for" in refused(capsys, *ask)


def test_mistakes_are_one_line(here: dict[str, Any], half: None, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ["label", model_folder(), "--images", "photos", "--annotations", "boxes.json", "--out"]
    assert "expected another file than that of the boxes" in refused(capsys, *ask, "boxes.json")
    label("--job", "job")
    Path("boxes.json").write_text(json.dumps({**here, "info": {}}))
    assert "found another job" in refused(capsys, *ask, "new.json", "--job", "job")
    Path("boxes.json").write_text(json.dumps(here))
    assert "found another job" in refused(capsys, *ask, "new.json", "--job", "job", "--disjoint")
    Path("boxes.json").write_text(json.dumps({**here, "info": {}}))
    plan = ["batch", "plan", model_folder(), "photos", "--boxes", "boxes.json", "--out", "later"]
    assert cli.run([str(argument) for argument in plan]) == 0
    Path("boxes.json").write_text(json.dumps(here))
    assert "expected the file that the job was planned for" in refused(capsys, "batch", "run", "later")
    assert "expected --boxes with them" in refused(capsys, *plan[:4], "--out", "none", "--refine")
    assert "the folder of the file's images" in refused(capsys, *plan[:3], "photos/0.png", *plan[4:])
    masked = [one for one in here["annotations"] if "segmentation" in one]
    Path("boxes.json").write_text(json.dumps({**here, "annotations": masked}))
    assert "expected boxes without a mask, found none" in refused(capsys, *ask, "new.json")
    assert not Path("new.json").exists()


def test_masks_are_the_models_own(here: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    predict_eagerly(monkeypatch)
    cat = label()["annotations"][0]
    found = ImagePredictor(*model()).segment(
        np.asarray(Image.open("photos/0.png")), np.array([[4, 4, 24, 28]]), np.array([CATEGORY_IDS.index(17) + 1])
    )
    crop = rle.bitmap_of(cat["segmentation"])[4:28, 4:24]
    assert crop.sum() == cat["area"] > 0
    assert abs(crop.mean() - (found.masks[0] >= 0.5).mean()) < 0.15
    rows, columns = (np.flatnonzero(crop.any(axis=axis)) for axis in (1, 0))
    agreement = (np.ptp(rows) + 1) * (np.ptp(columns) + 1) / crop.size
    assert cat["mask_quality"] == pytest.approx(agreement * found.masks[0][found.masks[0] >= 0.5].mean(), abs=1e-3)
    assert cat["mask_source"] == model_folder().parent.name  # the name of the run


def test_steps_follow_the_model(here: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Outlines move to edges of colour; where masks of two boxes overlap, the smaller box has the pixel."""
    pytest.importorskip("cv2", reason="the extra grabcut is not installed")
    predict_eagerly(monkeypatch)
    here["annotations"][1] |= {"category_id": 18, "bbox": [8, 8, 12, 12]}
    Path("boxes.json").write_text(json.dumps(here))
    pixels = np.asarray(Image.open("photos/0.png"))
    boxes = np.float32([[4, 4, 24, 28], [8, 8, 20, 20]])
    classes = np.array([CATEGORY_IDS.index(17) + 1, CATEGORY_IDS.index(18) + 1])
    masks = np.asarray(ImagePredictor(*model()).segment(pixels, boxes, classes).masks)
    for options, steps in (((), NO_STEPS), (("--refine", "--disjoint"), MaskSteps(refine=True, disjoint=True))):
        crops = steps.crops(boxes, masks, (40, 60), lambda: pixels)
        found = label(*options)["annotations"][:2]
        for one, crop in zip(found, crops, strict=True):
            np.testing.assert_array_equal(rle.bitmap_of(one["segmentation"]), full(crop, 40, 60))
    assert not (rle.bitmap_of(found[0]["segmentation"]) & rle.bitmap_of(found[1]["segmentation"])).any()
