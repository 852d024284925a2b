"""An annotated mask, in whatever form it came, cut to its box on a small square grid; on the host, in NumPy.

A cell of the grid is set when at least half of it is covered. 112 cells a side keep what a mask head of 28 can learn
and cost 1.5 KB packed, whatever the size of the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from maskx_tf.files import JsonView
from maskx_tf.masks import rle

HALF = 0.5 - 1e-6  # half of a cell, with room for rounding

# COCO's three forms (polygons, run lengths as list or string) and a bitmap.
MaskForm = Sequence[Sequence[float]] | JsonView | np.ndarray


def crop_mask(
    segmentation: MaskForm, box: Sequence[float] | np.ndarray, height: int, width: int, side: int
) -> NDArray[np.bool_]:
    """The mask inside its box.

    Args:
        segmentation: polygons [[x1, y1, x2, y2, ...], ...] in pixels; run lengths {"size": [height, width], "counts":
            list, str or bytes}; or a bitmap [height, width], where anything but zero is mask.
        box: (x1, y1, x2, y2) in pixels, with positive sides; parts outside the image are empty.
        height: the height of the image.
        width: the width of the image.
        side: S, side of the grid.

    Returns:
        bool [S, S].

    Raises:
        ValueError: the segmentation is of none of the forms or of another size, or the box has no area.
    """
    x1, y1, x2, y2 = (float(edge) for edge in box)
    if not (np.isfinite([x1, y1, x2, y2]).all() and x2 > x1 and y2 > y1):
        raise ValueError(f"the box {x1:g}, {y1:g}, {x2:g}, {y2:g} has no area")
    if isinstance(segmentation, Sequence) and not isinstance(segmentation, str | bytes):
        drawn = _crop_polygons(segmentation, (x1, y1, x2, y2), side)
        # Polygons may reach out of the image, masks do not.
        rows, columns = (
            np.diff(np.linspace(low, high, side + 1).clip(0, pixels)) * (side / (high - low)) >= HALF
            for low, high, pixels in ((y1, y2, height), (x1, x2, width))
        )
        return drawn & rows[:, None] & columns
    bitmap = decode(segmentation, height, width)
    # Only the pixels under the box are read.
    top, bottom = max(int(y1), 0), min(int(np.ceil(y2)), height)
    left, right = max(int(x1), 0), min(int(np.ceil(x2)), width)
    if bottom <= top or right <= left:
        return np.zeros([side, side], bool)
    inside = bitmap[top:bottom, left:right].astype(np.int32)  # whole numbers add up several times as fast
    shrunk = _means(inside, y1 - top, y2 - top, side)
    return np.asarray(_means(shrunk.T, x1 - left, x2 - left, side).T >= HALF)


def decode(segmentation: MaskForm, height: int, width: int) -> NDArray[np.bool_]:
    """Any form of segmentation as a bitmap, bool [height, width]; raises ValueError as `crop_mask` does."""
    if isinstance(segmentation, np.ndarray):
        if segmentation.shape != (height, width):
            raise ValueError(f"the bitmap is {segmentation.shape}, expected ({height}, {width})")
        return segmentation != 0
    if isinstance(segmentation, Mapping):
        return rle.bitmap_of(rle.checked(segmentation, height, width))
    if isinstance(segmentation, Sequence) and not isinstance(segmentation, str | bytes):
        return rle.bitmap_of(rle.of_any_form(_checked_polygons(segmentation), height, width))
    raise ValueError(f"a segmentation is polygons, run lengths or a bitmap, not {type(segmentation).__name__}")


def _checked_polygons(polygons: Sequence[Sequence[float]]) -> list[list[float]]:
    if not polygons:
        raise ValueError("there is no polygon")
    if not all(isinstance(polygon, Sequence) for polygon in polygons):
        raise ValueError("expected a list of polygons, each a list of numbers")
    checked = [[float(number) for number in polygon] for polygon in polygons]
    for polygon in checked:
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"a polygon has {len(polygon)} numbers, expected an even number from 6 on")
        if not np.isfinite(polygon).all():
            raise ValueError("a polygon has a number that is not finite")
    return checked


def _crop_polygons(
    polygons: Sequence[Sequence[float]], box: tuple[float, float, float, float], side: int
) -> NDArray[np.bool_]:
    """Polygons drawn straight into the grid, as Detectron does: no bitmap of the image is made."""
    x1, y1, x2, y2 = box
    origin, scale = np.array([x1, y1]), side / np.array([x2 - x1, y2 - y1])
    scaled = [
        ((np.reshape(polygon, [-1, 2]) - origin) * scale).ravel().tolist() for polygon in _checked_polygons(polygons)
    ]
    return rle.bitmap_of(rle.of_any_form(scaled, side, side))


def _means(pixels: np.ndarray, low: float, high: float, side: int) -> NDArray[np.float64]:
    """The means of `side` equal cells between low and high along the first axis, zero beyond it: [side, ...].

    As differences of running sums: a product with the cells' weights is threaded by BLAS, which among the threads of an
    input pipeline takes a hundred times as long.
    """
    sums = np.zeros([len(pixels) + 1, pixels.shape[1]], pixels.dtype)
    np.cumsum(pixels, axis=0, out=sums[1:])
    edges = np.linspace(low, high, side + 1).clip(0, len(pixels))
    below = np.minimum(edges.astype(np.int64), len(pixels) - 1)
    share = (edges - below)[:, None]
    return np.asarray(np.diff((1.0 - share) * sums[below] + share * sums[below + 1], axis=0) * (side / (high - low)))
