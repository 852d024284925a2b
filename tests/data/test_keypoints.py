"""Keypoints in COCO's JSON: read, checked, counted, written, and one line for an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskx_tf.cli import run
from maskx_tf.config.data import DataConfig
from maskx_tf.data import keypoints, opening
from maskx_tf.data.checks import check
from maskx_tf.data.dataset import Instance
from maskx_tf.data.formats import coco, coco_write, readers
from maskx_tf.data.formats.readers import DataFiles, read
from maskx_tf.data.pipeline import batches as pipeline
from maskx_tf.data.pipeline import examples
from maskx_tf.errors import BadInput
from maskx_tf.names import COCO_FLIP, COCO_IDS, COCO_KEYPOINTS, COCO_SKELETON
from maskx_tf.structures import KeypointSet
from tests.data.batches import INPUT, PLAIN, take
from tests.data.samples import HEIGHT, WIDTH, coco_keypoints, coco_keypoints_data, write_json

PERSON = KeypointSet(("head", "left_hand", "right_hand", "foot"), ((0, 1), (0, 2), (0, 3)), ((1, 2),))


def instances(source: DataFiles) -> dict[Any, Instance]:
    return {one.id: one for image in read(source).images for one in image.instances}


def changed(folder: Path, place: tuple[Any, ...], value: Any) -> DataFiles:
    """The sample with one value changed; ... takes it away."""
    source = coco_keypoints(folder)
    data: Any = coco_keypoints_data()
    parent = data
    for key in place[:-1]:
        parent = parent[key]
    if value is ...:
        del parent[place[-1]]
    else:
        parent[place[-1]] = value
    write_json(source.annotations, data)
    return source


def test_what_is_read(tmp_path: Path) -> None:
    source = coco_keypoints(tmp_path)
    assert read(source).keypoints == PERSON
    found = instances(source)
    np.testing.assert_array_equal(found[200].keypoints, [[30.5, 4.5, 2], [24.5, 15.5, 2], [39.5, 16.5, 1], [0, 0, 0]])
    np.testing.assert_array_equal(found[201].keypoints[0], [7.75, 5.5, 2])
    assert (found[200].area, found[201].area) == (None, 251.5)
    assert not found[202].keypoints.any()
    assert [found[number].keypoints for number in (203, 205)] == [None, None]
    assert [found[number].keypoint_count for number in range(200, 206)] == [3, 4, 0, 0, 0, 0]


def test_label_0_means_none(tmp_path: Path) -> None:
    """Whatever its place: some programs keep it."""
    found = instances(changed(tmp_path, (*FIRST, "keypoints"), [30, 4, 2, 24, 15, 0, 39, 16, 1, 7, 8, 0]))
    np.testing.assert_array_equal(found[200].keypoints, [[30.5, 4.5, 2], [0, 0, 0], [39.5, 16.5, 1], [0, 0, 0]])


def test_what_is_written_is_what_was_read(tmp_path: Path) -> None:
    source = coco_keypoints(tmp_path)
    coco_write.write(read(source), tmp_path / "again.json", source.images)
    again = json.loads((tmp_path / "again.json").read_text())
    before = coco_keypoints_data()
    assert again["categories"] == before["categories"]
    counts = {200: 3, 201: 4, 202: 0, 204: 0}
    for one, original in zip(
        sorted(again["annotations"], key=lambda one: one["id"]), before["annotations"], strict=True
    ):
        assert one.get("keypoints", []) == original.get("keypoints", [])
        assert one.get("num_keypoints") == counts.get(one["id"])
    assert [one["area"] for one in again["annotations"] if one["id"] == 201] == [251.5]
    first, second = (read(DataFiles(source.images, path)) for path in (source.annotations, tmp_path / "again.json"))
    assert first.keypoints == second.keypoints
    for mine, other in zip(first.images, second.images, strict=True):
        for one, its in zip(mine.instances, other.instances, strict=True):
            np.testing.assert_array_equal(one.keypoints, its.keypoints)


def test_mask_that_is_kept_apart_brings_its_area(tmp_path: Path) -> None:
    source = coco_keypoints(tmp_path)
    data = coco_keypoints_data()
    mask = data["annotations"][0].pop("segmentation")
    data["annotations"][0]["area"] = 486  # as large as the box
    write_json(source.annotations, data)
    apart = {"images": [], "categories": [], "annotations": [{"id": 200, "image_id": 1, "segmentation": mask}]}
    kept = source._replace(masks_b=write_json(tmp_path / "apart.json", apart))
    for dataset, area in (
        (readers.for_evaluation([source]), 486),
        (readers.for_evaluation([kept]), sum(mask["counts"][1::2])),
    ):
        (one,) = (one for one in coco_write.as_coco(dataset, tmp_path)["annotations"] if one["id"] == 200)
        assert one["area"] == area


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["nose", "left_eye", "right_eye"], {(1, 2)}),
        (["Right Wing", "tail", "Left Wing"], {(0, 2)}),
        (["eye_right", "eye_left", "left"], {(0, 1)}),
        (["left_left_x", "right_right_x", "left_right_x", "right_left_x"], {(0, 1), (2, 3)}),
        (["a", "b"], set()),
    ],
)
def test_names_tell_left_from_right(names: list[str], pairs: set[tuple[int, int]]) -> None:
    assert set(keypoints.flip_pairs(names)) == pairs


FIRST = ("annotations", 0)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (
            (*FIRST, "keypoints"),
            [1, 2, 2],
            "annotations[0] (id 200): keypoints: expected 4 x 3 numbers in or near the image",
        ),
        ((*FIRST, "keypoints"), "1 2 2", "keypoints: expected 4 x 3 numbers in or near the image, found '1 2 2'"),
        ((*FIRST, "keypoints"), [None] * 12, "keypoints: expected 4 x 3 numbers"),
        ((*FIRST, "keypoints"), [float("nan")] * 12, "keypoints: expected 4 x 3 numbers"),
        ((*FIRST, "keypoints"), [1e9, 2, 2] * 4, "keypoints: expected 4 x 3 numbers"),
        ((*FIRST, "keypoints", 5), 3, "keypoints: expected 0, 1 or 2 as the third number of each, found 3.0"),
        ((*FIRST, "keypoints", 5), 0.5, "keypoints: expected 0, 1 or 2 as the third number of each, found 0.5"),
        ((*FIRST, "num_keypoints"), 7, "num_keypoints: expected a whole number from 0 to 4, found 7"),
        ((*FIRST, "area"), "large", "area: expected a number from 0 to 1e+10, found 'large'"),
        (("categories", 1, "keypoints", 3), "HEAD", "categories[1] (id 1): keypoints: expected no name twice"),
        (("categories", 1, "keypoints", 3), 7, "categories[1] (id 1): keypoints: expected text, found 7"),
        (("categories", 1, "keypoints"), "head", "keypoints: expected a list, found 'head'"),
        (
            ("categories", 1, "skeleton", 0),
            [0, 1],
            "skeleton: expected pairs of whole numbers from 1 to 4, found [0, 1]",
        ),
        (
            ("categories", 1, "skeleton", 0),
            [1, 5],
            "skeleton: expected pairs of whole numbers from 1 to 4, found [1, 5]",
        ),
        (("categories", 1, "skeleton", 0), [1, 2, 3], "skeleton: expected pairs of whole numbers from 1 to 4"),
        (("categories", 1, "skeleton"), 3, "skeleton: expected a list, found 3"),
        (("categories", 0, "keypoints"), ["nose"], "keypoints: expected those of other categories, ['nose'], found"),
    ],
)
def test_one_line_for_what_does_not_fit(
    tmp_path: Path, place: tuple[Any, ...], value: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = changed(tmp_path, place, value)
    with pytest.raises(BadInput) as caught:
        readers.for_training([source], "all")
    assert said in str(caught.value)
    assert str(caught.value).startswith("keypoints.json: ")
    assert check(source)[1].wrong > 0


@pytest.mark.parametrize(
    ("place", "value", "kind", "said"),
    [
        ((*FIRST, "keypoints", 0), WIDTH + 3, "keypoint_beyond", f"{WIDTH} x {HEIGHT}, found one at ({WIDTH + 3}, 4)"),
        ((*FIRST, "bbox"), [1, 20, 8, 8], "keypoints_elsewhere", "the box (1, 20, 9, 28), found all 3 outside of it"),
        ((*FIRST, "num_keypoints"), 4, "keypoint_count", "expected 3, as many as have the label 1 or 2, found 4"),
        (("categories", 1, "keypoints"), ..., "unnamed_keypoints", "expected a category that names its keypoints"),
        (("annotations",), [], "no_keypoints", "expected keypoints such as head, found none"),
    ],
)  # fmt: skip
def test_warnings(tmp_path: Path, place: tuple[Any, ...], value: Any, kind: str, said: str) -> None:
    assert kind not in check(coco_keypoints(tmp_path))[1].counts
    findings = check(changed(tmp_path, place, value))[1]
    assert findings.counts[kind] >= 1
    assert said in findings.examples[kind][0].what
    assert "Traceback" not in findings.examples[kind][0].where


def test_pipeline_moves_them(tmp_path: Path) -> None:
    dataset = readers.for_training([coco_keypoints(tmp_path)], "all")
    (batch,) = take(pipeline.evaluation(examples.from_dataset(dataset), PLAIN, INPUT, batch=3))
    scale = batch["image_sizes"][0] / [HEIGHT, WIDTH]
    first = batch["gt_keypoints"][0, 0]
    np.testing.assert_allclose(
        first[:3, :2], np.array([[30.5, 4.5], [24.5, 15.5], [39.5, 16.5]]) * scale[::-1], rtol=1e-5
    )
    np.testing.assert_array_equal(first[:, 2], [2, 2, 1, 0])
    np.testing.assert_array_equal(batch["gt_has_keypoints"][:, :3], [[1, 0, 0], [1, 0, 0], [0, 0, 0]])
    # In a mirror, the hand that was the left one is the right one.
    flip = PLAIN.model_copy(update={"flip": True})
    seen = set()
    for one in take(pipeline.training(examples.from_dataset(dataset), flip, INPUT, batch=3), 6):
        row = one["image_ids"].tolist().index(1)
        labels = one["gt_keypoints"][row, 0, :, 2].tolist()
        seen.add(tuple(labels))
        right_is_right_of_left = one["gt_keypoints"][row, 0, 2, 0] > one["gt_keypoints"][row, 0, 1, 0]
        assert right_is_right_of_left
    assert seen == {(2, 2, 1, 0), (2, 1, 2, 0)}


def test_commands_know_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = coco_keypoints(tmp_path)
    where = ["--images", str(source.images), "--annotations", str(source.annotations)]
    assert run(["data", "check", *where]) == 0
    assert capsys.readouterr().out.startswith(
        "keypoints.json: 3 images, 6 instances of 2 classes, 2 with masks, 2 with keypoints\n"
    )
    assert run(["data", "stats", *where]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "with keypoints" in lines[2]
    assert [line.split() for line in lines[-5:]] == [
        ["keypoint", "visible", "hidden"],
        ["head", "2", "0"],
        ["left_hand", "1", "1"],
        ["right_hand", "1", "1"],
        ["foot", "1", "0"],
    ]
    assert run(["data", "stats", *where, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["keypoints"][1] == {"name": "left_hand", "visible": 1, "hidden": 1}
    assert [one["with_keypoints"] for one in figures["classes"]] == [0, 2]

    pictures = []
    without = {**coco_keypoints_data()}
    for one in without["annotations"]:
        one["keypoints"] = [0] * 12
    for data in (coco_keypoints_data(), without):
        write_json(source.annotations, data)
        assert run(["data", "show", *where, "--out", str(tmp_path / "sheet.png")]) == 0
        pictures.append(np.asarray(Image.open(tmp_path / "sheet.png")))
    assert (pictures[0] != pictures[1]).any(axis=-1).sum() > 100


def test_images_with_few_keypoints_are_left_out(tmp_path: Path) -> None:
    source = coco_keypoints(tmp_path)
    part = {"images": str(source.images), "annotations": str(source.annotations)}

    def kept(least: int) -> list[Any]:
        data = DataConfig.model_validate({"train": [part], "min_keypoints": least})
        return [image.id for image in opening.training_set(data).images]

    assert [kept(least) for least in (0, 1, 3, 4)] == [[1, 2, 3], [1, 2], [1, 2], [2]]
    with pytest.raises(BadInput, match=r"data.min_keypoints: expected images of keypoints.json with 5 keypoints"):
        kept(5)


def test_keypoints_of_coco(tmp_path: Path) -> None:
    """Names and skeleton of COCO's persons; its pairs are those of left and right."""
    places = {name: place for place, name in enumerate(COCO_KEYPOINTS, 1)}
    lines = [[places[first], places[second]] for first, second in COCO_SKELETON]
    category = {"id": 1, "name": COCO_IDS[1], "keypoints": list(COCO_KEYPOINTS), "skeleton": lines}
    path = write_json(tmp_path / "a.json", {"images": [], "annotations": [], "categories": [category]})
    named = coco.read(tmp_path, path).keypoints
    assert named == KeypointSet.of_names(COCO_KEYPOINTS, COCO_SKELETON, COCO_FLIP)
