"""Pixels that several masks of an image claim."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from maskx_tf.masks.paste import Crop, resolve_contested


def test_the_smaller_box_wins() -> None:
    large, small = np.ones([6, 8], bool), np.ones([3, 3], bool)
    small[0, 0] = False
    crops = [Crop(1, 2, large), Crop(5, 4, small)]
    for order in ([0, 1], [1, 0]):
        boxes = np.array([[1, 2, 9, 8], [5, 4, 8, 7]])[order]
        found = resolve_contested([crops[index] for index in order], boxes)
        resolved = [found[order.index(index)] for index in range(2)]
        np.testing.assert_array_equal(resolved[1].pixels, small)
        expected = large.copy()
        expected[2:5, 4:7][small] = False
        np.testing.assert_array_equal(resolved[0].pixels, expected)
        assert [crop[:2] for crop in resolved] == [(1, 2), (5, 4)]
    assert large.all()  # the inputs are left as they were


def test_of_equal_boxes_the_first_wins() -> None:
    pixels = np.ones([2, 2], bool)
    first, second = resolve_contested([Crop(0, 0, pixels)] * 2, np.array([[0, 0, 2, 2]] * 2))
    assert first.pixels.all()
    assert not second.pixels.any()


def test_no_mask_and_no_pixel() -> None:
    assert resolve_contested([], np.zeros([0, 4])) == []
    (empty,) = resolve_contested([Crop(3, 4, np.zeros([0, 5], bool))], np.array([[3, 4, 8, 4]]))
    assert empty.pixels.shape == (0, 5)


@given(st.integers(0, 10**6), st.integers(1, 6))
def test_each_pixel_goes_to_the_smallest_of_its_boxes(seed, count) -> None:
    rng = np.random.default_rng(seed)
    crops, boxes, claims = [], [], []
    for _ in range(count):
        left, top, width, height = rng.integers(0, 6), rng.integers(0, 6), rng.integers(1, 6), rng.integers(1, 6)
        crops.append(Crop(int(left), int(top), rng.random([height, width]) < 0.6))
        boxes.append([left, top, left + width, top + height])
        claims.append(np.pad(crops[-1].pixels, [(top, 12 - top - height), (left, 12 - left - width)]))
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in boxes]
    resolved = resolve_contested(crops, np.array(boxes, float))
    for row, column in np.ndindex(12, 12):
        claimants = [index for index in range(count) if claims[index][row, column]]
        winner = min(claimants, key=lambda index: (areas[index], index), default=None)
        for index, crop in enumerate(resolved):
            y, x = row - crop.top, column - crop.left
            if 0 <= y < crop.pixels.shape[0] and 0 <= x < crop.pixels.shape[1]:
                assert crop.pixels[y, x] == (index == winner)
