"""FCIS' operations as plain loops in NumPy (spec/fcis.md, sections 3 and 4)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.reference_pooling import bilinear


class Part(NamedTuple):
    """One bin of one region: where it goes, the cell of maps that it reads, and its rows and columns."""

    image: int
    region: int
    row: int
    column: int
    cell: int
    rows: range
    columns: range


def round_away(value: float) -> float:
    """A whole number, halves away from zero."""
    return math.copysign(math.floor(abs(float(value)) + 0.5), float(value))


def edges(low: np.float32, high: np.float32, stride: int, size: int, index: int, cells: int) -> range:
    """The cells of one bin along an axis, of inclusive corners, in float32 and in the reference's order."""
    scale = np.float32(1 / stride)
    start = np.float32(round_away(low)) * scale
    end = np.float32(round_away(high) + 1) * scale
    step = max(end - start, np.float32(0.1)) / np.float32(size)
    first = math.floor(np.float32(index) * step + start)
    last = math.ceil(np.float32(index + 1) * step + start)
    return range(min(max(first, 0), cells), min(max(last, 0), cells))


def parts(shape: tuple[int, int], boxes: NDArray[np.float32], stride: int, group: int, size: int) -> Iterator[Part]:
    """Every bin of boxes [B, N, 4] on maps of this height and width."""
    height, width = shape
    for image, region in np.ndindex(*boxes.shape[:2]):
        x1, y1, x2, y2 = boxes[image, region].astype(np.float32)
        for row, column in np.ndindex(size, size):
            cell = (row * group // size) * group + column * group // size
            rows = edges(y1, y2 - np.float32(1), stride, size, row, height)
            columns = edges(x1, x2 - np.float32(1), stride, size, column, width)
            yield Part(image, region, row, column, cell, rows, columns)


def pooled(maps: np.ndarray, boxes: np.ndarray, stride: int, group: int, size: int) -> NDArray[np.float64]:
    """Averages of whole cells: [B, N, size, size, D]."""
    batch, height, width, channels = maps.shape
    depth = channels // group**2
    cells = maps.astype(np.float64).reshape(batch, height, width, group**2, depth)
    result = np.zeros([*boxes.shape[:2], size, size, depth])
    for part in parts((height, width), boxes, stride, group, size):
        if len(part.rows) and len(part.columns):
            read = cells[part.image][np.ix_(part.rows, part.columns)][:, :, part.cell]
            result[part.image, part.region, part.row, part.column] = read.mean(axis=(0, 1))
    return result


def pooled_gradient(
    maps: np.ndarray, boxes: np.ndarray, upstream: np.ndarray, stride: int, group: int, size: int
) -> NDArray[np.float64]:
    """The gradient of sum(upstream * pooled) towards the maps."""
    batch, height, width, channels = maps.shape
    result = np.zeros([batch, height, width, group**2, channels // group**2])
    for part in parts((height, width), boxes, stride, group, size):
        count = len(part.rows) * len(part.columns)
        for y in part.rows:
            for x in part.columns:
                result[part.image, y, x, part.cell] += upstream[part.image, part.region, part.row, part.column] / count
    return result.reshape(maps.shape)


def pooled_bilinear(
    maps: np.ndarray, boxes: np.ndarray, stride: int, group: int, size: int, samples: int
) -> NDArray[np.float64]:
    """Averages of bilinear samples on maps that continue for one cell: [B, N, size, size, D]."""
    batch, height, width, channels = maps.shape
    depth = channels // group**2
    cells = maps.astype(np.float64).reshape(batch, height, width, group**2, depth)
    cells = np.pad(cells, [(0, 0), (1, 1), (1, 1), (0, 0), (0, 0)], mode="edge")
    result = np.zeros([*boxes.shape[:2], size, size, depth])
    for image, region, row, column in np.ndindex(*boxes.shape[:2], size, size):
        x1, y1, x2, y2 = boxes[image, region].astype(np.float64) / stride
        cell = (row * group // size) * group + column * group // size
        for i, j in np.ndindex(samples, samples):
            y = y1 + (row + (i + 0.5) / samples) * (y2 - y1) / size + 0.5
            x = x1 + (column + (j + 0.5) / samples) * (x2 - x1) / size + 0.5
            if 0 <= y <= height + 1 and 0 <= x <= width + 1:
                for at_y, at_x, weight in bilinear(y, x, height + 2, width + 2):
                    result[image, region, row, column] += weight * cells[image, at_y, at_x, cell] / samples**2
    return result
