"""Keypoints, one number at a time, in plain loops (spec/keypoints_cityscapes.md, sections 1 to 3 and 5)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tests.reference_losses import softmax_entropy

Array = NDArray[np.float64]


def target(keypoint: ArrayLike, region: ArrayLike, size: int) -> tuple[int, bool]:
    """The cell of a keypoint (x, y, label) in the map of a region, and whether it counts; in float32."""
    x, y, label = np.float32(keypoint)
    x1, y1, x2, y2 = np.float32(region)
    if x2 <= x1 or y2 <= y1:
        return 0, False
    cells = []
    for at, low, high in ((x, x1, x2), (y, y1, y2)):
        scale = np.float32(size) / (high - low)
        cells.append(size - 1 if at == high else math.floor((at - low) * scale))
    valid = all(0 <= cell < size for cell in cells) and label > 0
    return (cells[1] * size + cells[0], True) if valid else (0, False)


def cubic(x: float, a: float = -0.75) -> float:
    """Keys' kernel."""
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def bicubic(cells: ArrayLike, height: int, width: int) -> Array:
    """A map resized by the sixteen cells around each pixel; the outermost cells go on beyond the border."""
    cells = np.asarray(cells, np.float64)
    result = np.zeros([height, width])
    for i, j in np.ndindex(height, width):
        v, u = (i + 0.5) * cells.shape[0] / height - 0.5, (j + 0.5) * cells.shape[1] / width - 0.5
        for row in range(math.floor(v) - 1, math.floor(v) + 3):
            for column in range(math.floor(u) - 1, math.floor(u) + 3):
                inside = min(max(row, 0), cells.shape[0] - 1), min(max(column, 0), cells.shape[1] - 1)
                result[i, j] += cubic(v - row) * cubic(u - column) * cells[inside]
    return result


def decode(cells: ArrayLike, box: ArrayLike, score: str = "logit") -> tuple[float, float, float]:
    """x, y and score of the peak of a map in a box."""
    x1, y1, x2, y2 = np.asarray(box, np.float64)
    w, h = max(x2 - x1, 1.0), max(y2 - y1, 1.0)
    width, height = math.ceil(w), math.ceil(h)
    resized = bicubic(cells, height, width)
    row, column = divmod(int(resized.argmax()), width)
    peak = resized[row, column]
    value = peak if score == "logit" else 1.0 / np.exp(np.asarray(cells, np.float64) - peak).sum()
    return (column + 0.5) * w / width + x1, (row + 0.5) * h / height + y1, float(value)


def losses(
    logits: ArrayLike, points: ArrayLike, boxes: ArrayLike, *, images: int, sampled: int, fraction: float
) -> tuple[float, float]:
    """detectron2's loss of the foreground regions of all images: by visible keypoints, and by Detectron's constant.

    Args:
        logits: [N, P, S, S] of every foreground region.
        points: [N, P, 3], their truth.
        boxes: [N, 4].
        images: in the batch.
        sampled: regions an image.
        fraction: of these, that may be foreground.
    """
    logits = np.asarray(logits, np.float64)
    total, count = 0.0, 0
    for maps, marked, box in zip(logits, np.asarray(points), np.asarray(boxes), strict=True):
        x1, y1, x2, y2 = box
        if not any(label >= 1 and x1 <= x <= x2 and y1 <= y <= y2 for x, y, label in marked):
            continue  # detectron2 leaves the region out
        for heat, keypoint in zip(maps, marked, strict=True):
            cell, valid = target(keypoint, box, heat.shape[-1])
            if valid:
                total += softmax_entropy(heat.ravel(), cell)
                count += 1
    return total / count if count else 0.0, total / (images * logits.shape[1] * sampled * fraction)
