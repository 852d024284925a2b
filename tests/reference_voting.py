"""Mask voting of FCIS as a loop over detections and regions, in NumPy (spec/fcis.md, section 8).

Each detection that survives suppression is drawn again: the regions that overlap it vote for pixels with their masks,
weighted by their scores for its class. Its box becomes the enclosing box of the vote. Boxes are continuous here, as
everywhere; the reference's inclusive ones have 1 less at x2 and y2, and are rounded, halves to even, for drawing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# The reference drops detections with less than this score.
LEAST_SCORE = 1e-3


class Vote(NamedTuple):
    """What the regions make of one detection.

    Attributes:
        box: float32 [4], the enclosing box of the pixels with enough votes, of whole pixels; one pixel in the middle of
            the image where there is none.
        mask: float32 [M, M], the votes in the box.
        empty: whether no pixel has enough votes.
    """

    box: NDArray[np.float32]
    mask: NDArray[np.float32]
    empty: bool


class Voted(NamedTuple):
    """The detections of an image, class by class: classes [D], boxes [D, 4], scores [D] and masks [D, M, M]."""

    classes: NDArray[np.int64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    masks: NDArray[np.float32]


def voted_detections(
    boxes: NDArray[np.float32],
    masks: NDArray[np.float32],
    scores: NDArray[np.float32],
    size: tuple[int, int],
    *,
    limit: int = 100,
    nms_iou: float = 0.3,
    merge_iou: float = 0.5,
    threshold: float = 0.4,
    prebinarize: bool = True,
    taps_beyond: bool = True,
) -> Voted:
    """Suppression by class, the choice of the best, and a vote for each of them.

    Args:
        boxes: [R, 4], the regions of all passes.
        masks: [R, M, M] in 0..1, each of its region's best class.
        scores: [R, K + 1], background first.
        size: height and width of the image.
        limit: detections of a class, and of all, but for ties at the last place.
        nms_iou: a region that overlaps a better one of the class by more is dropped.
        merge_iou: regions vote for detections that they overlap this much.
        threshold: of a region's mask, and of the vote.
        prebinarize: see `vote`.
        taps_beyond: see `vote`; empty detections are then dropped, as there.
    """
    chosen = []
    for number in range(1, scores.shape[1]):
        kept = suppress(boxes, scores[:, number], nms_iou)[:limit]
        chosen += [(number, index, scores[index, number]) for index in kept]
    best = sorted((score for _, _, score in chosen), reverse=True)[:limit]
    least = max(best[-1] if best else 0.0, LEAST_SCORE)
    found = []
    for number, index, score in chosen:
        if score < least:
            continue
        voters = overlaps(boxes, boxes[index]) >= merge_iou
        result = vote(
            boxes[voters],
            masks[voters],
            scores[voters, number],
            size,
            threshold=threshold,
            prebinarize=prebinarize,
            taps_beyond=taps_beyond,
        )
        sides = result.box[2:] - result.box[:2]
        if not taps_beyond or (sides > 1).all():
            found.append((number, result, score))
    side = masks.shape[-1]
    return Voted(
        np.array([number for number, _, _ in found], np.int64),
        np.array([result.box for _, result, _ in found], np.float32).reshape(-1, 4),
        np.array([score for _, _, score in found], np.float32),
        np.array([result.mask for _, result, _ in found], np.float32).reshape(-1, side, side),
    )


def vote(
    boxes: NDArray[np.float32],
    masks: NDArray[np.float32],
    weights: NDArray[np.float32],
    size: tuple[int, int],
    *,
    threshold: float = 0.4,
    prebinarize: bool = True,
    taps_beyond: bool = True,
) -> Vote:
    """What regions [V, 4] with masks [V, M, M] and weights [V] make of one detection.

    Args:
        boxes: inside the image.
        masks: in 0..1.
        weights: of the votes; their sum is divided out.
        size: height and width of the image.
        threshold: a pixel belongs to the detection from this share of the votes on.
        prebinarize: a region votes for whole pixels, those from the threshold on (the reference's code), rather than
            with its probabilities (the paper).
        taps_beyond: the vote is resized out of the whole image, so that its border sees the pixels beyond the box (the
            reference on a GPU), rather than out of its box.
    """
    height, width = size
    side = masks.shape[-1]
    votes = np.zeros([height, width], np.float32)
    weights = weights / weights.sum()
    for box, mask, weight in zip(np.round(boxes - [0, 0, 1, 1]).astype(int), masks, weights, strict=True):
        x1, y1, x2, y2 = box
        drawn = _resampled(mask, y2 - y1 + 1, x2 - x1 + 1)
        if prebinarize:
            drawn = (drawn >= threshold).astype(np.float32)
        votes[y1 : y2 + 1, x1 : x2 + 1] += drawn * weight
    enough = votes >= threshold
    rows, columns = np.flatnonzero(enough.any(axis=1)), np.flatnonzero(enough.any(axis=0))
    if not len(rows):
        x, y = width // 2, height // 2
        return Vote(np.array([x, y, x + 1, y + 1], np.float32), np.zeros([side, side], np.float32), True)
    left, top, right, bottom = columns[0], rows[0], columns[-1], rows[-1]
    if taps_beyond:
        mask = _taps(top, bottom, side, 0, height - 1) @ votes @ _taps(left, right, side, 0, width - 1).T
    else:
        mask = _resampled(votes[top : bottom + 1, left : right + 1], side, side)
    return Vote(np.array([left, top, right + 1, bottom + 1], np.float32), mask, False)


def suppress(boxes: NDArray[np.float32], scores: NDArray[np.float32], iou: float) -> list[int]:
    """Indices of the boxes [R, 4] that overlap no better one by more than this, best first."""
    order, kept = np.argsort(-scores, kind="stable"), []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        order = order[overlaps(boxes[order], boxes[best]) <= iou]
    return kept


def overlaps(boxes: NDArray[np.float32], box: NDArray[np.float32]) -> NDArray[np.float32]:
    """IoU of boxes [R, 4] with one."""
    sides = np.maximum(np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2]), 0.0)
    shared = np.prod(sides, axis=1)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    return np.asarray(shared / (area - shared), np.float32)


def _resampled(grid: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """A grid in another size: bilinear at pixel centres, the outermost values repeated."""
    rows, columns = grid.shape
    return np.asarray(
        _taps(0, rows - 1, height, 0, rows - 1) @ grid @ _taps(0, columns - 1, width, 0, columns - 1).T, np.float32
    )


def _taps(first: int, last: int, count: int, low: int, high: int) -> NDArray[np.float32]:
    """Weights [count, low..high] that stretch cells first..last over so many; none beyond low and high is read."""
    at = (np.arange(count) + 0.5) * ((last - first + 1) / count) - 0.5 + first
    weights = np.maximum(1.0 - np.abs(np.clip(at, low, high)[:, None] - np.arange(low, high + 1)), 0.0)
    return weights.astype(np.float32)
