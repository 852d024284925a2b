"""Formats of annotation tools: what is read, and that written files are read back."""

from __future__ import annotations

import json
import re
from array import array
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

from maskx_tf import cli
from maskx_tf.data.annotators import label_studio, yolo
from maskx_tf.data.annotators.yolo import joined
from maskx_tf.data.dataset import Dataset, ImageRecord, Instance, bitmap
from maskx_tf.data.formats.readers import WRITERS, DataFiles, read
from maskx_tf.data.problems import Problem
from maskx_tf.errors import BadInput
from maskx_tf.masks import rle
from maskx_tf.masks.polygons import outlines
from tests.data import samples
from tests.data.samples import HEIGHT, POLYGON, WIDTH, blob

FILES = {"coco": "out.json", "yolo": "out", "label_studio": "out.json", "cvat": "out.xml"}


def mask_of(one: Instance) -> np.ndarray:
    return bitmap(one.segmentation, HEIGHT, WIDTH)


def polygon_mask(points: list[float]) -> np.ndarray:
    return rle.bitmap_of(rle.of_any_form([points], HEIGHT, WIDTH))


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """A polygon, a mask of two parts, a box, a crowd, and an image in a folder of its own without objects."""
    images = [samples.picture(tmp_path / "photos" / name) for name in ("a.png", "deep/b c.png")]
    two = rle.encode((blob(3, 3, 15, 15) + blob(20, 10, 40, 30)) > 0)
    instances = (
        Instance((4, 4, 20, 20), 2, segmentation=(array("d", POLYGON),), id=1),
        Instance((3, 3, 40, 30), 1, segmentation=two, id=2, mask_source="grabcut", mask_quality=0.5),
        Instance((10, 5.5, 40.25, 30), 2, id=3),
        Instance((0, 0, 40, 30), 2, crowd=True, id=4),
    )
    records = (ImageRecord(1, images[0], WIDTH, HEIGHT, instances), ImageRecord(2, images[1], WIDTH, HEIGHT))
    return Dataset("made", ("Katze & Co", "dog"), (7, 9), records)


@pytest.mark.parametrize("form", FILES)
def test_what_is_written_comes_back(data: Dataset, form: str, tmp_path: Path) -> None:
    out = tmp_path / FILES[form]
    WRITERS[form](data, out, tmp_path / "photos")
    again = read(DataFiles(tmp_path / "photos", out, form))
    assert again.class_names == data.class_names
    assert [image.file for image in again.images] == [image.file for image in data.images]
    assert [(image.width, image.height) for image in again.images] == [(WIDTH, HEIGHT)] * 2
    assert again.images[1].instances == ()
    found = again.images[0].instances[:3]
    assert [one.label for one in found] == [2, 1, 2]
    for one, other in zip(found[:2], data.images[0].instances, strict=False):
        np.testing.assert_array_equal(mask_of(one), mask_of(other))
        np.testing.assert_allclose(one.box, other.box, atol=1)
    assert not found[2].has_mask
    np.testing.assert_allclose(found[2].box, (10, 5.5, 40.25, 30), atol=0.01)
    assert len(again.images[0].instances) == (4 if form == "coco" else 3)


def test_a_written_file_is_what_the_tool_reads(data: Dataset, tmp_path: Path) -> None:
    for form, name in FILES.items():
        (tmp_path / form).mkdir()
        WRITERS[form](data, tmp_path / form / name, tmp_path / "photos")
    yolo = yaml.safe_load((tmp_path / "yolo" / "out" / "data.yaml").read_text())
    assert yolo["names"] == {0: "Katze & Co", 1: "dog"}
    text = (tmp_path / "yolo" / "out" / "labels" / "a.txt").read_text().splitlines()
    assert text[2] == "1 0.5234375 0.4930556 0.6302083 0.6805556"
    assert (tmp_path / "yolo" / "out" / "labels" / "deep" / "b c.txt").read_text() == ""
    task = json.loads((tmp_path / "label_studio" / "out.json").read_text())[0]
    assert task["data"] == {"image": "a.png"}
    brush, made, box = task["annotations"][0]["result"]
    assert (brush["type"], brush["value"]["format"], made["score"]) == ("brushlabels", "rle", 0.5)
    assert box["value"]["x"] == pytest.approx(100 * 10 / WIDTH)
    root = ElementTree.parse(tmp_path / "cvat" / "out.xml").getroot()
    assert [label.text for label in root.iter("name")] == ["Katze & Co", "dog"]
    first = root.find("image")
    assert [(child.tag, child.get("source")) for child in first] == [
        ("mask", "manual"),
        ("mask", "auto"),
        ("box", "manual"),
    ]
    for mask in first.iter("mask"):
        assert sum(map(int, mask.get("rle").split(","))) == int(mask.get("width")) * int(mask.get("height"))


def test_convert_writes_each_format(data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    WRITERS["coco"](data, tmp_path / "in.json", tmp_path / "photos")
    where = ["data", "convert", "--images", str(tmp_path / "photos"), "--annotations", str(tmp_path / "in.json")]
    assert cli.run([*where, "--to", "cvat", "--out", str(tmp_path / "out.xml")]) == 0
    assert "2 images, 4 instances, 2 with masks" in capsys.readouterr().out
    assert len(read(DataFiles(tmp_path / "photos", tmp_path / "out.xml", "cvat")).images) == 2
    assert cli.run([*where, "--to", "voc", "--out", str(tmp_path / "no")]) == 2
    assert "--to: expected one of coco, yolo, label_studio, cvat, found 'voc'" in capsys.readouterr().err


def test_yolo(tmp_path: Path) -> None:
    dataset = read(samples.yolo(tmp_path))
    assert dataset.class_names == ("cat", "dog")
    first, third, second = dataset.images
    polygon, box = first.instances
    np.testing.assert_allclose(polygon.box, (4, 4, 20, 20), atol=1e-3)
    np.testing.assert_array_equal(mask_of(polygon), polygon_mask(POLYGON))
    assert (box.box, box.has_mask, box.label) == ((18, 9, 30, 27), False, 1)
    assert third.instances == ()
    assert second.instances[0].box == (0, 0, WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("2 0.5 0.5 0.1 0.1", r"labels/a\.txt: line 1: class: expected a number from 0 to 1, found '2'"),
        ("0 0.5 0.5 0.1", "line 1: expected a box of 4 numbers, or a polygon of 6 or more, found 3"),
        ("0 0.5 0.5 0.1 x", "line 1: number: expected a number from -1 to 2, found 'x'"),
        ("0.5 0.5 0.5 0.1 0.1", "line 1: class: expected a whole number"),
    ],
)
def test_a_wrong_line_of_yolo(line: str, problem: str, tmp_path: Path) -> None:
    source = samples.yolo(tmp_path)
    (tmp_path / "labels" / "a.txt").write_text(line)
    problems: list[Problem] = []
    assert read(source, problems.append).images[0].instances == ()
    assert [re.search(problem, f"{one.where}: {one.what}") is None for one in problems] == [False]


@pytest.mark.parametrize(
    "moves", [{"images": "images/val", "labels": "labels/val"}, {".": "val"}], ids=["parts", "split"]
)
def test_both_usual_layouts_of_yolo(moves: dict[str, str], tmp_path: Path) -> None:
    """images/val with labels/val, and val/images with val/labels; data.yaml lies above."""
    source = samples.yolo(tmp_path / "plain")
    expected = read(source)
    root = tmp_path / "new"
    root.mkdir()
    source.annotations.rename(root / "data.yaml")
    for old, new in moves.items():
        (root / new).parent.mkdir(exist_ok=True)
        (tmp_path / "plain" / old).rename(root / new)
    images = root / ("images/val" if "images" in moves else "val/images")
    found = read(DataFiles(images, root / "data.yaml", "yolo"))
    assert [image.instances for image in found.images] == [image.instances for image in expected.images]
    assert sum(len(image.instances) for image in found.images) == 3


def test_a_folder_of_yolos_text_files_may_serve_several_folders_of_images(tmp_path: Path) -> None:
    source = samples.yolo(tmp_path)
    (tmp_path / "labels" / "deep" / "b.txt").rename(tmp_path / "labels" / "b.txt")
    (source.images / "val").mkdir()
    (source.images / "a.jpg").rename(source.images / "val" / "a.jpg")
    found = [read(source._replace(images=source.images / part)).images for part in ("deep", "val")]
    assert [[(one.id, len(one.instances)) for one in images] for images in found] == [[("b", 1)], [("a", 2)]]


def test_text_files_of_yolo_and_images_that_miss_each_other(tmp_path: Path) -> None:
    source = samples.yolo(tmp_path)
    for name in ("gone.txt", "classes.txt", "._a.txt"):  # a tool's list of classes, and what some systems leave
        (tmp_path / "labels" / name).write_text("cat")
    problems: list[Problem] = []
    read(source, problems.append)
    assert [(one.kind, Path(one.where).name) for one in problems] == [("unknown_image", "gone.txt")]
    (tmp_path / "labels").rename(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match=r"labels: expected a text file for an image of .*images, found none"):
        read(source)


def test_images_of_yolo_that_differ_in_their_suffix_alone(tmp_path: Path) -> None:
    """One text file cannot say which of them it is of, neither in reading nor in writing."""
    source = samples.yolo(tmp_path)
    samples.picture(source.images / "._a.jpg")  # hidden, as some systems leave them
    assert len(read(source).images) == 3
    dataset = read(source)
    samples.picture(source.images / "a.png")
    problems: list[Problem] = []
    assert len(read(source, problems.append).images) == 3
    assert [one.kind for one in problems] == ["duplicate"]
    twice = dataset.images[0]._replace(id="b", file=source.images / "a.png")
    with pytest.raises(BadInput, match="a: expected one image of this name"):
        yolo.write(dataset._replace(images=(*dataset.images, twice)), tmp_path / "out", source.images)
    with pytest.raises(BadInput, match="expected images in"):
        yolo.write(dataset, tmp_path / "out", source.images / "elsewhere")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("names", ["names: [cat, cat]", "names: {1: cat}", "names: 3", "[", ""])
def test_wrong_names_of_yolo(names: str, tmp_path: Path) -> None:
    source = samples.yolo(tmp_path)
    source.annotations.write_text(names)
    with pytest.raises(BadInput, match=r"data\.yaml: "):
        read(source)


def test_parts_are_joined_without_a_pixel_more() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        mask = np.zeros([HEIGHT, WIDTH], bool)
        for _ in range(4):
            left, top = rng.integers(0, [WIDTH - 8, HEIGHT - 8])
            mask[top : top + rng.integers(1, 8), left : left + rng.integers(1, 8)] = True
        parts = outlines(mask)
        separate = rle.bitmap_of(rle.of_any_form([part.ravel().tolist() for part in parts], HEIGHT, WIDTH))
        np.testing.assert_array_equal(polygon_mask(joined(parts).ravel().tolist()), separate)


def test_label_studio(tmp_path: Path) -> None:
    dataset = read(samples.label_studio(tmp_path))
    assert dataset.class_names == ("ball", "cat", "dog")
    polygon, rectangle, ellipse, brush = dataset.images[0].instances
    np.testing.assert_array_equal(mask_of(polygon), polygon_mask(POLYGON))
    turn = np.deg2rad(10)
    # A rectangle of 12 x 9 pixels, turned around its corner at (12, 9).
    expected = (12 - 9 * np.sin(turn), 9, 12 + 12 * np.cos(turn), 9 + 12 * np.sin(turn) + 9 * np.cos(turn))
    np.testing.assert_allclose(rectangle.box, expected)
    assert not rectangle.has_mask
    np.testing.assert_allclose(ellipse.box, (24 - 4.8, 18 - 7.2, 24 + 4.8, 18 + 7.2), atol=0.02)
    assert brush.box == (3, 3, 12, 9)
    np.testing.assert_array_equal(mask_of(brush), blob(3, 3, 12, 9) > 0)
    assert dataset.images[1].instances == ()


def test_results_of_label_studio_that_are_no_shapes_are_reported(tmp_path: Path) -> None:
    problems: list[Problem] = []
    read(samples.label_studio(tmp_path), problems.append)
    assert [(one.kind, one.where) for one in problems] == [("skipped_shape", "tasks.json: task 0: result 4")]
    assert "found 'keypointlabels'" in problems[0].what


@pytest.mark.parametrize("name", ["b#1.png", "a?d=b.png", "%41.png"])
def test_names_that_mean_something_in_an_address_come_back(name: str, tmp_path: Path) -> None:
    samples.picture(tmp_path / "photos" / name)
    image = ImageRecord("x", tmp_path / "photos" / name, WIDTH, HEIGHT)
    label_studio.write(Dataset("x", ("cat",), (1,), (image,)), tmp_path / "out.json", tmp_path / "photos")
    found = read(DataFiles(tmp_path / "photos", tmp_path / "out.json", "label_studio"))
    assert [one.file for one in found.images] == [tmp_path / "photos" / name]


def test_an_invalid_address_is_one_line(tmp_path: Path) -> None:
    source = samples.label_studio(tmp_path)
    tasks = json.loads(source.annotations.read_text())
    tasks[0]["data"]["image"] = "http://[abc/x.png"
    source.annotations.write_text(json.dumps(tasks))
    with pytest.raises(BadInput, match=r"data\.image: expected an image"):
        read(source)


def slow_brush(mask: np.ndarray, *, in_runs: bool) -> list[int]:
    """A brush with other sizes than ours, written bit by bit: runs of one value, or values one by one."""
    flat = [255 * int(value) for value in mask.ravel() for _ in range(4)]
    bits = f"{len(flat):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (2, 3, 5, 7))
    while flat:
        length = 1
        while length < min(len(flat), 128) and (not in_runs or flat[length] == flat[0]):
            length += 1
        bits += f"{int(in_runs)}11{length - 1:07b}"
        bits += "".join(f"{value:08b}" for value in (flat[:1] if in_runs else flat[:length]))
        flat = flat[length:]
    bits += "0" * (-len(bits) % 8)
    return [int(bits[index : index + 8], 2) for index in range(0, len(bits), 8)]


@pytest.mark.parametrize("seed", range(4))
def test_a_brush_is_unpacked_whatever_its_sizes(seed: int) -> None:
    mask = np.random.default_rng(seed).random([9, 13]) < 0.4
    image = ImageRecord(1, b"", 13, 9)
    for data in (label_studio.packed(mask), slow_brush(mask, in_runs=True), slow_brush(mask, in_runs=False)):
        np.testing.assert_array_equal(label_studio.unpacked(data, image), mask)


def test_a_brush_of_a_large_even_mask_is_short() -> None:
    mask = np.zeros([500, 700], bool)
    assert len(label_studio.packed(mask)) < 100
    np.testing.assert_array_equal(
        label_studio.unpacked(label_studio.packed(~mask), ImageRecord(1, b"", 700, 500)), ~mask
    )


def test_cvat(tmp_path: Path) -> None:
    dataset = read(samples.cvat(tmp_path))
    assert dataset.class_names == ("ball", "cat", "dog")
    polygon, parts, box, ellipse, mask = dataset.images[0].instances
    np.testing.assert_array_equal(mask_of(polygon), polygon_mask(POLYGON))
    assert (parts.box, len(parts.segmentation)) == ((30, 3, 45, 9), 2)
    assert (box.box, box.has_mask) == ((10, 22.5, 20, 30), False)
    assert mask_of(ellipse).sum() == pytest.approx(np.pi * 48, rel=0.05)
    assert [tuple(place) for place in np.argwhere(mask_of(mask))] == [(5, 9), (5, 10)]
    assert mask.box == (8, 5, 12, 7)


def test_rotated_box_of_cvat(tmp_path: Path) -> None:
    """A box of 10 x 7.5 pixels around (15, 26.25)."""
    source = samples.cvat(tmp_path)
    text = source.annotations.read_text()
    for degrees in (30.0, 90.0, 200.0):
        source.annotations.write_text(text.replace('ybr="30"', f'ybr="30" rotation="{degrees}"'))
        corners = np.array([[-5, -3.75], [5, -3.75], [5, 3.75], [-5, 3.75]])
        turn = np.deg2rad(degrees)
        turned = corners @ [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]] + [15, 26.25]
        box = read(source).images[0].instances[2].box
        np.testing.assert_allclose(box, [*turned.min(axis=0), *turned.max(axis=0)])


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('rle="1, 2, 5"', 'rle="1, 2, 6"', "rle: expected runs that add up to 8, found 9"),
        ('rle="1, 2, 5"', 'rle="1, x, 5"', "rle: expected a number"),
        ('width="4" height="2"', 'width="4000" height="2"', "mask: expected 1 to 48 x 36 pixels, found 4000 x 2"),
        ('xtl="10"', "", "xtl: expected a number"),
        ("<box", "<balloon", "cvat.xml: expected CVAT's XML"),
        ("</annotations>", "", "cvat.xml: expected CVAT's XML"),
        ("<image", "<picture", "cvat.xml: expected CVAT's XML"),
    ],
)
def test_wrong_xml_of_cvat(old: str, new: str, problem: str, tmp_path: Path) -> None:
    source = samples.cvat(tmp_path)
    source.annotations.write_text(source.annotations.read_text().replace(old, new))
    with pytest.raises(BadInput, match=problem):
        read(source)
