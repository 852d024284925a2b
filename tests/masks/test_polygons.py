"""Polygons around masks cover the same pixels, and simplified ones stay within their tolerance."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from maskx_tf.masks import rle
from maskx_tf.masks.polygons import outlines, simplified


def drawn(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    if not polygons:
        return np.zeros([height, width], bool)
    return rle.bitmap_of(rle.of_any_form([part.ravel().tolist() for part in polygons], height, width))


def filled(bitmap: np.ndarray) -> np.ndarray:
    """The mask without holes: what cannot be reached from the border, pixel by pixel, corners included."""
    outside = np.pad(np.zeros_like(bitmap), 1, constant_values=True)
    free = np.pad(~bitmap, 1, constant_values=True)
    while True:
        grown = outside.copy()
        for y in (-1, 0, 1):
            for x in (-1, 0, 1):
                grown |= np.roll(outside, (y, x), (0, 1))
        grown &= free
        if (grown == outside).all():
            return ~outside[1:-1, 1:-1]
        outside = grown


@pytest.mark.parametrize("seed", range(20))
def test_an_outline_covers_the_mask_and_its_holes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 14, 2)
    bitmap = rng.random([height, width]) < rng.choice([0.2, 0.5, 0.8])
    np.testing.assert_array_equal(drawn(outlines(bitmap), height, width), filled(bitmap))


def test_parts_that_touch_at_a_corner_are_two() -> None:
    parts = outlines(np.eye(2, dtype=bool))
    assert [part.tolist() for part in parts] == [
        [[0, 0], [1, 0], [1, 1], [0, 1]],
        [[1, 1], [2, 1], [2, 2], [1, 2]],
    ]


def test_a_rectangle_has_four_points_and_nothing_has_none() -> None:
    bitmap = np.zeros([9, 12], bool)
    assert outlines(bitmap) == []
    bitmap[2:5, 3:10] = True
    assert [part.tolist() for part in outlines(bitmap)] == [[[3, 2], [10, 2], [10, 5], [3, 5]]]


@pytest.mark.parametrize("tolerance", [0.5, 1.0, 3.0])
def test_a_simplified_outline_stays_within_its_tolerance(tolerance: float) -> None:
    y, x = np.mgrid[:60, :80] - np.array([30, 40])[:, None, None]
    bitmap = np.hypot(y, x) < 20 + 4 * np.sin(5 * np.arctan2(y, x))
    [exact], [rough] = outlines(bitmap), outlines(bitmap, tolerance)
    assert len(rough) < len(exact)
    assert {tuple(point) for point in rough} <= {tuple(point) for point in exact}
    closed = np.concatenate([rough, rough[:1]])
    places = np.linspace(0, 1, 200)[:, None]
    line = np.concatenate([a + places * (b - a) for a, b in itertools.pairwise(closed)])
    distances = np.linalg.norm(exact[:, None] - line[None], axis=2).min(axis=1)
    assert distances.max() <= tolerance + 0.1
    difference = (drawn([rough], 60, 80) ^ filled(bitmap)).sum()
    assert difference <= tolerance * len(exact)


def test_a_polygon_on_a_line_is_nothing() -> None:
    bitmap = np.zeros([3, 40], bool)
    bitmap[1] = True
    assert outlines(bitmap, tolerance=2.0) == []
    assert len(simplified(np.array([[0.0, 0], [5, 0], [5, 1]]), 9.0)) == 3
