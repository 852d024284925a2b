"""Targets of the heads: truth assigned to anchors and to regions, sampled with explicit seeds.

Crowds and padding are never targets. Nothing here reads a mask: a flag says which regions have one, and
`ops.masks.mask_targets` crops the masks of those.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from maskx_tf.ops import boxes as box_ops
from maskx_tf.ops import sampling
from maskx_tf.ops.sampling import Matches, Sample
from maskx_tf.structures import Proposals, Targets


class AnchorTargets(NamedTuple):
    """A sample of S anchors an image.

    Attributes:
        indices: int32 [B, S], index into all anchors of the image.
        foreground: bool [B, S].
        valid: bool [B, S].
        deltas: float32 [B, S, 4], towards the matched truth; zeros for background.
    """

    indices: tf.Tensor
    foreground: tf.Tensor
    valid: tf.Tensor
    deltas: tf.Tensor


class RegionTargets(NamedTuple):
    """A sample of R regions an image, foreground first.

    Attributes:
        boxes: float32 [B, R, 4].
        classes: int32 [B, R], 0 for background and padding.
        valid: bool [B, R].
        truths: int32 [B, R], the matched truth; 0 for background.
        deltas: float32 [B, R, 4], weighted; zeros for background.
        has_mask: bool [B, R], foreground whose truth has a mask.
    """

    boxes: tf.Tensor
    classes: tf.Tensor
    valid: tf.Tensor
    truths: tf.Tensor
    deltas: tf.Tensor
    has_mask: tf.Tensor


def anchor_targets(
    anchors: tf.Tensor,
    targets: Targets,
    *,
    seed: tf.Tensor,
    size: int = 256,
    foreground_fraction: float = 0.5,
    foreground_iou: float = 0.7,
    background_iou: float = 0.3,
    inside: tf.Tensor | None = None,
) -> AnchorTargets:
    """Anchors for the RPN's losses (Faster R-CNN, section 3.1.2).

    Foreground: IoU with a truth of at least `foreground_iou`, or the best (or as good) of some truth. Background:
    below `background_iou`. The others are not sampled.

    Args:
        anchors: float32 [A, 4], all levels.
        targets: the truth.
        seed: int32 [2], or [B, 2] with one for each image.
        size: S.
        foreground_fraction: the largest foreground share of S.
        foreground_iou: see above.
        background_iou: see above.
        inside: bool [B, A], the only anchors to use, or None for all (Detectron drops those that cross the border).
    """
    truth = targets.valid & ~targets.crowd
    # The best of the anchors that are used: the others get no area, and overlap nothing.
    candidates = anchors[None] if inside is None else tf.where(inside[..., None], anchors, 0.0)
    matches = sampling.match(candidates, targets.boxes, truth)
    usable = tf.ones_like(matches.best_of_truth) if inside is None else inside
    foreground = (matches.overlaps >= foreground_iou) | matches.best_of_truth
    background = (matches.overlaps < background_iou) & ~foreground
    chosen = sampling.sample(
        foreground & usable,
        background & usable,
        size=size,
        foreground_limit=int(size * foreground_fraction),
        seed=seed,
    )
    matched = tf.gather(matches.truths, chosen.indices, batch_dims=1)
    deltas = box_ops.encode(tf.gather(targets.boxes, matched, batch_dims=1), tf.gather(anchors, chosen.indices))
    return AnchorTargets(
        indices=chosen.indices,
        foreground=chosen.foreground,
        valid=chosen.valid,
        deltas=tf.where(chosen.foreground[..., None], deltas, 0.0),
    )


def anchors_inside(anchors: tf.Tensor, image_sizes: tf.Tensor) -> tf.Tensor:
    """Which anchors [A, 4] lie wholly in each image of float32 [B, 2] (height, width): bool [B, A]."""
    height, width = image_sizes[:, None, 0], image_sizes[:, None, 1]
    x1, y1, x2, y2 = tf.unstack(anchors[None], axis=-1)
    return (x1 >= 0.0) & (y1 >= 0.0) & (x2 <= width) & (y2 <= height)


def region_targets(
    proposals: Proposals,
    targets: Targets,
    *,
    seed: tf.Tensor,
    size: int = 512,
    foreground_fraction: float = 0.25,
    foreground_iou: float = 0.5,
    background_iou: tuple[float, float] = (0.0, 0.5),
    weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0),
) -> RegionTargets:
    """Regions for the losses of the box and mask heads, the truth's own boxes among the candidates.

    Args:
        proposals: the RPN's.
        targets: the truth.
        seed: int32 [2], or [B, 2] with one for each image.
        size: R.
        foreground_fraction: the largest foreground share of R.
        foreground_iou: IoU with a truth from which a region is foreground.
        background_iou: a region is background from the first up to, but without, the second.
        weights: the weights of the box coding.
    """
    truth = targets.valid & ~targets.crowd
    boxes = tf.concat([proposals.boxes, targets.boxes], axis=1)  # [B, N + G, 4]
    usable = tf.concat([proposals.valid, truth], axis=1)
    matches = sampling.match(boxes, targets.boxes, truth)
    foreground = matches.overlaps >= foreground_iou
    lowest, highest = background_iou
    background = (matches.overlaps >= lowest) & (matches.overlaps < highest) & ~foreground
    chosen = sampling.sample(
        foreground & usable,
        background & usable,
        size=size,
        foreground_limit=int(size * foreground_fraction),
        seed=seed,
    )
    return targets_of_choice(boxes, matches, chosen, targets, weights=weights)


def targets_of_choice(
    boxes: tf.Tensor, matches: Matches, chosen: Sample, targets: Targets, *, weights: tuple[float, float, float, float]
) -> RegionTargets:
    """Returns the targets of chosen candidates.

    Args:
        boxes: float32 [B, A, 4], the candidates.
        matches: the matches of the candidates with the truth.
        chosen: R of them.
        targets: the truth.
        weights: the weights of the box coding.
    """
    regions = tf.where(chosen.valid[..., None], tf.gather(boxes, chosen.indices, batch_dims=1), 0.0)
    truths = tf.where(chosen.foreground, tf.gather(matches.truths, chosen.indices, batch_dims=1), 0)
    deltas = box_ops.encode(tf.gather(targets.boxes, truths, batch_dims=1), regions, weights)
    return RegionTargets(
        boxes=regions,
        classes=tf.where(chosen.foreground, tf.gather(targets.classes, truths, batch_dims=1), 0),
        valid=chosen.valid,
        truths=truths,
        deltas=tf.where(chosen.foreground[..., None], deltas, 0.0),
        has_mask=chosen.foreground & tf.gather(targets.has_mask, truths, batch_dims=1),
    )


def truth_regions(
    targets: Targets, *, seed: tf.Tensor, size: int, jitter: float = 0.0, with_boxes: bool = False, turn: bool = False
) -> RegionTargets:
    """The boxes of the instances, as regions for the mask head (beyond the paper).

    Args:
        targets: the truth.
        with_boxes: whether to include instances that are known by their box alone, for losses that learn from boxes.
        turn: begin with an instance drawn at random, so that all are reached where there are more than R.
        seed: int32 [2], or [B, 2] with one for each image.
        size: R. Instances are taken in turn until R are reached if they are moved, each once otherwise.
        jitter: edges are moved by up to this share of the box's width or height; 0 leaves the boxes as they are.
    """
    usable = targets.valid & ~targets.crowd
    if not with_boxes:
        usable &= targets.has_mask
    order = sampling.flagged_first(usable)
    count = tf.reduce_sum(tf.cast(usable, tf.int32), axis=1, keepdims=True)  # [B, 1]
    slots = tf.range(size)[None, :]
    valid = (slots < count) if jitter == 0.0 else tf.broadcast_to(count > 0, [tf.shape(count)[0], size])
    first = 0
    if turn:
        draw = sampling.uniform(tf.shape(count), sampling.fold_in(seed, 1))  # -1..1
        first = tf.cast(tf.floor((draw + 1.0) / 2.0 * tf.cast(count, tf.float32)), tf.int32)
    places = tf.math.floormod(slots + first, tf.maximum(count, 1))
    truths = tf.where(valid, tf.gather(order, places, batch_dims=1), 0)
    boxes = tf.where(valid[..., None], tf.gather(targets.boxes, truths, batch_dims=1), 0.0)
    if jitter:
        sides = tf.tile(boxes[..., 2:] - boxes[..., :2], [1, 1, 2])
        boxes += sides * jitter * sampling.uniform(tf.shape(boxes), seed)
    classes = tf.where(valid, tf.gather(targets.classes, truths, batch_dims=1), 0)
    has_mask = valid & tf.gather(targets.has_mask, truths, batch_dims=1)
    return RegionTargets(boxes, classes, valid, truths, tf.zeros_like(boxes), has_mask)
