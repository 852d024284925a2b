"""Masks: packed bits, targets for regions, and pasting, in TensorFlow and in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st

from maskx_tf.masks import crops as mask_crops
from maskx_tf.masks import paste as paste_ops
from maskx_tf.ops import boxes as box_ops
from maskx_tf.ops import masks as mask_ops
from maskx_tf.structures import PASTE_MODES
from tests import reference_masks as reference
from tests.checks import assert_forms_agree

HEIGHT, WIDTH = 21, 26
MODES = pytest.mark.parametrize("mode", PASTE_MODES)


@pytest.mark.parametrize("shape", [(8,), (3, 16), (2, 3, 40), (0, 8), (2, 0)])
def test_pack_bits(shape) -> None:
    masks = np.random.default_rng(0).random(shape) < 0.5
    packed = mask_ops.pack_bits(tf.constant(masks))
    assert packed.dtype == tf.uint8
    assert packed.shape == (*shape[:-1], shape[-1] // 8)
    rows = [reference.pack_bits(row) for row in masks.reshape(-1, shape[-1])] if masks.size else []
    np.testing.assert_array_equal(np.reshape(packed, [len(rows), -1]) if rows else [], rows)
    np.testing.assert_array_equal(packed, np.packbits(masks, axis=-1))
    unpacked = mask_ops.unpack_bits(packed)
    assert unpacked.dtype == tf.bool
    np.testing.assert_array_equal(unpacked, masks)


def test_pack_bits_puts_the_first_cell_into_the_highest_bit() -> None:
    assert mask_ops.pack_bits(tf.constant([True] + [False] * 7)).numpy() == [128]
    assert mask_ops.pack_bits(tf.constant([False] * 7 + [True])).numpy() == [1]


def test_pack_bits_needs_whole_bytes() -> None:
    with pytest.raises(ValueError, match="the last dimension is 12, expected a multiple of 8"):
        mask_ops.pack_bits(tf.zeros([2, 12], tf.bool))


@given(numpy_st.arrays(bool, st.tuples(st.integers(0, 3), st.sampled_from([8, 24, 64]))))
def test_bits_survive_packing(masks) -> None:
    np.testing.assert_array_equal(mask_ops.unpack_bits(mask_ops.pack_bits(tf.constant(masks))), masks)


@given(numpy_st.arrays(np.uint8, (2, 5)))
def test_bytes_survive_unpacking(packed) -> None:
    np.testing.assert_array_equal(mask_ops.pack_bits(mask_ops.unpack_bits(tf.constant(packed))), packed)


# Truths of two images, one of them thin; regions that fit, shift, cross, enclose, lie inside, outside and are a line.
MASK_BOXES = np.float32([[[4, 3, 20, 15], [0, 0, 26, 21]], [[10, 2, 11.5, 20], [-3, -4, 6, 7.5]]])
REGIONS = np.float32(
    [
        [[4, 3, 20, 15], [6.5, 4.2, 22.1, 13], [0, 0, 26, 21], [9, 8, 12, 10], [23, 18, 25, 20]],
        [[10, 2, 11.5, 20], [-5, -6, 9, 9], [1, 1, 4, 5], [8, 5, 8, 12], [30, 30, 50, 50]],
    ]
)
MATCHES = np.int32([[0, 0, 1, 1, 0], [0, 1, 1, 0, 1]])


def soft_masks(side: int) -> np.ndarray:
    return np.random.default_rng(1).random((2, 2, side, side)).astype(np.float32)


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize(("side", "size"), [(8, 6), (5, 7), (28, 3)])
def test_mask_targets(side, size, samples) -> None:
    masks = soft_masks(side)
    result = mask_ops.mask_targets(masks, MASK_BOXES, REGIONS, MATCHES, size=size, samples=samples)
    assert result.shape == (2, 5, size, size)
    for image, region in np.ndindex(2, 5):
        truth = MATCHES[image, region]
        expected = reference.mask_target(
            masks[image, truth], MASK_BOXES[image, truth], REGIONS[image, region], size, samples
        )
        np.testing.assert_allclose(result[image, region], expected, atol=1e-4)
    assert not result[0, 4].numpy().any()
    assert not result[1, 4].numpy().any()


def test_mask_targets_of_the_own_box_are_the_mask() -> None:
    masks = soft_masks(12)
    matches = np.int32([[0, 1], [0, 1]])
    result = mask_ops.mask_targets(masks, MASK_BOXES, MASK_BOXES, matches, size=12, samples=1)
    np.testing.assert_allclose(result, masks, atol=1e-4)


def test_mask_targets_of_half_a_region() -> None:
    """A full mask in the left half of a region fills the left half of the target."""
    boxes, region = tf.constant([[[10, 10, 20, 30]]], tf.float32), tf.constant([[[10, 10, 30, 30]]], tf.float32)
    result = mask_ops.mask_targets(tf.ones([1, 1, 112, 112]), boxes, region, tf.zeros([1, 1], tf.int32), size=28)
    np.testing.assert_array_equal(result[0, 0] >= 0.5, np.arange(28)[None, :] * np.ones([28, 1]) < 14)


def test_mask_targets_of_no_regions_and_of_a_truth_without_area() -> None:
    masks = soft_masks(8)
    result = mask_ops.mask_targets(
        masks, MASK_BOXES, np.zeros([2, 0, 4], np.float32), np.zeros([2, 0], np.int32), size=4
    )
    assert result.shape == (2, 0, 4, 4)
    # Padding: boxes of zeros, matched by whatever.
    result = mask_ops.mask_targets(masks, np.zeros([2, 2, 4], np.float32), REGIONS, MATCHES, size=4)
    assert np.isfinite(result).all()


def blobs(count: int, side: int, seed: int = 2) -> np.ndarray:
    """Smooth masks that are full in the middle of their box, as a mask head's."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(0.35, 0.65, (count, 2))
    axis = (np.arange(side) + 0.5) / side
    away = (axis[:, None] - centre[:, 0, None, None]) ** 2 + (axis - centre[:, 1, None, None]) ** 2
    return (1 / (1 + np.exp(40 * (away - rng.uniform(0.1, 0.25, (count, 1, 1)))))).astype(np.float32)


# Inside, the whole image, touching the border, across each side, outside, thin, smaller than a pixel with and
# without a pixel's centre, whole pixels, a side of a multiple of the mask's, a line, far larger.
PASTE_BOXES = np.float32(
    [
        [3.3, 4.1, 18.7, 16.2],
        [0, 0, 26, 21],
        [15.2, 10.3, 26, 21],
        [-6.4, 5.3, 7.1, 12.9],
        [20.6, 13.3, 33.1, 30.2],
        [30.3, 25.1, 40.4, 33.3],
        [-15.3, -14.2, -5.1, -6.7],
        [8.2, 2.1, 9.3, 19.6],
        [5.3, 5.3, 5.7, 5.7],
        [5.6, 5.6, 5.9, 5.9],
        [6, 7, 16, 17],
        [4, 2, 18, 16],
        [9.2, 9.2, 9.2, 15.1],
        [-90.3, -80.2, 100.4, 90.9],
    ]
)


def check_pasted(pasted: np.ndarray, masks: np.ndarray, threshold: float, mode: str) -> None:
    """Every pixel as the reference, but for those whose value is the threshold's within rounding."""
    value_of = getattr(reference, f"paste_{mode}")
    for ours, mask, box in zip(pasted, masks, PASTE_BOXES, strict=True):
        values = value_of(mask, box, HEIGHT, WIDTH)
        clear = np.abs(values - threshold) > 1e-4
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(ours[clear], (values >= threshold)[clear])


@MODES
@pytest.mark.parametrize("threshold", [0.5, 0.2])
@pytest.mark.parametrize(("side", "kind"), [(7, "random"), (28, "blob")])
def test_paste(mode, threshold, side, kind) -> None:
    rng = np.random.default_rng(3)
    count = len(PASTE_BOXES)
    masks = blobs(count, side) if kind == "blob" else rng.random((count, side, side)).astype(np.float32)
    in_tensorflow = mask_ops.paste(masks, PASTE_BOXES, HEIGHT, WIDTH, threshold=threshold, mode=mode)
    assert in_tensorflow.dtype == tf.bool
    assert in_tensorflow.shape == (count, HEIGHT, WIDTH)
    in_numpy = paste_ops.paste(masks, PASTE_BOXES, HEIGHT, WIDTH, threshold=threshold, mode=mode)
    assert in_numpy.dtype == bool
    check_pasted(in_numpy, masks, threshold, mode)
    check_pasted(in_tensorflow.numpy(), masks, threshold, mode)
    np.testing.assert_array_equal(in_tensorflow, in_numpy)
    assert in_numpy[:5].any(axis=(1, 2)).all()
    assert not in_numpy[5:7].any()


def test_paste_continuous_of_a_full_mask_is_the_pixels_whose_centre_is_inside() -> None:
    # Up to half a cell from its edge a mask fades to half its value.
    masks = np.ones([1, 4, 4], np.float32)
    for box, rows, columns in [
        ([2.4, 3.5, 6.5, 8.6], slice(3, 9), slice(2, 6)),
        ([2.6, 3.6, 6.4, 8.4], slice(4, 8), slice(3, 6)),
        ([-4, -4, 3, 2], slice(0, 2), slice(0, 3)),
    ]:
        expected = np.zeros([10, 12], bool)
        expected[rows, columns] = True
        pasted = paste_ops.paste(masks, np.float32([box]), 10, 12, threshold=0.2)[0]
        np.testing.assert_array_equal(pasted, expected)
        np.testing.assert_array_equal(mask_ops.paste(masks, np.float32([box]), 10, 12, threshold=0.2)[0], expected)


def test_paste_integer_of_a_known_box() -> None:
    """A box of 14 grows to 15, is cut to whole numbers and covers one pixel more than they differ by (Detectron)."""
    masks = np.ones([1, 28, 28], np.float32)
    pasted = paste_ops.paste(
        masks, np.float32([[4.2, 2.2, 18.2, 16.2]]), HEIGHT, WIDTH, threshold=1e-3, mode="integer"
    )[0]
    # From 3.7 and 1.7 to 18.7 and 16.7: pixels 3 to 18 and 1 to 16, all of which see some of the mask.
    expected = np.zeros([HEIGHT, WIDTH], bool)
    expected[1:17, 3:19] = True
    np.testing.assert_array_equal(pasted, expected)


def test_paste_integer_is_one_in_both_where_grown_boxes_end_at_whole_pixels() -> None:
    """Boxes whose sides are multiples of the mask's grow to whole numbers, which rounding may put on either side."""
    boxes = [[x, x, x + side, x + side] for side in (14, 21, 28, 42, 49) for x in (2.5, 4, 10.5, 12, 15.25)]
    masks = blobs(len(boxes), 14)
    in_tensorflow = mask_ops.paste(masks, np.float32(boxes), 70, 70, mode="integer")
    in_numpy = paste_ops.paste(masks, np.float32(boxes), 70, 70, mode="integer")
    different = (in_tensorflow != in_numpy).numpy().any(axis=(1, 2))
    assert [box for box, flag in zip(boxes, different, strict=True) if flag] == []


@MODES
@pytest.mark.parametrize("paste", [mask_ops.paste, paste_ops.paste])
def test_paste_of_no_masks(paste, mode) -> None:
    pasted = paste(np.zeros([0, 28, 28], np.float32), np.zeros([0, 4], np.float32), 5, 6, mode=mode)
    assert pasted.shape == (0, 5, 6)


@MODES
@pytest.mark.parametrize("paste", [mask_ops.paste, paste_ops.paste])
def test_paste_of_a_box_turned_inside_out(paste, mode) -> None:
    """Nothing to draw in continuous mode; one pixel, where the box begins, in integer mode."""
    box = np.float32([[12.2, 12.3, 8.1, 7.4]])
    pasted = np.asarray(paste(np.ones([1, 28, 28], np.float32), box, HEIGHT, WIDTH, mode=mode))
    expected = np.zeros([1, HEIGHT, WIDTH], bool)
    if mode == "integer":
        expected[0, 12, 12] = True
    np.testing.assert_array_equal(pasted, expected)


@pytest.mark.parametrize("paste", [mask_ops.paste, paste_ops.paste])
def test_paste_at_the_threshold(paste) -> None:
    """A pixel belongs to the mask from the threshold on."""
    mask = np.float32([[[0.5, 0.25], [0.75, 0.5]]])
    pasted = np.asarray(paste(mask, np.float32([[1, 1, 3, 3]]), 4, 4))
    np.testing.assert_array_equal(pasted[0, 1:3, 1:3], [[True, False], [True, True]])
    assert pasted.sum() == 3


@pytest.mark.parametrize("paste", [mask_ops.paste, paste_ops.paste])
def test_paste_in_an_unknown_mode(paste) -> None:
    with pytest.raises(ValueError, match="mode is 'soft', expected one of continuous, integer"):
        paste(np.zeros([1, 4, 4], np.float32), np.zeros([1, 4], np.float32), 5, 6, mode="soft")


@MODES
def test_paste_crop_is_the_part_of_the_image(mode) -> None:
    masks = blobs(len(PASTE_BOXES), 14)
    pasted = paste_ops.paste(masks, PASTE_BOXES, HEIGHT, WIDTH, mode=mode)
    for whole, mask, box in zip(pasted, masks, PASTE_BOXES, strict=True):
        left, top, pixels = paste_ops.paste_crop(mask, box, HEIGHT, WIDTH, mode=mode)
        height, width = pixels.shape
        assert 0 <= left <= left + width <= WIDTH
        assert 0 <= top <= top + height <= HEIGHT
        rest = whole.copy()
        np.testing.assert_array_equal(rest[top : top + height, left : left + width], pixels)
        rest[top : top + height, left : left + width] = False
        assert not rest.any()


@MODES
def test_paste_takes_double_precision(mode) -> None:
    masks = blobs(len(PASTE_BOXES), 14)
    np.testing.assert_array_equal(
        paste_ops.paste(masks.astype(np.float64), PASTE_BOXES.astype(np.float64), HEIGHT, WIDTH, mode=mode),
        paste_ops.paste(masks, PASTE_BOXES, HEIGHT, WIDTH, mode=mode),
    )


@MODES
def test_forms_of_paste(mode) -> None:
    masks = blobs(len(PASTE_BOXES), 14)
    assert_forms_agree(
        lambda values, boxes: mask_ops.paste(values, boxes, HEIGHT, WIDTH, mode=mode),
        masks,
        PASTE_BOXES,
        compiled=False,
    )


def test_forms_of_mask_targets() -> None:
    assert_forms_agree(
        lambda *inputs: mask_ops.mask_targets(*inputs, size=6),
        soft_masks(8),
        MASK_BOXES,
        REGIONS,
        MATCHES,
        compiled=False,
    )


def test_cells_inside() -> None:
    """The centres of cells, one at a time; a box per region, or one for all regions of an image."""
    per_region = np.take_along_axis(MASK_BOXES, MATCHES[..., None], axis=1)
    for boxes in (per_region, MASK_BOXES[:, :1]):
        result = mask_ops.cells_inside(REGIONS, boxes, size=6)
        assert result.shape == (2, 5, 6, 6)
        assert result.dtype == tf.bool
        for image, region, row, column in np.ndindex(2, 5, 6, 6):
            left, top, right, bottom = REGIONS[image, region]
            x1, y1, x2, y2 = np.broadcast_to(boxes, REGIONS.shape)[image, region]
            x, y = left + (column + 0.5) * (right - left) / 6, top + (row + 0.5) * (bottom - top) / 6
            assert result[image, region, row, column] == (x1 <= x < x2 and y1 <= y < y2)
    np.testing.assert_array_equal(mask_ops.cells_inside(REGIONS * np.nan, MASK_BOXES[:, :1], size=6), False)


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.25])
def test_cut_margin(margin) -> None:
    """What a crop of the wider mask to the box gives, sampled once a cell."""
    masks = soft_masks(12)
    wide = box_ops.with_margin(MASK_BOXES, margin)
    expected = mask_ops.mask_targets(masks, wide, MASK_BOXES, np.int32([[0, 1], [0, 1]]), size=12, samples=1)
    np.testing.assert_allclose(mask_ops.cut_margin(tf.constant(masks), margin), expected, atol=1e-5)
    for _ in range(20):  # with `matmul`, one mask an image ended the process
        one = mask_ops.cut_margin(tf.constant(masks[:, :1]), margin)
        np.testing.assert_allclose(one, expected[:, :1], atol=1e-5)


def test_forms_of_regions() -> None:
    boxes = np.take_along_axis(MASK_BOXES, MATCHES[..., None], axis=1)
    assert_forms_agree(lambda *inputs: mask_ops.cells_inside(*inputs, size=6), REGIONS, boxes)
    assert_forms_agree(lambda masks: mask_ops.cut_margin(masks, 0.1), soft_masks(8))


def test_forms_of_packing() -> None:
    masks = np.random.default_rng(4).random((3, 16)) < 0.5
    assert_forms_agree(lambda values: mask_ops.unpack_bits(mask_ops.pack_bits(values)), masks)
    assert_forms_agree(mask_ops.pack_bits, masks)


@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(-40, 400), st.integers(-40, 400)),
    st.tuples(st.integers(200, 700), st.integers(200, 700)),
)
def test_a_pasted_mask_is_cropped_back(seed, corner, sides) -> None:
    """What `paste` draws into the image, `crop_mask` reads out of the box, but for a rim of pixels."""
    mask = blobs(1, 28, seed)[0]
    x, y, width, height = (number / 5 for number in (*corner, *sides))
    box = np.float32([x, y, x + width, y + height])
    # The image holds the whole box, shifted by 8 because corners reach to -8.
    pasted = paste_ops.paste(mask[None], box[None] + 8, 240, 240)[0]
    cropped = mask_crops.crop_mask(pasted, box + 8, 240, 240, 28)
    expected = mask >= 0.5
    assert (cropped & expected).sum() / (cropped | expected).sum() > 0.9
