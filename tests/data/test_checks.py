"""The checks: each kind of problem is found, reported in one line, and classified as error or warning."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskx_tf.data.checks import EXAMPLES, Findings, check
from maskx_tf.data.formats.readers import DataFiles, for_training, read
from maskx_tf.data.formats.records import Unfit
from maskx_tf.data.images import load_pixels
from maskx_tf.data.problems import PROBLEM_KINDS
from maskx_tf.errors import BadInput
from maskx_tf.masks import rle
from maskx_tf.masks.rgb import ROTATION
from tests.data import samples
from tests.data.samples import HEIGHT, POLYGON, WIDTH, blob, coco_data, write_json

# A sample that is right has images in COCO's training, crowds, and classes without masks; nothing of that is wrong.
HARMLESS = {"rectangle_mask", "unused_class", "no_masks", "empty_image", "skipped_shape"}


def kinds(source: DataFiles, policy: Any = "all", **options: Any) -> dict[str, int]:
    return dict(check(source, policy, **options)[1].counts)


@pytest.mark.parametrize("name", samples.SAMPLES)
def test_nothing_is_wrong_with_the_samples(name: str, tmp_path: Path) -> None:
    _, findings = check(samples.SAMPLES[name](tmp_path))
    assert findings.wrong == 0
    assert set(findings.counts) <= HARMLESS


def test_the_right_sample_of_coco_is_clean(tmp_path: Path) -> None:
    started: list[int] = []
    advanced: list[int] = []
    dataset, findings = check(samples.coco(tmp_path), started=started.append, advance=lambda: advanced.append(1))
    assert findings.as_data() == []
    assert (started, len(advanced)) == ([2], 2)
    assert len(dataset.images) == 2


def _truncate(path: Path, share: float = 0.6) -> None:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def _turned(path: Path) -> None:
    exif = Image.Exif()
    exif[ROTATION] = 6
    samples.picture(path, exif=exif)


def _as(form: str, mode: str = "RGB") -> Callable[[Path], Any]:
    return lambda path: Image.new(mode, (WIDTH, HEIGHT)).save(path, form)


def _exploding(path: Path) -> None:
    """A PNG whose header promises more pixels than any memory holds."""
    data = bytearray(path.with_suffix(".png").read_bytes() if path.suffix == ".png" else _png())
    data[16:24] = (100_000).to_bytes(4) * 2
    path.write_bytes(bytes(data))


def _png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (9, 9)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (Path.unlink, {"missing_image": 1}),
        (_truncate, {"broken_image": 1}),
        (lambda path: _truncate(path, 0.98), {"broken_image": 1}),
        (lambda path: path.write_bytes(b""), {"broken_image": 1}),
        (lambda path: path.write_text("no picture"), {"broken_image": 1}),
        (_exploding, {"broken_image": 1}),
        (_as("GIF"), {"broken_image": 1}),
        (_as("PPM"), {"broken_image": 1}),
        (_as("TIFF", "F"), {"broken_image": 1, "image_type": 1}),
        (_as("TIFF"), {"image_type": 1}),
        (_as("WEBP"), {"image_type": 1}),
        (_as("PNG", "I;16"), {"image_type": 1}),
        (_as("PNG", "LA"), {"image_type": 1}),
        (lambda path: samples.picture(path, HEIGHT, WIDTH), {"image_size": 1}),
        (lambda path: samples.picture(path, format="PNG"), {"image_type": 1}),
        (_turned, {"image_turn": 1}),
        (lambda path: (path.unlink(), path.mkdir()), {"broken_image": 1}),
        (lambda path: Image.new("L", (WIDTH, HEIGHT)).save(path), {}),
        (lambda path: Image.new("CMYK", (WIDTH, HEIGHT)).save(path), {}),
    ],
)
def test_images(damage: Callable[[Path], Any], expected: dict[str, int], tmp_path: Path) -> None:
    source = samples.coco(tmp_path)
    damage(source.images / "a.jpg")
    assert kinds(source) == expected
    assert kinds(source, with_images=False) == {}
    record = read(source).images[0]
    if any(PROBLEM_KINDS[kind].wrong for kind in expected):  # then the pipeline stops, and otherwise it does not
        with pytest.raises(Unfit):
            load_pixels(record)
    else:
        assert load_pixels(record).shape == (HEIGHT, WIDTH, 3)


def test_a_truncated_png(tmp_path: Path) -> None:
    source = samples.coco(tmp_path)
    _truncate(source.images / "deep" / "b.png")
    _, findings = check(source)
    assert [(one.kind, one.where) for one in findings.examples["broken_image"]] == [
        ("broken_image", "instances.json: image 2 (b.png)")
    ]


RECTANGLE = [[4, 4, 20, 4, 20, 20, 4, 20]]


@pytest.mark.parametrize(
    ("number", "changes", "expected"),
    [
        (2, {"bbox": [40, 20, 10, 10]}, {"box_beyond": 1}),
        (2, {"bbox": [40, 20, 8.9, 10]}, {}),
        (2, {"bbox": [60, 20, 10, 10]}, {"box_empty": 1}),
        (2, {"bbox": [6, 20, 0, 10]}, {"box_empty": 1}),
        (2, {"bbox": [6, 20, float("nan"), 10]}, {"malformed": 1}),
        (2, {"category_id": 3}, {"unknown_category": 1}),
        (2, {"id": 101}, {"duplicate": 1}),
        (2, {"bbox": [4, 4, 16, 16]}, {"same_box": 1}),
        (0, {"segmentation": RECTANGLE}, {"rectangle_mask": 1}),
        (0, {"segmentation": [[4, 4, 9, 9]]}, {"short_polygon": 1}),
        (0, {"segmentation": [POLYGON, [4, 4, 9, 9, 14, 14]]}, {"short_polygon": 1}),
        (0, {"bbox": [25, 22, 9, 9]}, {"mask_elsewhere": 1}),
        (0, {"bbox": [10, 4, 16, 16]}, {"mask_fit": 1}),
        (0, {"bbox": [5, 4, 15, 16]}, {}),
        (1, {"bbox": [23, 2, 18, 28]}, {}),
        (1, {"bbox": [2, 20, 10, 10]}, {"mask_elsewhere": 1}),
        (1, {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}}, {"empty_mask": 1}),
        (1, {"segmentation": {"size": [HEIGHT, WIDTH], "counts": "junk"}}, {"broken_mask": 1}),
        (1, {"segmentation": {"size": [9, 9], "counts": [81]}}, {"rle_size": 1}),
        (5, {"bbox": [2, 20, 10, 10]}, {}),
    ],
    ids=str,
)
def test_annotations(number: int, changes: dict[str, Any], expected: dict[str, int], tmp_path: Path) -> None:
    source = samples.coco(tmp_path)
    data = coco_data()
    data["annotations"][number] |= changes
    write_json(source.annotations, data)
    _, findings = check(source)
    assert findings.counts == expected
    assert (findings.wrong > 0) == any(PROBLEM_KINDS[kind].wrong for kind in expected)
    for examples in findings.examples.values():
        assert all("instances.json: " in one.where for one in examples)
        assert all("expected" in one.what and "found" in one.what for one in examples)


def test_classes_and_policies(tmp_path: Path) -> None:
    source = samples.coco(tmp_path)
    data = coco_data()
    data["categories"].append({"id": 99, "name": "unicorn"})
    data["images"].append({"id": 3, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT})
    del data["annotations"][5]
    write_json(source.annotations, data)
    assert kinds(source) == {"unused_class": 1, "empty_image": 1}
    assert kinds(source, ("dog",)) == {"unused_class": 1, "empty_image": 1}
    assert kinds(source, ("traffic light",)) == {
        "unused_class": 1,
        "empty_image": 1,
        "maskless_class": 1,
        "no_masks": 1,
    }


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    source = samples.coco(tmp_path)
    write_json(source.annotations, {"images": [], "annotations": [], "categories": []})
    _, findings = check(source)
    assert findings.counts == {"nothing": 1}
    assert findings.wrong == 1
    with pytest.raises(BadInput, match=r"instances.json: expected images and classes, found 0 images and 0 classes"):
        for_training([source], "all")


def test_corners_in_place_of_sizes(tmp_path: Path) -> None:
    source = samples.coco(tmp_path)
    data = coco_data()
    base = data["annotations"][2]
    data["annotations"] = [base | {"id": i, "bbox": [30 + i % 5, 10 + i, 40 + i % 5, 20 + i]} for i in range(14)]
    write_json(source.annotations, data)
    found = kinds(source)
    assert found["box_form"] == 1
    assert found["box_beyond"] >= 10


def test_masks_in_files(tmp_path: Path) -> None:
    source = samples.open_images(tmp_path)
    mask = tmp_path / "masks" / "0a1b_m1_x.png"
    good = mask.read_bytes()
    mask.write_bytes(good[:60])
    assert kinds(source)["broken_mask"] == 1
    Image.new("1", (9, 9)).save(mask)
    assert kinds(source)["empty_mask"] == 1
    mask.unlink()
    found = kinds(source)
    assert found["missing_mask"] == 1
    assert not any(PROBLEM_KINDS[kind].wrong for kind in found)


def test_masks_that_are_kept_apart_are_checked(tmp_path: Path) -> None:
    source = samples.coco(tmp_path)
    far = rle.encode(blob(2, 2, 9, 9) > 0)
    apart = {**coco_data(), "annotations": [{"id": 104, "image_id": 1, "segmentation": far}]}
    source = source._replace(masks_b=write_json(tmp_path / "b.json", apart))
    assert kinds(source) == {"mask_elsewhere": 1}


def test_masks_that_are_kept_apart_do_not_hide_that_training_has_none(tmp_path: Path) -> None:
    source = samples.coco(tmp_path)
    with pytest.raises(BadInput, match="masks: oracle: expected a data set with masks_b"):
        check(source, "oracle")
    form = rle.encode(blob(30, 20, 39, 29) > 0)
    apart = {**coco_data(), "annotations": [{"id": 104, "image_id": 1, "segmentation": form}]}
    source = source._replace(masks_b=write_json(tmp_path / "b.json", apart))
    assert kinds(source, ("traffic light",)) == {"maskless_class": 1, "no_masks": 1}
    assert kinds(source, "oracle") == {}


def test_problems_are_counted_after_the_last_example(tmp_path: Path) -> None:
    source = samples.coco(tmp_path)
    data = coco_data()
    data["annotations"] = [{"id": i} for i in range(3 * EXAMPLES)]
    write_json(source.annotations, data)
    _, findings = check(source)
    assert findings.counts["malformed"] == findings.wrong == 3 * EXAMPLES
    assert len(findings.examples["malformed"]) == EXAMPLES
    first, *others = findings.as_data()
    assert (first["kind"], first["wrong"], first["count"]) == ("malformed", True, 3 * EXAMPLES)
    assert not any(one["wrong"] for one in others)


def test_every_kind_says_what_training_does() -> None:
    assert all(kind.title and kind.effect for kind in PROBLEM_KINDS.values())
    assert Findings().as_data() == []


def test_a_rectangle_of_a_map_is_found(tmp_path: Path) -> None:
    source = samples.masks(tmp_path)
    ids = np.zeros([HEIGHT, WIDTH], int)
    ids[3:9, 5:20] = 1
    samples.ids_png(source.annotations / "dog" / "a.png", ids)
    assert kinds(source)["rectangle_mask"] == 1


def test_the_manual_lists_every_kind() -> None:
    manual = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    for kind in PROBLEM_KINDS.values():
        assert f"| {'error' if kind.wrong else 'warning'} | {kind.title} | {kind.effect} |" in manual
