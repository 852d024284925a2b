"""Drawing, checked by pixels: what changes, what stays, and how A and B differ."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFont

from maskx_tf.masks.paste import paste_crop
from maskx_tf.structures import Detections
from maskx_tf.visualize import class_colour, contact_sheet, draw, enlarged, legend, objects, paint

NAMES = ["dog", "cat", "hair drier", "parking meter"]
GREY = 128
PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "data" / "ccp"

# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency", 2009,
# severity 1, for linear RGB; and the least distance in Lab (CIE 1976) between colours of A and of B that we ask for.
# 2.3 is just noticeable; within A, vermillion and yellow are some 100 apart.
SIGHT = {
    "normal": (np.eye(3), 80),
    "protanopia": (
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        65,
    ),
    "deuteranopia": (
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        65,
    ),
    "tritanopia": (
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
        38,
    ),
}


def plain(height: int, width: int) -> np.ndarray:
    """A grey picture that refuses to be written to."""
    image = np.full([height, width, 3], GREY, np.uint8)
    image.setflags(write=False)
    return image


def found(boxes: Any, classes: Any = None, scores: Any = None, masks: Any = None) -> Detections:
    """Detections without padding, of class 1 unless said otherwise."""
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    classes = np.ones(len(boxes), np.int32) if classes is None else np.array(classes, np.int32)
    return Detections(boxes, scores, classes, np.ones(len(boxes), bool), masks)


def disc(side: int = 28) -> np.ndarray:
    """A round mask [1, M, M] that leaves the corners of its box free."""
    at = np.linspace(-1, 1, side)
    return (np.hypot(at[:, None], at) < 0.7).astype(np.float32)[None]


def changed(picture: np.ndarray) -> np.ndarray:
    """bool [H, W]: pixels that are no longer those of `plain`."""
    return np.any(picture != GREY, axis=-1)


@pytest.fixture
def labels(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[int, int, int, int], str]]:
    """The place and the text of every label that is painted."""
    seen: list[tuple[tuple[int, int, int, int], str]] = []
    paint_label = objects.paint_label

    def record(pen: Any, place: Any, text: str, *others: Any) -> None:
        seen.append((place, text))
        paint_label(pen, place, text, *others)

    monkeypatch.setattr(objects, "paint_label", record)
    return seen


@pytest.mark.parametrize("mode", ["continuous", "integer"])
@pytest.mark.parametrize("side", [200, 1000])
def test_mask_is_painted_on_its_pixels_alone(mode: str, side: int) -> None:
    box = np.array([0.2, 0.3, 0.9, 0.85], np.float32) * side
    picture = draw(plain(side, side), found(box, masks=disc()), NAMES, mode=mode)
    left, top, pixels = paste_crop(disc()[0], box, side, side, mode=mode)
    expected = np.zeros([side, side], bool)
    expected[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    (x1, y1), (x2, y2) = (
        box[:2].astype(int) + 10,
        box[2:].astype(int) - 10,
    )  # without the frame; the label is above the box
    np.testing.assert_array_equal(changed(picture)[y1:y2, x1:x2], expected[y1:y2, x1:x2])
    assert expected[y1:y2, x1:x2].sum() == expected.sum() > 0


def test_mask_shows_the_picture_within_and_has_a_crisp_contour() -> None:
    picture = draw(plain(200, 200), found([40, 60, 160, 180], masks=disc()), NAMES)
    colour = np.array(class_colour("dog"))
    np.testing.assert_allclose(picture[120, 100], 0.55 * GREY + 0.45 * colour, atol=1.5)
    row = picture[120, 45:100]
    start = np.flatnonzero(np.any(row != GREY, axis=-1))[0]
    np.testing.assert_array_equal(row[start], colour)  # one pixel of line in a picture of this size
    np.testing.assert_array_equal(row[start + 1], picture[120, 100])


def test_masks_follow_the_threshold() -> None:
    found_faint = found([40, 60, 160, 180], masks=0.4 * disc())
    without = draw(plain(200, 200), found_faint._replace(masks=None), NAMES)
    np.testing.assert_array_equal(draw(plain(200, 200), found_faint, NAMES), without)
    assert (draw(plain(200, 200), found_faint, NAMES, threshold=0.3) != without).any()


@pytest.mark.parametrize("side", [64, 200, 800, 2000])
def test_lines_of_a_are_solid_and_of_b_dashed_in_greyscale(side: int) -> None:
    box = np.round(np.array([0.1, 0.5, 0.9, 0.9]) * side).astype(int)
    runs = {}
    for group, a_classes in {"A": {"dog"}, "B": set(), "any": None}.items():
        picture = draw(plain(side, side), found(box), NAMES, a_classes=a_classes)
        grey = np.array(Image.fromarray(picture).convert("L")).astype(int)
        inset = max(1, round(side / 350)) // 2
        below = grey[box[3] - 1 - inset, box[0] : box[2]]
        runs[group] = 1 + np.count_nonzero(np.diff(np.abs(below - GREY) > 4))
        assert abs(below[2] - GREY) > 4
    assert runs["A"] == runs["any"] == 1
    assert runs["B"] >= 5


def test_only_labels_of_b_carry_the_marker(labels: list[Any]) -> None:
    pictures = [draw(plain(200, 200), found([50, 50, 150, 150]), NAMES, a_classes=known) for known in ({"dog"}, set())]
    (a_place, _), (b_place, _) = labels
    assert b_place[2] - b_place[0] > a_place[2] - a_place[0]
    # The marker stands in the label's corner in reversed colours.
    assert [tuple(picture[40, 50]) == class_colour("dog", True) for picture in pictures] == [True, False]
    assert tuple(pictures[1][b_place[1], b_place[2] - 1]) == class_colour("dog", False)
    assert tuple(pictures[1][b_place[1], b_place[0]]) in {(0, 0, 0), (255, 255, 255)}


def linear(colours: Any) -> np.ndarray:
    shares = np.asarray(colours) / 255
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


def contrast(colour: Any, other: Any) -> float:
    """Contrast ratio of WCAG 2.2, whose level AA asks for 4.5."""
    dark, light = sorted(float(linear(one) @ [0.2126, 0.7152, 0.0722]) + 0.05 for one in (colour, other))
    return light / dark


def lab(light: np.ndarray) -> np.ndarray:
    """Linear sRGB to CIE 1976 Lab, white D65."""
    matrix = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = light @ matrix.T / [0.95047, 1.0, 1.08883]
    roots = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = np.moveaxis(roots, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def apart(warm: Any, cool: Any, sight: str) -> float:
    """The least distance between two sets of colours, as someone with this sight sees them."""
    matrix = np.array(SIGHT[sight][0])
    a, b = (lab(np.clip(linear(colours) @ matrix.T, 0, 1)) for colours in (warm, cool))
    return float(np.linalg.norm(a[:, None] - b[None], axis=-1).min())


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_of_a_and_b_are_apart_for_the_colour_blind(sight: str) -> None:
    names = [f"class {number}" for number in range(500)]
    assert apart(*([class_colour(name, is_a) for name in names] for is_a in (True, False)), sight) >= SIGHT[sight][1]


def test_the_measure_of_colour_blindness_sees_a_bad_choice() -> None:
    red, green = [(213, 60, 0)], [(120, 120, 20)]
    assert apart(red, green, "normal") > 70 > 25 > apart(red, green, "deuteranopia")


def test_colours_come_from_the_name_alone() -> None:
    # Numbers that hold in every process, unlike Python's hash().
    assert [class_colour("cat", is_a) for is_a in (True, False, None)] == [
        (184, 70, 0),
        (26, 85, 168),
        (213, 159, 12),
    ]
    assert len({class_colour(f"class {number}", True) for number in range(100)}) >= 95
    picture, other = (
        draw(plain(99, 99), found([9, 50, 90, 90], [k]), names) for k, names in ((1, ["cat"]), (2, ["", "cat"]))
    )
    np.testing.assert_array_equal(picture, other)


@pytest.mark.parametrize("is_a", [True, False, None])
def test_text_contrasts_with_its_label(is_a: bool | None) -> None:
    for number in range(200):
        colour = class_colour(f"class {number}", is_a)
        assert contrast(colour, paint.ink(colour)) >= 4.5


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 2000), (2000, 64), (150, 100), (480, 640), (2000, 1500)])
def test_labels_lie_inside_and_hide_no_better_one(height: int, width: int, labels: list[Any]) -> None:
    rng = np.random.default_rng(height + width)
    for _ in range(5):
        corners = rng.uniform([-0.1, -0.1], [1.1, 1.1], [30, 2, 2]) * [width, height]
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=-1)
        labels.clear()
        detections = found(boxes, rng.integers(1, 5, 30), np.linspace(1, 0, 30))
        picture = draw(plain(height, width), detections, NAMES, a_classes={"dog", "cat"})
        assert picture.shape == (height, width, 3)
        assert labels
        places = np.array([place for place, _ in labels][::-1])  # best first: the best is painted last
        assert (places[:, :2] >= 0).all()
        assert (places[:, 2:] <= [width, height]).all()
        sides = np.minimum(places[:, None, 2:], places[None, :, 2:]) - np.maximum(
            places[:, None, :2], places[None, :, :2]
        )
        shared, area = np.prod(np.maximum(sides, 0), axis=-1), np.prod(places[:, 2:] - places[:, :2], axis=-1)
        assert (np.tril(shared, -1) <= 0.25 * area[:, None]).all()
        assert area.sum() <= height * width / 3


@pytest.mark.parametrize("side", [64, 100, 300, 1000, 2000])
def test_sizes_follow_the_picture(side: int, labels: list[Any]) -> None:
    picture = draw(plain(side, side), found(np.array([0.1, 0.5, 0.9, 0.9]) * side), NAMES)
    (left, top, right, bottom), text = labels[0]
    assert text == "dog"
    assert max(11, side / 55) <= bottom - top <= max(18, side / 18)
    middle = changed(picture)[int(0.7 * side), : side // 2]
    assert max(1, side / 500) <= np.count_nonzero(middle) <= max(1, side / 100)
    letters = picture[top + 2 : bottom - 2, left + 2 : right - 2].reshape(-1, 3)
    assert max(contrast(letter, class_colour("dog")) for letter in letters) >= 4.5


def test_equal_boxes_get_labels_side_by_side(labels: list[Any]) -> None:
    draw(plain(400, 400), found([[100, 100, 300, 300]] * 4, [1, 2, 3, 4]), NAMES)
    (places, texts) = zip(*labels, strict=True)
    assert texts == tuple(reversed(NAMES))
    covered = np.zeros([400, 400], int)
    for left, top, right, bottom in places:
        covered[top:bottom, left:right] += 1
    assert covered.max() == 1
    assert places[-1][3] == 100  # the best stands on its box


def test_a_label_loses_its_score_then_letters_where_room_is_short(labels: list[Any]) -> None:
    for width, names in [(200, ["sunglasses"]), (64, ["sunglasses"]), (64, ["a very long name of a class"])]:
        draw(plain(100, width), found([5, 50, 60, 90], scores=np.array([0.5])), names)
    texts = [text for _, text in labels]
    assert texts[:2] == ["sunglasses 0.50", "sunglasses"]
    assert texts[2].endswith("…")
    assert texts[2].startswith("a very")


def test_a_picture_without_room_for_text_gets_none(labels: list[Any]) -> None:
    picture = draw(plain(6, 300), found([10, 1, 200, 5]), NAMES)
    assert not labels
    assert changed(picture).any()


def test_small_boxes_are_drawn_over_large_ones() -> None:
    boxes = [[60, 60, 80, 80], [20, 60, 180, 180]]  # the upper line of both is row 60
    for order in ([0, 1], [1, 0]):
        picture = draw(plain(200, 200), found(np.array(boxes)[order], np.array([2, 1])[order]), NAMES)
        assert tuple(picture[60, 70]) == class_colour("cat")
        assert tuple(picture[60, 120]) == class_colour("dog")


def test_the_picture_given_stays_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 256, [80, 90, 3], np.uint8)
    before = image.copy()
    picture = draw(image, found([10, 10, 70, 70], masks=disc()), NAMES)
    np.testing.assert_array_equal(image, before)
    assert (picture != before).any()
    nothing = draw(image, found([]), NAMES)
    np.testing.assert_array_equal(nothing, before)
    nothing[:] = 0
    np.testing.assert_array_equal(image, before)


def test_grey_pictures_become_coloured() -> None:
    grey = np.random.default_rng(0).integers(0, 256, [80, 90], np.uint8)
    detections = found([10, 10, 70, 70], masks=disc())
    expected = draw(np.stack([grey] * 3, axis=-1), detections, NAMES)
    for image in (grey, grey[..., None]):
        np.testing.assert_array_equal(draw(image, detections, NAMES), expected)


def test_padding_is_not_looked_at() -> None:
    boxes = np.array([[10, 10, 70, 70], [np.nan] * 4, [9, 9, 2, 2]], np.float32)
    scores, classes = np.array([0.9, np.nan, 0]), np.array([1, 0, 99])
    masks = np.concatenate([disc(), np.full([2, 28, 28], np.nan, np.float32)])
    padded = Detections(boxes, scores, classes, np.array([True, False, False]), masks)
    alone = padded.mapped(lambda array: array[:1])
    np.testing.assert_array_equal(draw(plain(80, 90), padded, NAMES), draw(plain(80, 90), alone, NAMES))


@pytest.mark.parametrize("mode", ["continuous", "integer"])
@pytest.mark.parametrize(
    "box", [[-50, -50, -10, -10], [100, 20, 160, 60], [20, 100, 60, 1e9], [-1e9, -9, 1e9, 0], [100, 100, 100, 100]]
)
def test_boxes_outside_leave_no_trace(box: list[float], mode: str, labels: list[Any]) -> None:
    assert not changed(draw(plain(100, 100), found(box, masks=disc()), NAMES, mode=mode)).any()
    assert not labels


def test_boxes_are_cut_at_the_border() -> None:
    beyond = draw(plain(100, 100), found([-40, 50, 300, 900]), NAMES)
    np.testing.assert_array_equal(beyond, draw(plain(100, 100), found([0, 50, 100, 100]), NAMES))
    assert changed(beyond)[50:, [0, -1]].all()
    assert changed(beyond)[-1].all()


@pytest.mark.parametrize("mode", ["continuous", "integer"])
@pytest.mark.parametrize(
    ("box", "columns", "rows"), [([40, 50, 40, 90], 1, 40), ([20, 50, 80, 50.2], 60, 1), ([40, 50, 40, 50], 1, 1)]
)
def test_boxes_without_area_are_one_pixel_thin(box: list[float], columns: int, rows: int, mode: str) -> None:
    picture = draw(plain(100, 100), found(box, masks=disc()), NAMES, mode=mode)
    drawn = changed(picture)[50:, :]  # the label is above
    assert drawn.any(axis=1).sum() == rows
    assert drawn.any(axis=0).sum() == columns


@given(st.lists(st.floats(-300, 300, width=32), min_size=4, max_size=4), st.sampled_from(["continuous", "integer"]))
def test_any_finite_box_can_be_drawn(edges: list[float], mode: str) -> None:
    (x1, x2), (y1, y2) = sorted(edges[:2]), sorted(edges[2:])
    detections = found([x1, y1, x2, y2], masks=disc(), scores=np.ones(1))
    assert draw(plain(70, 90), detections, NAMES, a_classes=set(), mode=mode).shape == (70, 90, 3)


GOOD = found([[10, 10, 70, 70]], [1], np.ones(1), disc())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": GOOD.boxes[None]}, "no batch dimension"),
        ({"boxes": GOOD.boxes[:, :3]}, r"boxes \[D, 4\]"),
        ({"scores": np.ones(2)}, r"'scores': \[2\]"),
        ({"masks": disc()[0]}, r"masks \[D, M, M\]"),
        ({"masks": disc()[:, 1:]}, r"masks \[D, M, M\]"),
        ({"classes": np.array([5])}, r"class is 5, expected 1\.\.4"),
        ({"classes": np.array([0])}, r"class is 0, expected 1\.\.4"),
        ({"boxes": np.array([[0, 0, np.nan, 9]])}, "finite"),
        ({"boxes": np.array([[0, 0, np.inf, 9]])}, "finite"),
        ({"boxes": np.array([[9, 0, 8, 9]])}, "x1 <= x2"),
    ],
)
def test_detections_that_cannot_be_drawn(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw(plain(80, 90), GOOD._replace(**change), NAMES)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros([8, 8, 4], np.uint8),
        np.zeros([8, 8, 3]),
        np.zeros([0, 8, 3], np.uint8),
        np.zeros([1, 8, 8, 3], np.uint8),
    ],
)
def test_pictures_that_cannot_be_drawn_on(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \[H, W, 3\]"):
        draw(image, GOOD, NAMES)


def test_an_unknown_mode_of_pasting() -> None:
    with pytest.raises(ValueError, match="mode is 'round'"):
        draw(plain(80, 90), GOOD, NAMES, mode="round")


@pytest.mark.parametrize(
    ("name", "written"),
    [("hair drier", "hair drier"), ("café", "cafe"), ("Ünïcode", "Unicode"), ("犬", "#7"), ("", "#7"), ("\n", "#7"),
     ("犬 dog", "? dog"), ("two\nlines\t", "two lines"), ("ĳs", "ijs"), ("cafe\u0301", "cafe"), ("x²", "x2")],
)  # fmt: skip
def test_names_in_letters_that_the_font_has(name: str, written: str, labels: list[Any]) -> None:
    draw(plain(200, 200), found([50, 50, 150, 150], [7]), ["", "", "", "", "", "", name])
    assert [text for _, text in labels] == [written]


@pytest.mark.parametrize("width", [64, 300, 1216])
def test_legend_explains_colours_and_lines(width: int) -> None:
    strip = legend(NAMES, {"dog", "cat"}, width)
    assert strip.dtype == np.uint8
    assert strip.shape[1:] == (width, 3)
    for number, name in enumerate(NAMES, 1):
        colour = class_colour(name, number <= 2)
        assert (strip == colour).all(axis=-1).any(), name
        alone = legend(NAMES, {"dog", "cat"}, width, classes=[number])
        frame = (alone == colour).all(axis=-1)
        first = frame[np.flatnonzero(frame.any(axis=1))[0]]
        assert np.count_nonzero(np.diff(first.astype(int)) == 1) == (1 if number <= 2 else 3), "one line, or dashes"
        assert alone.shape[0] <= strip.shape[0]
    assert (strip[-1] == 255).all()
    assert np.vstack([plain(50, width), strip]).shape[0] == 50 + strip.shape[0]


def test_legend_of_one_style_and_of_nothing() -> None:
    strip = legend(NAMES, None, 400)
    assert all((strip == class_colour(name)).all(axis=-1).any() for name in NAMES)
    assert strip.shape[0] < legend(NAMES, {"dog"}, 400).shape[0]  # it has no titles
    assert legend([], {"dog"}, 400).shape[1:] == (400, 3)


def test_small_pictures_are_enlarged_with_what_is_drawn_on_them(labels: list[Any]) -> None:
    image = plain(64, 96).copy()
    image[16:48, 24:72] = 0
    picture, large = enlarged(image, found([24, 16, 72, 48], masks=disc()))
    assert picture.shape == (320, 480, 3)
    assert not picture[90:230, 130:350].any()
    assert (picture[:70] == GREY).all()
    np.testing.assert_allclose(large.boxes, [[120, 80, 360, 240]])
    np.testing.assert_array_equal(large.masks, disc())
    # Letters that can be read cover a small picture; enlarged, they leave its object to be seen.
    for shown in (enlarged(image, found([24, 16, 72, 48])), (image, found([24, 16, 72, 48]))):
        draw(*shown, ["parking meter"])
    shares = [
        (right - left) * (bottom - top) / area
        for ((left, top, right, bottom), _), area in zip(labels, (320 * 480, 64 * 96), strict=True)
    ]
    assert shares[0] < 0.03 < 0.1 < shares[1]


def test_pictures_that_are_large_enough_stay_as_they_are() -> None:
    image, detections = plain(100, 480), found([10, 10, 60, 60])
    picture, same = enlarged(image, detections)
    np.testing.assert_array_equal(picture, image)
    assert same is detections


def test_contact_sheet_shows_every_picture_in_its_cell() -> None:
    sizes = [(10, 20), (300, 50), (60, 60), (7, 7), (200, 400)]
    pictures = [np.full([*size, 3], 40 * number, np.uint8) for number, size in enumerate(sizes, 1)]
    sheet = contact_sheet(pictures, 3, (100, 80))
    assert 3 * 100 < sheet.shape[1] <= 3 * 100 + 4 * 12
    assert 2 * 80 < sheet.shape[0] <= 2 * 80 + 3 * 12
    for number, (high, wide) in enumerate([(50, 100), (80, 13), (80, 80), (80, 80), (50, 100)], 1):
        rows, columns = np.nonzero((sheet == 40 * number).all(axis=-1))
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1, len(rows)) == (high, wide, high * wide)
    captioned = contact_sheet([*pictures, np.zeros([5, 5], np.uint8)], 3, (100, 80), ["a picture"] * 6)
    assert captioned.shape[0] >= sheet.shape[0] + 2 * 11
    assert contact_sheet([], 3, (100, 80)).size


@pytest.mark.parametrize(
    ("columns", "cell", "captions"), [(0, (9, 9), None), (1, (0, 9), None), (1, (9, 9), ["a", "b"])]
)
def test_contact_sheets_that_cannot_be_made(columns: int, cell: tuple[int, int], captions: list[str] | None) -> None:
    with pytest.raises(ValueError, match="columns"):
        contact_sheet([plain(8, 8)], columns, cell, captions)


@pytest.mark.skipif(not PHOTOS.exists(), reason="the photographs are not next to the project (../shared/data/ccp)")
def test_on_a_photograph_nothing_changes_far_from_boxes_and_labels(labels: list[Any]) -> None:
    data = json.loads((PHOTOS / "instances_val.json").read_text())
    record = data["images"][0]
    image = np.array(Image.open(PHOTOS / "images" / record["file_name"]).convert("RGB"))
    known = [entry for entry in data["annotations"] if entry["image_id"] == record["id"]]
    numbers = {category["id"]: number for number, category in enumerate(data["categories"], 1)}
    boxes = np.array([[x, y, x + width, y + height] for x, y, width, height in (entry["bbox"] for entry in known)])
    detections = found(boxes, [numbers[entry["category_id"]] for entry in known])
    picture = draw(
        image, detections, [category["name"] for category in data["categories"]], a_classes={"hair", "dress"}
    )
    touched = np.zeros(image.shape[:2], bool)
    places = [place for place, _ in labels]
    for left, top, right, bottom in [*boxes.astype(int), *places]:
        touched[max(top, 0) : bottom, max(left, 0) : right] = True
    np.testing.assert_array_equal(picture[~touched], image[~touched])
    assert len(labels) == len(known) > 3
    assert (picture[touched] != image[touched]).any(axis=-1).mean() > 0.1


def test_drawing_needs_no_tensorflow() -> None:
    code = "import sys, maskx_tf.visualize; sys.exit(bool({'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_long_names_are_cut_before_they_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    plain = ImageFont.FreeTypeFont.getlength

    def getlength(self: ImageFont.FreeTypeFont, text: str, *options: Any, **more: Any) -> float:
        lengths.append(len(text))
        return plain(self, text, *options, **more)

    monkeypatch.setattr(ImageFont.FreeTypeFont, "getlength", getlength)
    picture = np.full([60, 80, 3], GREY, np.uint8)
    for name in ("w" * 100_000, " " * 100_000 + "w", "\ufdfa" * 100_000, "\x1b" * 100_000):
        found = Detections(np.array([[5.0, 5, 60, 50]], np.float32), None, np.array([1]), np.ones(1, bool), None)
        assert draw(picture, found, [name]).shape == picture.shape
        assert legend([name], None, 80).shape[1] == 80
        assert contact_sheet([picture], 1, (80, 60), [name]).ndim == 3
    assert max(lengths) <= paint.LONGEST_NAME + 1  # with the sign for what is left out
    assert len(lengths) < 20_000


TRIANGLE = np.array([[0.2, 0.2], [0.8, 0.2], [0.5, 0.8]])  # of a box
LINES = ((0, 1), (1, 2))


def with_points(size: int, points: np.ndarray = TRIANGLE) -> Detections:
    """A detection in the middle of a square picture, whose keypoints are these shares of its box."""
    box = np.array([0.1, 0.1, 0.9, 0.9]) * size
    places = box[:2] + points * (box[2:] - box[:2])
    return found([box])._replace(keypoints=np.where(points.any(axis=1, keepdims=True), places, 0.0)[None])


@pytest.mark.parametrize("size", [12, 96, 160, 640, 2000])
def test_skeleton_is_seen_in_any_size_and_does_not_cover_the_object(size: int) -> None:
    bare = draw(plain(size, size), found(with_points(size).boxes), NAMES)
    picture = draw(plain(size, size), with_points(size), NAMES, skeleton=LINES)
    fresh = np.any(picture != bare, axis=-1)
    places = with_points(size).keypoints[0]
    for x, y in places:
        assert fresh[round(y) - 1 : round(y) + 2, round(x) - 1 : round(x) + 2].any()
    colour = class_colour(NAMES[0])
    for first, second in LINES:
        x, y = (places[first] + places[second]) / 2
        near = picture[round(y) - 1 : round(y) + 2, round(x) - 1 : round(x) + 2].reshape(-1, 3)
        assert (near == colour).all(axis=1).any()
    x, y = (places[2] + places[0]) / 2  # no line goes here
    assert not fresh[round(y), round(x)] or size < 40
    assert 0 < fresh.sum() < 0.25 * size**2


def test_keypoints_that_are_not_there_are_not_drawn() -> None:
    bare = draw(plain(100, 100), found(with_points(100).boxes), NAMES)
    absent = draw(plain(100, 100), with_points(100, np.zeros([3, 2])), NAMES, skeleton=LINES)
    np.testing.assert_array_equal(absent, bare)
    two = draw(plain(100, 100), with_points(100, TRIANGLE * [[1], [0], [1]]), NAMES, skeleton=LINES)
    whole = draw(plain(100, 100), with_points(100), NAMES, skeleton=LINES)
    assert 0 < np.any(two != bare, axis=-1).sum() < 0.5 * np.any(whole != bare, axis=-1).sum()


def test_skeleton_beyond_the_picture_is_cut() -> None:
    far = with_points(100, np.array([[-20.0, -20.0], [20.0, 20.0], [0.5, 0.5]]))
    picture = draw(plain(100, 100), far, NAMES, skeleton=LINES)
    assert picture.shape == (100, 100, 3)


def test_points_of_small_objects_are_small() -> None:
    def painted(side: int) -> int:
        box = np.array([100, 100, 100 + side, 100 + side], np.float32)
        point = found([box])._replace(keypoints=np.full([1, 1, 2], 100 + side / 2))
        return int((draw(plain(600, 600), point, NAMES) != draw(plain(600, 600), found([box]), NAMES)).any(-1).sum())

    assert 0 < painted(24) < painted(120) == painted(400) < 100


def test_enlarged_picture_takes_its_keypoints_along() -> None:
    picture, moved = enlarged(plain(60, 120), with_points(60))
    assert picture.shape == (240, 480, 3)
    np.testing.assert_allclose(moved.keypoints, with_points(60).keypoints * 4, rtol=1e-6)


def test_keypoints_of_another_shape_are_refused() -> None:
    for points in (np.zeros([2, 3, 2]), np.zeros([1, 3, 3])):
        with pytest.raises(ValueError, match=r"keypoints \[D, P, 2\]"):
            draw(plain(100, 100), with_points(100)._replace(keypoints=points), NAMES)
