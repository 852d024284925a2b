"""COCO's JSON: every form of a mask and of a missing mask, and one line for an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from maskx_tf.data.dataset import Dataset, Instance, bitmap
from maskx_tf.data.formats import coco, segmentations
from maskx_tf.data.formats.readers import DataFiles, for_evaluation, for_training, read
from maskx_tf.data.problems import Problem
from maskx_tf.errors import BadInput
from maskx_tf.masks import rle
from tests.data.samples import HEIGHT, POLYGON, WIDTH, blob, coco_data, runs, write_json

RECTANGLE = [4.0, 4.0, 20.0, 4.0, 20.0, 20.0, 4.0, 20.0]
LINE = [1.0, 1.0, 5.0, 5.0, 9.0, 9.0, 13.0, 13.0]
EIGHT = [4.0, 4.0, 20.0, 20.0, 20.0, 4.0, 4.0, 20.0]
BLOB = blob(22, 3, 40, 30)
LIST = {"size": [HEIGHT, WIDTH], "counts": runs(BLOB)}
TEXT = rle.encode(BLOB > 0)
NOTHING = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}


def instances(dataset: Dataset) -> dict[Any, Instance]:
    return {one.id: one for image in dataset.images for one in image.instances}


def with_first(folder: Path, **changes: Any) -> DataFiles:
    """The sample with some fields of its first annotation changed; ... takes a field away."""
    data = coco_data()
    first = data["annotations"][0] | changes
    data["annotations"][0] = {key: value for key, value in first.items() if value is not ...}
    return DataFiles(folder, write_json(folder / "instances.json", data))


def test_what_is_read(tmp_path: Path) -> None:
    dataset = read(DataFiles(tmp_path, write_json(tmp_path / "a.json", coco_data())))
    assert dataset.class_names == ("dog", "traffic light")
    assert dataset.category_ids == (18, 7)
    assert [(image.id, image.file.name, len(image.instances)) for image in dataset.images] == [
        (1, "a.jpg", 3),
        (2, "b.png", 3),
    ]
    found = instances(dataset)
    assert found[100].box == (4, 4, 20, 20)
    assert found[104].box == (30.5, 20.25, 39.5, 29.25)
    assert found[105].crowd
    np.testing.assert_array_equal(bitmap(found[101].segmentation, HEIGHT, WIDTH), BLOB > 0)


def test_one_class_with_and_without_masks(tmp_path: Path) -> None:
    source = DataFiles(tmp_path, write_json(tmp_path / "a.json", coco_data()))
    expected = {100: True, 101: True, 102: False, 103: False, 104: False, 105: True}
    for dataset in (read(source), for_training([source], "all"), for_evaluation([source])):
        assert {identity: one.has_mask for identity, one in instances(dataset).items()} == expected
    only_dogs = instances(for_training([source], ("dog",)))
    assert {identity for identity, one in only_dogs.items() if one.has_mask} == {100, 101}


@pytest.mark.parametrize(
    "absent", [..., None, [], {}, [[]], [[], []], [[4, 4, 9, 9]], [LINE], [[5, 5] * 8], NOTHING], ids=str
)
def test_forms_of_an_absent_mask(absent: Any, tmp_path: Path) -> None:
    assert not instances(read(with_first(tmp_path, segmentation=absent)))[100].has_mask


@pytest.mark.parametrize("present", [[POLYGON], [EIGHT], [[4, 4, 9, 9], POLYGON], LIST, TEXT, [RECTANGLE]], ids=str)
def test_forms_of_a_mask(present: Any, tmp_path: Path) -> None:
    found = instances(read(with_first(tmp_path, segmentation=present)))[100].segmentation
    assert found is not None
    expected = coco_mask.frPyObjects([present[-1]], HEIGHT, WIDTH) if isinstance(present, list) else [TEXT]
    np.testing.assert_array_equal(bitmap(found, HEIGHT, WIDTH), coco_mask.decode(expected[0]) > 0)


@pytest.mark.parametrize(
    ("form", "box", "is_box"),
    [
        ([RECTANGLE], (4, 4, 20, 20), True),
        ([RECTANGLE + RECTANGLE[:2]], (4, 4, 20.5, 20), True),
        ([RECTANGLE[4:] + RECTANGLE[:4]], (4, 4, 20, 20), True),
        ([RECTANGLE], (4, 4, 24, 20), False),
        ([POLYGON], (4, 4, 20, 20), False),
        ([EIGHT], (4, 4, 20, 20), False),
        ([RECTANGLE, POLYGON], (4, 4, 20, 20), False),
        (rle.encode(np.pad(np.ones([9, 8], bool), [(3, HEIGHT - 12), (5, WIDTH - 13)])), (5, 3, 13, 12), True),
        (TEXT, (22, 3, 40, 30), False),
    ],
    ids=str,
)
def test_rectangles_that_pose_as_masks(form: Any, box: Any, is_box: bool, tmp_path: Path) -> None:
    found = instances(read(with_first(tmp_path, segmentation=form)))[100]
    assert found.segmentation is not None
    assert segmentations.is_box(found.segmentation, box) == is_box


@pytest.mark.parametrize(
    ("changes", "kind", "what"),
    [
        ({"bbox": [1, 2, 3]}, "malformed", "bbox: expected [x, y, width, height], found [1, 2, 3]"),
        ({"bbox": [1, 2, float("nan"), 4]}, "malformed", "bbox.width: expected a number from 0 to 100000, found nan"),
        ({"bbox": [1, 2, float("inf"), 4]}, "malformed", "bbox.width: expected"),
        ({"bbox": [1, 2, -3, 4]}, "malformed", "bbox.width: expected a number from 0 to 100000, found -3"),
        ({"bbox": [1e300, 2, 3, 4]}, "malformed", "bbox.x: expected"),
        ({"bbox": [10**400, 2, 3, 4]}, "malformed", "bbox.x: expected"),
        ({"bbox": ["1", 2, 3, 4]}, "malformed", "bbox.x: expected"),
        ({"bbox": [True, 2, 3, 4]}, "malformed", "bbox.x: expected"),
        ({"id": ...}, "malformed", "id: expected"),
        ({"id": 101}, "duplicate", "id: expected a unique id, found 101 again"),
        ({"iscrowd": "yes"}, "malformed", "iscrowd: expected 0 or 1, found 'yes'"),
        ({"category_id": 3}, "unknown_category", "category_id: expected the id of a category, found 3"),
        ({"category_id": "18"}, "unknown_category", "category_id: expected the id of a category, found '18'"),
        ({"image_id": 9}, "unknown_image", "image_id: expected the id of an image, found 9"),
        ({"image_id": [1]}, "malformed", "image_id: expected a whole number"),
        ({"segmentation": "none"}, "malformed", "segmentation: expected polygons, run lengths or nothing, found"),
        ({"segmentation": POLYGON}, "malformed", "segmentation: expected polygons, each an even number of numbers"),
        ({"segmentation": [POLYGON[:-1]]}, "malformed", "segmentation: expected polygons, each an even"),
        ({"segmentation": [[*POLYGON, "1", 2]]}, "malformed", "segmentation: expected polygons"),
        ({"segmentation": [[*POLYGON, float("nan"), 2]]}, "malformed", "segmentation: expected polygons"),
        ({"segmentation": [[*POLYGON, 1e9, 2]]}, "malformed", "segmentation: expected polygons"),
        ({"segmentation": [[*POLYGON, 10**400, 2]]}, "malformed", "segmentation: expected polygons"),
        ({"segmentation": {"counts": [1]}}, "malformed", "segmentation.size: expected [height, width], found None"),
        ({"segmentation": LIST | {"size": [WIDTH, HEIGHT]}}, "rle_size", "segmentation.size: expected [36, 48]"),
        ({"segmentation": LIST | {"counts": [1, 2]}}, "broken_mask", "segmentation.counts: expected runs that add"),
        ({"segmentation": LIST | {"counts": [-1, 2]}}, "broken_mask", "segmentation.counts: expected runs that add"),
        ({"segmentation": LIST | {"counts": [1.5]}}, "malformed", "segmentation.counts: expected text or a list"),
        ({"segmentation": LIST | {"counts": 5}}, "malformed", "segmentation.counts: expected text or a list"),
        ({"segmentation": TEXT | {"counts": ""}}, "broken_mask", "segmentation.counts: expected run lengths in COCO's"),
        ({"segmentation": TEXT | {"counts": "ö"}}, "broken_mask", "segmentation.counts: expected run lengths"),
        ({"segmentation": TEXT | {"counts": TEXT["counts"][:-1]}}, "broken_mask", "segmentation.counts: expected"),
    ],
    ids=str,
)  # fmt: skip
def test_records_that_do_not_fit(changes: dict[str, Any], kind: str, what: str, tmp_path: Path) -> None:
    source = with_first(tmp_path, **changes)
    with pytest.raises(BadInput) as caught:
        read(source)
    # A duplicate is seen where it stands for the second time.
    assert str(caught.value).startswith("instances.json: annotations[")
    assert f": {what}" in str(caught.value)
    problems: list[Problem] = []
    dataset = read(source, problems.append)
    assert [problem.kind for problem in problems] == [kind]
    assert len(instances(dataset)) == 5


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda data: data.pop("images"), "expected a COCO file with the lists images, annotations and categories"),
        (lambda data: data.update(annotations={}), "found annotations: {}"),
        (lambda data: data["images"][0].pop("file_name"), "images[0] (id 1): file_name: expected text, found None"),
        (lambda data: data["images"][0].update(file_name="a\0b"), "images[0] (id 1): file_name: expected text"),
        (lambda data: data["images"][0].update(file_name="\ud800"), "images[0] (id 1): file_name: expected text"),
        (lambda data: data["images"][0].update(width=0), "images[0] (id 1): width: expected a whole number from 1 to"),
        (lambda data: data["images"][0].update(width=10**9), "images[0] (id 1): width: expected"),
        (lambda data: data["images"][0].update(width=None), "images[0] (id 1): width: expected"),
        (lambda data: data["images"][1].update(id=1), "images[1] (id 1): id: expected a unique id, found 1 again"),
        (lambda data: data["categories"][1].update(name="dog"), "categories[1] (id 7): expected a unique id and name"),
        (lambda data: data["categories"][1].update(id=18), "categories[1] (id 18): expected a unique id and name"),
        (lambda data: data["categories"].append(None), "categories[2]: id: expected a whole number"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit(change: Callable[[dict[str, Any]], object], what: str, tmp_path: Path) -> None:
    data = coco_data()
    change(data)
    with pytest.raises(BadInput) as caught:
        read(DataFiles(tmp_path, write_json(tmp_path / "instances.json", data)))
    assert what in str(caught.value)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "expected JSON: line 1"),
        (b"{", "expected JSON: line 1"),
        (b"\xff\xfe\x00", "expected UTF-8 text, found byte 0xff"),
        (b"[" * 100_000, "expected JSON: "),
        (b'{"images": ' + b"9" * 5000 + b"}", "expected JSON: "),
        (b"[1]", "expected a COCO file"),
    ],
)
def test_content_that_is_no_coco_file(content: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(BadInput, match=what):
        read(DataFiles(tmp_path, tmp_path / "a.json"))


def test_numbers_written_as_floats_and_sizes_left_out(tmp_path: Path) -> None:
    data = coco_data()
    data["images"][0] |= {"width": float(WIDTH), "id": 1.0}
    dataset = read(DataFiles(tmp_path, write_json(tmp_path / "a.json", data)))
    assert (dataset.images[0].width, dataset.images[0].id) == (WIDTH, 1)
    del data["images"][0]["width"], data["images"][0]["height"]
    with pytest.raises(BadInput, match=r"images\[0\]: expected an image, found no such file"):
        read(DataFiles(tmp_path, write_json(tmp_path / "a.json", data)))


def test_masks_of_a_second_file(tmp_path: Path) -> None:
    apart = {**coco_data(), "annotations": [{"id": 104, "image_id": 1, "segmentation": LIST}]}
    source = DataFiles(
        tmp_path, write_json(tmp_path / "a.json", coco_data()), masks_b=write_json(tmp_path / "b.json", apart)
    )
    for policy, expected in (("all", {100, 101, 105}), ("oracle", {100, 101, 104, 105})):
        assert {key for key, one in instances(for_training([source], policy)).items() if one.has_mask} == expected
    assert instances(for_evaluation([source]))[104].has_mask
    made = coco_data()
    for one in made["annotations"]:
        one |= {"segmentation": LIST, "mask_source": "grabcut", "mask_quality": 0.9}
    write_json(tmp_path / "a.json", made)
    assert {key for key, one in instances(for_evaluation([source])).items() if one.has_mask} == {104}
    made["annotations"][0]["mask_quality"] = 2
    write_json(tmp_path / "a.json", made)
    with pytest.raises(BadInput, match="mask_quality: expected a number from 0 to 1, found 2"):
        read(source)
    write_json(tmp_path / "a.json", coco_data())
    with pytest.raises(BadInput, match="masks: oracle: expected a data set with masks_b"):
        for_training([source._replace(masks_b=None)], "oracle")
    apart["annotations"][0]["image_id"] = 2
    write_json(tmp_path / "b.json", apart)
    with pytest.raises(BadInput, match=r"b.json: annotations\[0\] \(id 104\): expected an annotation of a.json"):
        for_evaluation([source])
    for_training([source], "all")  # which does not open that file


def test_masks_of_a_second_file_that_are_missing_or_made_by_a_program(tmp_path: Path) -> None:
    entries: list[dict[str, Any]] = [
        {"id": 100, "image_id": 1, "segmentation": []},
        {"id": 104, "image_id": 1, "segmentation": LIST, "mask_source": "grabcut", "mask_quality": 0.9},
    ]
    apart = {**coco_data(), "annotations": entries}
    source = DataFiles(
        tmp_path, write_json(tmp_path / "a.json", coco_data()), masks_b=write_json(tmp_path / "b.json", apart)
    )
    learned = instances(for_training([source], "oracle"))
    assert {key for key, one in learned.items() if one.has_mask} == {100, 101, 104, 105}
    assert (learned[104].mask_source, learned[104].mask_quality) == ("grabcut", 0.9)
    assert {key for key, one in instances(for_evaluation([source])).items() if one.has_mask} == {100, 101, 105}
    entries.append(entries[0])
    write_json(tmp_path / "b.json", apart)
    with pytest.raises(
        BadInput, match=r"b.json: annotations\[2\] \(id 100\): id: expected a unique id, found 100 again"
    ):
        for_evaluation([source])


def test_class_names_alone(tmp_path: Path) -> None:
    assert coco.read_class_names(write_json(tmp_path / "a.json", coco_data())) == ("dog", "traffic light")
