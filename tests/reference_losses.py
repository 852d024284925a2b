"""Losses and targets, an entry at a time (spec/mask_rcnn.md, sections 1, 2 and 7; spec/maskx.md, section 6).

Each loss is a pair: the sum of the entries that count, and what it is divided by.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def mean(loss: tuple[float, float]) -> float:
    """Sum over count; 0 where nothing counts (maskx.md: "No valid RoI => loss and gradient 0")."""
    total, count = loss
    return total / count if count else 0.0


def sigmoid_entropy(logit: float, label: float) -> float:
    """-label log(p) - (1 - label) log(1 - p) with p = sigmoid(logit), for logits of any size."""
    return max(logit, 0.0) - logit * label + math.log1p(math.exp(-abs(logit)))


def softmax_entropy(logits: Iterable[float], label: int) -> float:
    """-log of the label's share of the exponentials."""
    values = [float(logit) for logit in logits]
    highest = max(values)
    return highest + math.log(sum(math.exp(value - highest) for value in values)) - values[label]


def smooth_l1(error: float, beta: float) -> float:
    """Fast R-CNN, equation 3, with the corner at beta (section 7, "Losses"); beta 0 is the absolute error."""
    size = abs(error)
    return 0.5 * size**2 / beta if size < beta else size - 0.5 * beta


def objectness_loss(logits: Array, foreground: ArrayLike, valid: ArrayLike, normaliser: str) -> tuple[float, float]:
    """Sigmoid entropy of the sampled anchors over their number (torchvision) or S an image (detectron2)."""
    foreground, valid = np.asarray(foreground), np.asarray(valid)
    total = sum(sigmoid_entropy(logits[index], float(foreground[index])) for index in _true(valid))
    return total, float(valid.size if normaliser == "fixed" else valid.sum())


def box_loss(
    deltas: Array, targets: ArrayLike, foreground: ArrayLike, valid: ArrayLike, beta: float, fixed: bool = False
) -> tuple[float, float]:
    """Smooth L1 of the foreground over all sampled, background included (section 7: "Box loss / all RoIs")."""
    targets, foreground, valid = np.asarray(targets, np.float64), np.asarray(foreground), np.asarray(valid)
    total = 0.0
    for index in _true(foreground & valid):
        total += sum(smooth_l1(error, beta) for error in deltas[index] - targets[index])
    return total, float(valid.size if fixed else valid.sum())


def class_loss(logits: Array, classes: ArrayLike, valid: ArrayLike) -> tuple[float, float]:
    """Softmax entropy, mean over the regions."""
    classes, valid = np.asarray(classes), np.asarray(valid)
    return sum(softmax_entropy(logits[index], classes[index]) for index in _true(valid)), float(valid.sum())


def mask_loss(logits: Array, targets: ArrayLike, has_mask: ArrayLike) -> tuple[float, float]:
    """Sigmoid entropy a pixel over the pixels of the regions that have a mask (section 1)."""
    targets, has_mask = np.asarray(targets, np.float64), np.asarray(has_mask)
    total, count = 0.0, 0.0
    for index in _true(has_mask):
        for pixel in np.ndindex(*targets.shape[2:]):
            total += sigmoid_entropy(logits[index + pixel], targets[index + pixel])
            count += 1
    return total, count


def softmax_mask_loss(
    logits: Array, targets: ArrayLike, classes: ArrayLike, has_mask: ArrayLike
) -> tuple[float, float]:
    """Softmax entropy a pixel, whose label is the region's class or background (section 1: K + 1 channels)."""
    targets, classes, has_mask = np.asarray(targets, np.float64), np.asarray(classes), np.asarray(has_mask)
    total, count = 0.0, 0.0
    for index in _true(has_mask):
        for pixel in np.ndindex(*targets.shape[2:]):
            label = int(classes[index]) if targets[index + pixel] >= 0.5 else 0
            total += softmax_entropy(logits[index + pixel], label)
            count += 1
    return total, count


def projection_loss(logits: Array, inside: ArrayLike, applies: ArrayLike) -> tuple[float, float]:
    """1 - dice of the largest probabilities of columns, and of rows, with the box's; cross-entropy outside the box."""
    inside, applies = np.asarray(inside), np.asarray(applies)
    total, count = 0.0, 0.0
    for index in _true(applies):
        if not inside[index].any():
            continue
        probabilities = 1 / (1 + np.exp(-logits[index]))
        for axis in (0, 1):
            shared = squares = 0.0
            for mask, box in zip(probabilities.max(axis=axis), inside[index].max(axis=axis), strict=True):
                shared += mask * float(box)
                squares += mask**2 + float(box) ** 2
            total += 1 - 2 * shared / squares
        outside = [-math.log(1 - p) for p, box in zip(probabilities.flat, inside[index].flat, strict=True) if not box]
        total += sum(outside) / max(len(outside), 1)
        count += 1
    return total, count


def pairs_alike(
    colours: ArrayLike, seen: ArrayLike, inside: ArrayLike, applies: ArrayLike, steps: Iterable[tuple[int, int]]
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Both ends of the pairs that count: each pair stands here twice, once for either end.

    `steps` lead from a cell to its neighbours, rows down and columns right; so do the opposite ones.

    `colours` are those of the cells, in LAB, and `seen` says which of them lie in the image.
    """
    colours, seen, inside = np.asarray(colours, np.float64), np.asarray(seen), np.asarray(inside)
    side, found = seen.shape[-1], []
    for index in _true(np.asarray(applies)):
        both_ways = [(sign * down, sign * right) for down, right in steps for sign in (1, -1)]
        for (row, column), (down, right) in itertools.product(np.ndindex(side, side), both_ways):
            cell, other = (row, column), (row + down, column + right)
            if not all(0 <= place < side for place in other):
                continue
            cell, other = (*index, *cell), (*index, *other)
            looks_alike = math.exp(-math.dist(colours[cell], colours[other]) / 2) >= 0.3
            if looks_alike and seen[cell] and seen[other] and (inside[cell] or inside[other]):
                found.append((cell, other))
    return found


def pairwise_loss(logits: Array, pairs: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> tuple[float, float]:
    """-log of the probability that both ends are mask, or neither (BoxInst, pairwise loss)."""
    total = 0.0
    for cell, other in pairs:
        p, q = (1 / (1 + math.exp(-logits[place])) for place in (cell, other))
        total -= math.log(p * q + (1 - p) * (1 - q))
    return total, float(len(pairs))


def point_loss(logits: Array, points: ArrayLike, labels: ArrayLike, valid: ArrayLike) -> tuple[float, float]:
    """Sigmoid entropy where points lie between the centres of cells; a point beyond the region does not count."""
    points, labels, side = np.asarray(points, np.float64), np.asarray(labels), logits.shape[-1]
    total, count = 0.0, 0.0
    for index in _true(np.asarray(valid)):
        x, y = points[index]
        if not (0 <= x <= 1 and 0 <= y <= 1):
            continue
        value = 0.0
        v, u = (min(max(share * side - 0.5, 0.0), side - 1.0) for share in (y, x))
        for row, column in np.ndindex(side, side):
            share = max(1 - abs(row - v), 0.0) * max(1 - abs(column - u), 0.0)
            value += share * logits[(*index[:2], row, column)]
        total += sigmoid_entropy(value, float(labels[index]))
        count += 1
    return total, count


def _true(flags: NDArray[np.bool_]) -> list[tuple[int, ...]]:
    return [tuple(int(part) for part in index) for index in np.argwhere(flags)]
