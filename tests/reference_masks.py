"""Masks: packed bits, targets, pasting and cropping, a cell or a pixel at a time (spec/mask_rcnn.md, section 7).

A mask is a square grid stretched over a box; the value of a cell belongs to the cell's centre.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def pack_bits(row: Sequence[bool]) -> list[int]:
    """Eight flags a byte, the first one worth 128."""
    packed = []
    for start in range(0, len(row), 8):
        text = "".join("1" if flag else "0" for flag in row[start : start + 8])
        packed.append(int(text, 2))
    return packed


def cell_value(mask: Array, row: int, column: int) -> float:
    """A cell of the grid; 0 around it."""
    side = len(mask)
    inside = 0 <= row < side and 0 <= column < side
    return float(mask[row, column]) if inside else 0.0


def value_at(mask: Array, v: float, u: float) -> float:
    """The mask at a point in cells (0 is the grid's first edge), bilinear between centres, 0 around the grid."""
    row, column = math.floor(v - 0.5), math.floor(u - 0.5)
    y, x = v - 0.5 - row, u - 0.5 - column
    return (
        (1 - y) * (1 - x) * cell_value(mask, row, column)
        + (1 - y) * x * cell_value(mask, row, column + 1)
        + y * (1 - x) * cell_value(mask, row + 1, column)
        + y * x * cell_value(mask, row + 1, column + 1)
    )


def mask_target(mask: ArrayLike, box: ArrayLike, region: ArrayLike, size: int, samples: int) -> Array:
    """The mask cut to a region (torchvision's soft crop): mean of regular samples in each cell of the target."""
    mask, side = np.asarray(mask, np.float64), len(np.asarray(mask))
    x1, y1, x2, y2 = (float(edge) for edge in np.asarray(box))
    left, top, right, bottom = (float(edge) for edge in np.asarray(region))
    target = np.zeros([size, size])
    for row, column, i, j in np.ndindex(size, size, samples, samples):
        y = top + (row + (i + 0.5) / samples) * (bottom - top) / size
        x = left + (column + (j + 0.5) / samples) * (right - left) / size
        value = value_at(mask, (y - y1) / (y2 - y1) * side, (x - x1) / (x2 - x1) * side)
        target[row, column] += value / samples**2
    return target


def paste_continuous(mask: ArrayLike, box: ArrayLike, height: int, width: int, repeat: bool = False) -> Array:
    """Value of the mask at each pixel's centre, as detectron2 samples it; -1 where the centre is not in the box.

    With `repeat`, the outermost cells continue to the edges of the box, where the mask fades otherwise.
    """
    mask = np.asarray(mask, np.float64)
    x1, y1, x2, y2 = (float(edge) for edge in np.asarray(box))
    values = np.full([height, width], -1.0)
    for row, column in np.ndindex(height, width):
        y, x = row + 0.5, column + 0.5
        if y1 <= y < y2 and x1 <= x < x2:
            v, u = (y - y1) / (y2 - y1) * len(mask), (x - x1) / (x2 - x1) * len(mask)
            if repeat:
                v, u = (min(max(place, 0.5), len(mask) - 0.5) for place in (v, u))
            values[row, column] = value_at(mask, v, u)
    return values


def paste_replicate(mask: ArrayLike, box: ArrayLike, height: int, width: int) -> Array:
    """`paste_continuous` whose outermost cells continue to the edges of the box (FCIS)."""
    return paste_continuous(mask, box, height, width, repeat=True)


def paste_integer(mask: ArrayLike, box: ArrayLike, height: int, width: int) -> Array:
    """Value of the mask at each pixel, as Detectron and torchvision resize it; -1 where it does not reach.

    A rim of one zero cell; the box grown by (M + 2) / M about its centre and truncated to whole numbers; both of its
    corners' pixels belong to it, at least one a side; bilinear with half-pixel centres, edges repeated (section 7).
    """
    side = len(np.asarray(mask))
    padded = np.zeros([side + 2, side + 2])
    padded[1:-1, 1:-1] = np.asarray(mask)
    x1, y1, x2, y2 = (float(edge) for edge in np.asarray(box))
    grow = (side + 2) / side
    reach_x, reach_y = (x2 - x1) / 2 * grow, (y2 - y1) / 2 * grow
    left, right = int((x1 + x2) / 2 - reach_x), int((x1 + x2) / 2 + reach_x)
    top, bottom = int((y1 + y2) / 2 - reach_y), int((y1 + y2) / 2 + reach_y)
    columns, rows = max(right - left + 1, 1), max(bottom - top + 1, 1)
    values = np.full([height, width], -1.0)
    for row, column in np.ndindex(rows, columns):
        if 0 <= top + row < height and 0 <= left + column < width:
            v = min(max((row + 0.5) / rows * (side + 2), 0.5), side + 1.5)
            u = min(max((column + 0.5) / columns * (side + 2), 0.5), side + 1.5)
            values[top + row, left + column] = value_at(padded, v, u)
    return values


def cell_coverage(bitmap: ArrayLike, box: ArrayLike, side: int) -> Array:
    """Share of each cell of a side x side grid over the box that the bitmap's pixels cover; outside it is empty."""
    bitmap = np.asarray(bitmap) != 0
    x1, y1, x2, y2 = (float(edge) for edge in np.asarray(box))
    tall, wide = (y2 - y1) / side, (x2 - x1) / side
    coverage = np.zeros([side, side])
    for row, column in np.ndindex(side, side):
        top, left = y1 + row * tall, x1 + column * wide
        for y, x in np.argwhere(bitmap):
            shared_y = min(top + tall, y + 1) - max(top, y)
            shared_x = min(left + wide, x + 1) - max(left, x)
            coverage[row, column] += max(shared_y, 0.0) * max(shared_x, 0.0) / (tall * wide)
    return coverage


def polygon_coverage(polygons: Sequence[Sequence[float]], box: ArrayLike, side: int, points: int = 10) -> Array:
    """Share of points x points regular points of each cell that lie in any of the polygons."""
    x1, y1, x2, y2 = (float(edge) for edge in np.asarray(box))
    coverage = np.zeros([side, side])
    for row, column, i, j in np.ndindex(side, side, points, points):
        y = y1 + (row + (i + 0.5) / points) * (y2 - y1) / side
        x = x1 + (column + (j + 0.5) / points) * (x2 - x1) / side
        coverage[row, column] += any(in_polygon(polygon, x, y) for polygon in polygons) / points**2
    return coverage


def in_polygon(polygon: Sequence[float], x: float, y: float) -> bool:
    """Whether a ray from the point to the right crosses the outline an odd number of times."""
    corners = list(zip(polygon[::2], polygon[1::2], strict=True))
    odd = False
    for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
        if (y1 > y) != (y2 > y) and x < x1 + (y - y1) / (y2 - y1) * (x2 - x1):
            odd = not odd
    return odd
