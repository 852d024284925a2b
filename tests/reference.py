"""Boxes, anchors, suppression and assignment, one number at a time: what `maskx_tf.ops` has to agree with.

Plain loops in float64, written from the conventions (spec/mask_rcnn.md, sections 2, 3 and 7) and from the contracts in
the docstrings of `maskx_tf`. Pooling, masks and losses have their own `reference_*` modules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Box = Sequence[float] | Array
Weights = tuple[float, float, float, float]

ONES: Weights = (1.0, 1.0, 1.0, 1.0)
MAX_LOG_SCALE = math.log(1000.0 / 16.0)
MIN_SIDE = 1e-3
PYRAMID_SIZE, PYRAMID_LEVEL = 224.0, 4


def numeric_gradient(function: Callable[[Array], float], values: ArrayLike, step: float = 1e-5) -> Array:
    """Central differences of a scalar function of an array."""
    values = np.array(values, np.float64)
    gradient = np.zeros_like(values)
    for index in np.ndindex(*values.shape):
        above, below = values.copy(), values.copy()
        above[index] += step
        below[index] -= step
        gradient[index] = (function(above) - function(below)) / (2 * step)
    return gradient


def area(box: Box) -> float:
    """Continuous edges (section 7, "Boxes", detectron2 and torchvision): width = x2 - x1; degenerate boxes have 0."""
    x1, y1, x2, y2 = (float(edge) for edge in box)
    return max(x2 - x1, 0.0) * max(y2 - y1, 0.0)


def iou(box: Box, other: Box) -> float:
    """Area shared over area covered; 0 where either box is degenerate."""
    shared = area(
        [max(box[0], other[0]), max(box[1], other[1]), min(box[2], other[2]), min(box[3], other[3])],
    )
    if area(box) == 0.0 or area(other) == 0.0:
        return 0.0
    return shared / (area(box) + area(other) - shared)


def iou_matrix(boxes: ArrayLike, others: ArrayLike) -> Array:
    """`iou` of every pair of rows."""
    boxes, others = np.asarray(boxes, np.float64), np.asarray(others, np.float64)
    return np.array([[iou(box, other) for other in others] for box in boxes]).reshape(len(boxes), len(others))


def clip(box: Box, height: float, width: float) -> Array:
    """To [0, W] and [0, H], both ends included (section 7, as detectron2 and torchvision)."""
    x1, y1, x2, y2 = (float(edge) for edge in box)
    return np.array(
        [min(max(x1, 0), width), min(max(y1, 0), height), min(max(x2, 0), width), min(max(y2, 0), height)], np.float64
    )


def encode(box: Box, anchor: Box, weights: Weights = ONES) -> Array:
    """(dx, dy, dw, dh) of Faster R-CNN, equation 2, times the weights; a side below MIN_SIDE counts as MIN_SIDE."""
    (x, y, width, height), (ax, ay, awidth, aheight) = _centre(box), _centre(anchor)
    deltas = [(x - ax) / awidth, (y - ay) / aheight, math.log(width / awidth), math.log(height / aheight)]
    return np.array([weight * delta for weight, delta in zip(weights, deltas, strict=True)])


def decode(deltas: Box, anchor: Box, weights: Weights = ONES) -> Array:
    """The inverse of `encode`, dw and dh at most log(1000 / 16) (section 7, "Losses")."""
    ax, ay, awidth, aheight = _centre(anchor)
    dx, dy, dw, dh = (float(delta) / weight for delta, weight in zip(deltas, weights, strict=True))
    x, y = ax + dx * awidth, ay + dy * aheight
    width, height = awidth * math.exp(min(dw, MAX_LOG_SCALE)), aheight * math.exp(min(dh, MAX_LOG_SCALE))
    return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


def _centre(box: Box) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(edge) for edge in box)
    return (x1 + x2) / 2, (y1 + y2) / 2, max(x2 - x1, MIN_SIDE), max(y2 - y1, MIN_SIDE)


def anchors_torchvision(sizes: Sequence[float], ratios: Sequence[float]) -> Array:
    """Around 0, corners rounded half to even, in float32 throughout; all sizes of a ratio together (section 7)."""
    rows = []
    for ratio in ratios:
        tall = np.sqrt(np.float32(ratio))
        wide = np.float32(1) / tall
        for size in sizes:
            width, height = wide * np.float32(size), tall * np.float32(size)
            rows.append([np.round(edge / np.float32(2)) for edge in (-width, -height, width, height)])
    return np.array(rows, np.float64)


def anchors_detectron2(sizes: Sequence[float], ratios: Sequence[float]) -> Array:
    """Around 0, not rounded; all ratios of a size together (section 7)."""
    rows = []
    for size in sizes:
        for ratio in ratios:
            width = math.sqrt(size**2 / ratio)
            height = ratio * width
            rows.append([-width / 2, -height / 2, width / 2, height / 2])
    return np.array(rows)


def anchors_detectron_inclusive(sizes: Sequence[float], ratios: Sequence[float], stride: int) -> Array:
    """Detectron's own inclusive corners: sides rounded at the stride's scale, centred in the cell of `stride` pixels.

    The window (0, 0, stride - 1, stride - 1) is stretched to each ratio, then to each size (section 7).
    """
    rows = []
    for ratio in ratios:
        width = np.round(math.sqrt(stride * stride / ratio))
        height = np.round(width * ratio)
        for size in sizes:
            reach_x, reach_y = (width * size / stride - 1) / 2, (height * size / stride - 1) / 2
            middle = (stride - 1) / 2
            rows.append([middle - reach_x, middle - reach_y, middle + reach_x, middle + reach_y])
    return np.array(rows)


def grid(cell: ArrayLike, height: int, width: int, stride: int) -> Array:
    """The anchors of one cell at every cell: row by row, cell by cell, cell i moved by i * stride (section 7)."""
    rows = []
    for y in range(height):
        for x in range(width):
            rows += [np.asarray(anchor) + np.array([x, y, x, y]) * stride for anchor in np.asarray(cell, np.float64)]
    return np.array(rows).reshape(-1, 4)


def level(box: Box, epsilon: str, lowest: int = 2, highest: int = 5) -> int:
    """FPN, equation 1, with the guard where each program has it (section 7, "Level"); 0 is the finest level."""
    size = math.sqrt(area(box)) / PYRAMID_SIZE
    inside = {"torchvision": 0.0, "detectron": 1e-6, "detectron2": 1e-8}[epsilon]
    outside = 1e-6 if epsilon == "torchvision" else 0.0
    if size + inside == 0.0:
        return 0
    exact = math.floor(PYRAMID_LEVEL + math.log2(size + inside) + outside)
    return min(max(exact, lowest), highest) - lowest


def nms(
    boxes: ArrayLike, scores: ArrayLike, groups: ArrayLike, valid: ArrayLike, threshold: float, limit: int
) -> list[int]:
    """Indices kept, best first: a box goes where its IoU with a kept better one of its group is above the threshold.

    Greedy, as Faster R-CNN; above, not at (torchvision, detectron2). Of equal scores the first wins.
    """
    boxes, scores, groups, valid = (np.asarray(values) for values in (boxes, scores, groups, valid))
    boxes = boxes.astype(np.float64)
    order = sorted(np.flatnonzero(valid), key=lambda index: -scores[index])
    kept: list[int] = []
    kept_of: dict[int, list[int]] = {}
    for index in order:
        rivals = kept_of.setdefault(int(groups[index]), [])
        if all(iou(boxes[index], boxes[rival]) <= threshold for rival in rivals):
            rivals.append(int(index))
            kept.append(int(index))
    return kept[:limit]


def soft_nms(
    boxes: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike,
    valid: ArrayLike,
    threshold: float | None,
    sigma: float,
    least: float,
    limit: int,
) -> list[tuple[int, float]]:
    """Indices and scores, best first (Bodla et al. 2017, figure 3): linear above a threshold, or Gaussian without."""
    boxes, groups = np.asarray(boxes, np.float64), np.asarray(groups)
    left = {int(index): float(np.asarray(scores)[index]) for index in np.flatnonzero(valid)}
    kept: list[tuple[int, float]] = []
    while left and len(kept) < limit:
        best = max(left, key=lambda index: left[index])
        kept.append((best, left.pop(best)))
        for index in list(left):
            if groups[index] == groups[best]:
                overlap = iou(boxes[index], boxes[best])
                if threshold is None:
                    left[index] *= math.exp(-(overlap**2) / sigma)
                elif overlap > threshold:
                    left[index] *= 1 - overlap
            if left[index] <= least:
                del left[index]
    return kept


def voted_box(
    index: int, boxes: ArrayLike, scores: ArrayLike, groups: ArrayLike, valid: ArrayLike, threshold: float
) -> np.ndarray:
    """The mean of the boxes of a group that overlap one of them, weighted by score (Gidaris and Komodakis 2015)."""
    total, weights = np.zeros(4), 0.0
    for other in np.flatnonzero(valid):
        if groups[other] == groups[index] and iou(boxes[other], boxes[index]) >= threshold:
            total += float(scores[other]) * np.asarray(boxes[other], np.float64)
            weights += float(scores[other])
    return total / weights


def candidates(scores: ArrayLike, valid: ArrayLike, threshold: float, limit: int) -> list[tuple[float, int, int]]:
    """(score, region, class from 1) of the pairs above the threshold, best first (section 3, "Score > 0.05")."""
    scores, valid = np.asarray(scores), np.asarray(valid)
    found = [
        (float(scores[region, column]), int(region), column + 1)
        for region in np.flatnonzero(valid)
        for column in range(scores.shape[1])
        if scores[region, column] > threshold
    ]
    return sorted(found, key=lambda item: -item[0])[:limit]


def proposals(
    logits: Sequence[ArrayLike],
    deltas: Sequence[ArrayLike],
    anchors: Sequence[ArrayLike],
    image_size: tuple[float, float],
    per_level: int,
    limit: int,
    threshold: float,
    min_side: float,
) -> tuple[Array, Array]:
    """Boxes and scores of one image: top-N of a level, decoded, clipped, NMS in the level, top-N of all (section 7)."""
    found: list[tuple[float, Array]] = []
    for level_logits, level_deltas, level_anchors in zip(logits, deltas, anchors, strict=True):
        level_logits = np.asarray(level_logits, np.float64)
        best = sorted(range(len(level_logits)), key=lambda index: -level_logits[index])[:per_level]
        boxes = [clip(decode(np.asarray(level_deltas)[i], np.asarray(level_anchors)[i]), *image_size) for i in best]
        scores = [1 / (1 + math.exp(-level_logits[index])) for index in best]
        sides = [min(box[2] - box[0], box[3] - box[1]) for box in boxes]
        valid = [side > 0 and side >= min_side for side in sides]
        kept = nms(np.reshape(boxes, [-1, 4]), scores, np.zeros(len(best)), valid, threshold, len(best))
        found += [(scores[index], boxes[index]) for index in kept]
    found = sorted(found, key=lambda item: -item[0])[:limit]
    return np.array([box for _, box in found]).reshape(-1, 4), np.array([score for score, _ in found])


def match(boxes: ArrayLike, truths: ArrayLike, valid: ArrayLike) -> tuple[NDArray[np.int64], Array, NDArray[np.bool_]]:
    """Truth with the highest IoU (the first of equals), that IoU, and whether no box overlaps some truth more.

    Section 2, "best-per-GT positive"; ties all count; a truth that no box overlaps has no best box, and a box that
    overlaps no truth has truth 0 here.
    """
    overlaps = iou_matrix(boxes, truths)
    truth = np.zeros(len(overlaps), np.int64)
    best = np.zeros(len(overlaps))
    best_of_truth = np.zeros(len(overlaps), bool)
    for column in np.flatnonzero(valid):
        for row in range(len(overlaps)):
            if overlaps[row, column] > best[row]:
                truth[row], best[row] = column, overlaps[row, column]
            if overlaps[row, column] > 0.0 and overlaps[row, column] == overlaps[:, column].max():
                best_of_truth[row] = True
    return truth, best, best_of_truth


def labels(
    overlap: Array, foreground: NDArray[np.bool_], background: tuple[float, float], usable: ArrayLike
) -> NDArray[np.int64]:
    """1 for foreground, 0 for background, -1 for neither: not usable, or an overlap between the two (section 2)."""
    result = np.full(len(overlap), -1)
    for index in np.flatnonzero(usable):
        if foreground[index]:
            result[index] = 1
        elif background[0] <= overlap[index] < background[1]:
            result[index] = 0
    return result
