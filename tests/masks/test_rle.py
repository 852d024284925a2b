"""Run lengths: pycocotools' own pass, and what would make it write beyond its memory does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pycocotools import mask as coco_mask

from maskx_tf.masks import rle

BITMAPS = npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))


@given(BITMAPS)
def test_masks_of_pycocotools_pass_the_check_unchanged(bitmap: np.ndarray) -> None:
    height, width = bitmap.shape
    encoded = rle.encode(bitmap)
    assert rle.checked(encoded, height, width) == encoded
    np.testing.assert_array_equal(coco_mask.decode(encoded) > 0, bitmap)
    assert rle.area(encoded) == bitmap.sum()
    np.testing.assert_array_equal(rle.places(encoded), np.flatnonzero(bitmap.T))
    if bitmap.any():
        rows, columns = np.flatnonzero(bitmap.any(1)), np.flatnonzero(bitmap.any(0))
        assert rle.extent(encoded) == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)


def test_large_masks_with_long_runs_pass_the_check() -> None:
    bitmap = np.zeros([3000, 2000], bool)
    bitmap[100:2900, 3:1990] = True
    bitmap[::7, ::5] = False
    encoded = rle.encode(bitmap)
    assert rle.checked(encoded, 3000, 2000) == encoded


@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=30))
def test_no_text_gets_past_the_check_that_is_no_mask(text: str) -> None:
    try:
        checked = rle.checked({"size": [6, 5], "counts": text}, 6, 5)
    except rle.RleError:
        return
    assert coco_mask.decode(checked).shape == (6, 5)


@given(st.data(), BITMAPS)
def test_a_changed_letter_is_found_or_harmless(data: st.DataObject, bitmap: np.ndarray) -> None:
    encoded = rle.encode(bitmap)
    place = data.draw(st.integers(0, len(encoded["counts"]) - 1))
    letter = data.draw(st.characters(min_codepoint=48, max_codepoint=111))
    text = encoded["counts"][:place] + letter + encoded["counts"][place + 1 :]
    try:
        checked = rle.checked({**encoded, "counts": text}, *bitmap.shape)
    except rle.RleError:
        return
    assert coco_mask.decode(checked).shape == bitmap.shape


@given(npst.arrays(np.int32, npst.array_shapes(min_dims=2, max_dims=2, max_side=20), elements=st.integers(0, 4)))
def test_regions_are_the_masks_of_a_map(ids: np.ndarray) -> None:
    found = rle.regions(ids, 2)
    assert [region.value for region in found] == [value for value in range(2, 5) if (ids == value).any()]
    for region in found:
        assert region.rle == rle.encode(ids == region.value)
        assert region.box == rle.extent(region.rle)


@pytest.mark.parametrize(
    "counts", [[3, -1, 28], [2**31], [2**40], [], None, [1.0, 29.0], ["1"], "0", "m0", "nnnnnnnn0"]
)
def test_counts_that_are_none(counts: object) -> None:
    with pytest.raises(rle.RleError, match=r"counts"):
        rle.checked({"size": [6, 5], "counts": counts}, 6, 5)
