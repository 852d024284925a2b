"""RoIAlign, RoIWarp and RoIPool, bin by bin, with their gradients (spec/mask_rcnn.md, sections 1, 7 and 9).

The conventions are those of the kernels that torchvision, detectron2 and Detectron share: the centre of cell i lies at
i in feature coordinates; a sample reads 0 beyond [-1, size] and is moved into [0, size - 1] otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
# What one sample reads: (row, column, weight) of each cell.
Sample = list[tuple[int, int, float]]


class Bin(NamedTuple):
    """One cell of one pooled region: where it goes, and the level and the samples that it comes from."""

    image: int
    region: int
    row: int
    column: int
    level: int
    samples: list[Sample]


def bilinear(y: float, x: float, height: int, width: int) -> Sample:
    """The cells around a point and their weights; none for a point out of reach of the map."""
    if y < -1 or y > height or x < -1 or x > width:
        return []
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = min(int(y), max(height - 2, 0)), min(int(x), max(width - 2, 0))
    cells = []
    for row in (top, top + 1):
        for column in (left, left + 1):
            weight = (1 - abs(y - row)) * (1 - abs(x - column))
            if weight > 0:
                cells.append((row, column, weight))
    return cells


def align_bins(
    shapes: Sequence[tuple[int, int]],
    boxes: ArrayLike,
    levels: ArrayLike,
    strides: Sequence[int],
    size: int,
    samples: int,
    aligned: bool,
) -> Iterator[Bin]:
    """The samples of RoIAlign: `samples` x `samples` regular points in each of `size` x `size` equal bins.

    0 samples are adaptive: along each side of a bin as many as it is cells long, rounded up.

    aligned (detectron2) moves the box by half a cell; without it (torchvision's and Detectron's models) the box keeps
    its place and its sides are at least one cell.
    """
    boxes, levels = np.asarray(boxes, np.float64), np.asarray(levels)
    for image, region in np.ndindex(*levels.shape):
        level = int(levels[image, region])
        x1, y1, x2, y2 = boxes[image, region] / strides[level] - (0.5 if aligned else 0.0)
        if not aligned:
            x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
        down = samples or max(math.ceil((y2 - y1) / size), 0)
        across = samples or max(math.ceil((x2 - x1) / size), 0)
        for row, column in np.ndindex(size, size):
            points = []
            for i, j in np.ndindex(down, across):
                y = y1 + (row + (i + 0.5) / down) * (y2 - y1) / size
                x = x1 + (column + (j + 0.5) / across) * (x2 - x1) / size
                points.append(bilinear(y, x, *shapes[level]))
            yield Bin(image, region, row, column, level, points)


def warp_bins(
    shapes: Sequence[tuple[int, int]],
    boxes: ArrayLike,
    levels: ArrayLike,
    strides: Sequence[int],
    size: int,
    samples: int,
) -> Iterator[Bin]:
    """The samples of RoIWarp: those of RoIAlign in the region that RoIPool rounds to whole cells (section 1)."""
    boxes, levels = np.asarray(boxes, np.float64), np.asarray(levels)
    whole = np.zeros_like(boxes)
    for index in np.ndindex(*levels.shape):
        stride = strides[int(levels[index])]
        whole[index] = np.array(_whole_cells(boxes[index], stride)) * stride
    return align_bins(shapes, whole, levels, strides, size, samples, aligned=True)


def pool_bins(
    shapes: Sequence[tuple[int, int]], boxes: ArrayLike, levels: ArrayLike, strides: Sequence[int], size: int
) -> Iterator[Bin]:
    """The cells of RoIPool's bins, floor to ceil, each cell one sample (section 1: "rounds scaled RoI")."""
    boxes, levels = np.asarray(boxes, np.float64), np.asarray(levels)
    for image, region in np.ndindex(*levels.shape):
        level = int(levels[image, region])
        height, width = shapes[level]
        left, top, right, bottom = _whole_cells(boxes[image, region], strides[level])
        for row, column in np.ndindex(size, size):
            rows = _bin_cells(top, bottom, row, size, height)
            columns = _bin_cells(left, right, column, size, width)
            cells: list[Sample] = [[(y, x, 1.0)] for y in rows for x in columns]
            yield Bin(image, region, row, column, level, cells)


def _whole_cells(box: ArrayLike, stride: int) -> tuple[int, int, int, int]:
    """First cells and the ones past the last of a region, the cell of its last corner included, at least one."""
    left, top, right, bottom = (math.floor(edge / stride + 0.5) for edge in np.asarray(box, np.float64))
    return left, top, max(right, left) + 1, max(bottom, top) + 1


def _bin_cells(start: int, stop: int, index: int, size: int, cells: int) -> range:
    """The cells inside the map of one of `size` bins of [start, stop): whole numbers, so nothing is rounded wrongly."""
    first = start + (index * (stop - start)) // size
    past = start - (-(index + 1) * (stop - start)) // size
    return range(max(first, 0), min(past, cells))


def pooled(features: Sequence[Array], bins: Iterator[Bin], shape: tuple[int, int, int], reduce: str) -> Array:
    """Reduces bins to [images, regions, size, size, channels], from features [B, H, W, C] of each level.

    Args:
        features: of each level.
        bins: from one of the functions above.
        shape: (images, regions, size).
        reduce: "average" or "max" of a bin's samples; a bin without samples is 0.
    """
    images, regions, size = shape
    result = np.zeros([images, regions, size, size, features[0].shape[-1]])
    for image, region, row, column, level, samples in bins:
        if samples:
            values = [_read(features[level][image], sample) for sample in samples]
            reduced = np.mean(values, axis=0) if reduce == "average" else np.max(values, axis=0)
            result[image, region, row, column] = reduced
    return result


def pooled_gradient(features: Sequence[Array], bins: Iterator[Bin], upstream: Array, reduce: str) -> list[Array]:
    """The gradient of sum(upstream * pooled) towards the features of each level.

    An average spreads it over its samples; a maximum sends it to the sample that won.
    """
    gradients = [np.zeros_like(level) for level in features]
    for image, region, row, column, level, samples in bins:
        if not samples:
            continue
        values = np.array([_read(features[level][image], sample) for sample in samples])
        for channel, share in enumerate(upstream[image, region, row, column]):
            winners = range(len(samples)) if reduce == "average" else [int(np.argmax(values[:, channel]))]
            for winner in winners:
                for y, x, weight in samples[winner]:
                    gradients[level][image, y, x, channel] += share * weight / len(winners)
    return gradients


def _read(features: Array, sample: Sample) -> Array:
    """Value [C] of one sample of a map [H, W, C]."""
    value = np.zeros(features.shape[-1])
    for y, x, weight in sample:
        value += weight * features[y, x]
    return value
