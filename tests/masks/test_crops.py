"""Annotated masks in every form, cut to their boxes."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from maskx_tf.masks import crops as mask_crops
from tests import reference_masks as reference

HEIGHT, WIDTH = 13, 17
# Inside, the whole image, whole pixels, less than a pixel, across each side, outside to every side.
BOXES = [
    (2.3, 1.7, 12.9, 11.2),
    (0, 0, 17, 13),
    (3, 2, 11, 10),
    (5.2, 6.1, 5.9, 6.6),
    (-4.5, 3.1, 6.2, 9.9),
    (10.4, -3.3, 20.6, 5.1),
    (7.7, 8.8, 25.1, 30.3),
    (-9.5, 2.0, -3.5, 8.0),
    (4.0, -8.5, 9.0, -2.5),
    (18.5, 3.0, 25.0, 9.0),
    (2.0, 14.0, 9.0, 20.0),
]


def bitmap() -> np.ndarray:
    return np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.6


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's: down the columns, of zeros first."""
    counts, value, length = [], False, 0
    for pixel in mask.T.ravel():
        if pixel != value:
            counts.append(length)
            value, length = pixel, 0
        length += 1
    return [*counts, length]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("side", [4, 15])
def test_bitmap(box, side) -> None:
    mask = bitmap()
    result = mask_crops.crop_mask(mask, box, HEIGHT, WIDTH, side)
    assert result.dtype == bool
    assert result.shape == (side, side)
    coverage = reference.cell_coverage(mask, box, side)
    clear = np.abs(coverage - 0.5) > 1e-5
    np.testing.assert_array_equal(result[clear], (coverage >= 0.5)[clear])


def test_half_a_cell_is_enough() -> None:
    mask = np.zeros([4, 4], bool)
    mask[:, :2] = True
    np.testing.assert_array_equal(mask_crops.crop_mask(mask, (0, 0, 4, 4), 4, 4, 1), [[True]])
    mask[0, 0] = False
    np.testing.assert_array_equal(mask_crops.crop_mask(mask, (0, 0, 4, 4), 4, 4, 1), [[False]])


def test_whole_pixels_come_back_unchanged() -> None:
    mask = np.random.default_rng(1).random((20, 24)) < 0.5
    np.testing.assert_array_equal(mask_crops.crop_mask(mask, (3, 5, 15, 17), 20, 24, 12), mask[5:17, 3:15])


def test_bitmap_of_numbers() -> None:
    mask = bitmap()
    expected = mask_crops.crop_mask(mask, BOXES[0], HEIGHT, WIDTH, 8)
    for numbers in (mask.astype(np.uint8) * 255, mask.astype(np.float32), mask.astype(np.int64) * -3):
        np.testing.assert_array_equal(mask_crops.crop_mask(numbers, BOXES[0], HEIGHT, WIDTH, 8), expected)


@pytest.mark.parametrize("form", ["list", "bytes", "str"])
@pytest.mark.parametrize("box", BOXES[:6])
def test_run_lengths(form, box) -> None:
    mask = bitmap()
    counts = run_lengths(mask)
    if form != "list":
        packed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
        counts = packed if form == "bytes" else packed.decode()
    rle = {"size": [HEIGHT, WIDTH], "counts": counts}
    np.testing.assert_array_equal(
        mask_crops.crop_mask(rle, box, HEIGHT, WIDTH, 10), mask_crops.crop_mask(mask, box, HEIGHT, WIDTH, 10)
    )
    np.testing.assert_array_equal(mask_crops.decode(rle, HEIGHT, WIDTH), mask)


TRIANGLE = [2.2, 1.4, 14.3, 4.1, 6.6, 11.8]
ARROW = [1.0, 1.0, 9.0, 4.0, 15.5, 1.5, 10.2, 12.1, 8.4, 6.5]
POLYGONS = {
    "triangle": [TRIANGLE],
    "concave": [ARROW],
    "two parts": [[1.5, 1.5, 6.5, 2.0, 5.0, 7.5], [9.0, 6.0, 15.0, 6.5, 14.0, 12.0, 9.5, 11.0]],
    "parts that overlap": [[2.0, 2.0, 10.0, 2.0, 10.0, 9.0, 2.0, 9.0], [6.0, 5.0, 15.0, 5.0, 15.0, 12.0, 6.0, 12.0]],
    "beyond the image": [[-6.0, -5.0, 25.0, 3.0, 8.0, 20.0]],
}


@pytest.mark.parametrize("polygons", POLYGONS.values(), ids=list(POLYGONS))
@pytest.mark.parametrize("box", [BOXES[0], BOXES[1], (0.4, 5.5, 6.6, 12.8)])
def test_polygons(polygons, box) -> None:
    """Drawn by pycocotools, whose outlines are within a fraction of a cell: cells in doubt are those on an outline."""
    side = 14
    result = mask_crops.crop_mask(polygons, box, HEIGHT, WIDTH, side)
    coverage = reference.polygon_coverage(polygons, box, side, points=6)
    clear = np.abs(coverage - 0.5) > 0.35
    assert clear.mean() > 0.7
    np.testing.assert_array_equal(result[clear], (coverage >= 0.5)[clear])


@pytest.mark.parametrize("form", ["polygons", "bitmap"])
def test_parts_of_the_box_outside_the_image_are_empty(form) -> None:
    """Whatever the form says there."""
    polygon = [[-10.0, -10.0, 30.0, -10.0, 30.0, 30.0, -10.0, 30.0]]
    segmentation = polygon if form == "polygons" else np.ones([HEIGHT, WIDTH], bool)
    result = mask_crops.crop_mask(segmentation, (-4, -3, WIDTH + 3, HEIGHT + 4), HEIGHT, WIDTH, 2 * 12)
    cells = (np.arange(24) + 0.5) / 24
    rows, columns = cells * (HEIGHT + 7) - 3, cells * (WIDTH + 7) - 4
    expected = ((rows > 0) & (rows < HEIGHT))[:, None] & ((columns > 0) & (columns < WIDTH))
    assert (result != expected).sum() <= 2 * 24


def test_polygons_on_the_grid_are_exact() -> None:
    rectangle = [4.0, 3.0, 12.0, 3.0, 12.0, 9.0, 4.0, 9.0]
    box = (3, 1, 11, 9)  # two cells a pixel
    expected = reference.cell_coverage(_filled(3, 9, 4, 12), box, 16)
    assert set(np.unique(expected)) == {0.0, 1.0}
    np.testing.assert_array_equal(mask_crops.crop_mask([rectangle], box, HEIGHT, WIDTH, 16), expected)


def _filled(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    mask = np.zeros([HEIGHT, WIDTH], bool)
    mask[top:bottom, left:right] = True
    return mask


def test_polygon_of_its_own_box_fills_the_grid() -> None:
    """As large as COCO's largest and as small as a pixel."""
    for x1, y1, x2, y2 in [(3.0, 2.0, 11.0, 8.0), (10.3, 20.7, 11.4, 22.1), (0.0, 0.0, 640.0, 480.0)]:
        corners = [x1, y1, x2, y1, x2, y2, x1, y2]
        assert mask_crops.crop_mask([corners], (x1, y1, x2, y2), 480, 640, 28).all()


def test_forms_agree_on_a_shape() -> None:
    """A polygon drawn into the image and then cut is nearly the polygon drawn into the grid."""
    large = [[10 * number for number in ARROW]]
    box = (10.0, 10.0, 155.0, 121.0)
    drawn = mask_crops.decode(large, 130, 170)
    from_bitmap = mask_crops.crop_mask(drawn, box, 130, 170, 28)
    from_polygons = mask_crops.crop_mask(large, box, 130, 170, 28)
    assert (from_bitmap & from_polygons).sum() / (from_bitmap | from_polygons).sum() > 0.95


def test_decode_of_a_bitmap_and_of_polygons() -> None:
    mask = bitmap()
    np.testing.assert_array_equal(mask_crops.decode(mask.astype(np.uint8) * 7, HEIGHT, WIDTH), mask)
    decoded = mask_crops.decode([[4.0, 3.0, 12.0, 3.0, 12.0, 9.0, 4.0, 9.0]], HEIGHT, WIDTH)
    np.testing.assert_array_equal(decoded, _filled(3, 9, 4, 12))


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([], "there is no polygon"),
        ([[1, 2, 3, 4]], "a polygon has 4 numbers, expected an even number from 6 on"),
        ([[1, 2, 3, 4, 5, 6, 7]], "a polygon has 7 numbers"),
        ([TRIANGLE, [1, 2, 3, float("nan"), 5, 6]], "not finite"),
        ([1, 2, 3, 4, 5, 6], "polygon"),
        ("polygon", "not str"),
        (None, "not NoneType"),
        (np.zeros([WIDTH, HEIGHT], bool), r"the bitmap is \(17, 13\), expected \(13, 17\)"),
        ({"counts": [HEIGHT * WIDTH]}, r"size: expected \[height, width\], found None"),
        (
            {"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]},
            r"size: expected \[13, 17\], the image's, found \[17, 13\]",
        ),
        ({"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH - 1]}, "add up to 221, found 220"),
        ({"size": [HEIGHT, WIDTH], "counts": [222, -1]}, "add up to 221, found 221"),
        ({"size": [HEIGHT, WIDTH], "counts": []}, "add up to 221, found 0"),
        # Compressed: nothing at all, a sixth of the pixels, and a last number that breaks off.
        ({"size": [HEIGHT, WIDTH], "counts": b""}, "(?i)run lengths|RLE"),
        ({"size": [HEIGHT, WIDTH], "counts": "5d0"}, "expected runs that add up to 221"),
        ({"size": [HEIGHT, WIDTH], "counts": b"5o"}, "(?i)run lengths|RLE"),
    ],
)
@pytest.mark.parametrize(
    "read",
    [
        lambda segmentation: mask_crops.crop_mask(segmentation, BOXES[0], HEIGHT, WIDTH, 8),
        lambda segmentation: mask_crops.decode(segmentation, HEIGHT, WIDTH),
    ],
    ids=["crop", "decode"],
)
def test_bad_segmentations(segmentation, message, read) -> None:
    with pytest.raises(ValueError, match=message):
        read(segmentation)


@pytest.mark.parametrize("box", [(3, 3, 3, 8), (3, 8, 9, 8), (9, 3, 4, 8), (float("nan"), 0, 5, 5)])
@pytest.mark.parametrize("segmentation", [[TRIANGLE], bitmap()])
def test_boxes_without_area(box, segmentation) -> None:
    with pytest.raises(ValueError, match="has no area"):
        mask_crops.crop_mask(segmentation, box, HEIGHT, WIDTH, 8)
