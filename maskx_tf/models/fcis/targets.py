"""Targets of FCIS: its choice of regions, and their masks, rounded as in the reference."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from maskx_tf.ops import boxes as box_ops
from maskx_tf.ops import sampling
from maskx_tf.ops.masks import bilinear_weights
from maskx_tf.ops.sampling import Sample
from maskx_tf.structures import Proposals, Targets
from maskx_tf.targets import RegionTargets, targets_of_choice

# Continuous boxes less this are inclusive ones.
INCLUSIVE = (0.0, 0.0, 1.0, 1.0)
# A pixel of a resized mask is mask from this value on.
MASK_THRESHOLD = 0.4


class PositionSampler(NamedTuple):
    """Which regions learn.

    Attributes:
        size: R; None: every candidate, for the choice by loss.
        foreground_fraction: the largest foreground share of R.
        foreground_iou: IoU with a truth from which a region is foreground.
        background_iou: a region is background from the first up to, but without, the second.
        weights: the weights of the box coding.
    """

    size: int | None
    foreground_fraction: float
    foreground_iou: float
    background_iou: tuple[float, float]
    weights: tuple[float, float, float, float]

    def sample(self, proposals: Proposals, truth: Targets, seed: tf.Tensor) -> RegionTargets:
        """The regions of each image, the truth's own boxes among the candidates, with their targets."""
        usable_truth = truth.valid & ~truth.crowd
        boxes = tf.concat([proposals.boxes, truth.boxes], axis=1)  # [B, N + G, 4]
        usable = tf.concat([proposals.valid, usable_truth], axis=1)
        matches = sampling.match(boxes, truth.boxes, usable_truth)
        foreground = (matches.overlaps >= self.foreground_iou) & usable
        if self.size is None:
            indices = tf.broadcast_to(tf.range(tf.shape(boxes)[1]), tf.shape(foreground))
            chosen = Sample(indices, foreground, usable)
        else:
            lowest, highest = self.background_iou
            background = (matches.overlaps >= lowest) & (matches.overlaps < highest) & usable & ~foreground
            keys = sampling.random_keys(tf.shape(foreground), seed, 3)
            limit = round(self.size * self.foreground_fraction)
            chosen = choose_regions(foreground, background, usable, keys, size=self.size, foreground_limit=limit)
        return targets_of_choice(boxes, matches, chosen, truth, weights=self.weights)


def choose_regions(
    foreground: tf.Tensor,
    background: tf.Tensor,
    usable: tf.Tensor,
    keys: list[tf.Tensor],
    *,
    size: int,
    foreground_limit: int,
) -> Sample:
    """Chooses up to `foreground_limit` foreground regions, then background, then any usable regions.

    The remaining places count as background. They are filled in turn, repeatedly if needed, with all usable regions
    that were not chosen as foreground: background again, and regions that overlap too little or too much.

    Args:
        foreground: bool [B, A].
        background: bool [B, A].
        usable: bool [B, A].
        keys: three numbers int32 [B, A] for each region, 0 or more: the largest are taken of the foreground, of the
            background, and to fill up.
        size: R.
        foreground_limit: see above.
    """
    slots = tf.range(size)[None, :]
    first = _in_order(foreground, keys[0])
    second = _in_order(background, keys[1])
    first_count = tf.minimum(_count(foreground), foreground_limit)  # [B, 1]
    second_count = tf.minimum(_count(background), size - first_count)
    rank = tf.argsort(first, axis=1)  # of each region among the foreground
    pool = usable & ~(foreground & (rank < first_count))
    third, third_count = _in_order(pool, keys[2]), _count(pool)
    rest = slots - first_count - second_count
    places = tf.math.floormod(tf.maximum(rest, 0), tf.maximum(third_count, 1))
    last = tf.shape(foreground)[1] - 1
    indices = tf.where(
        slots < first_count,
        _taken(first, tf.minimum(slots, last)),
        tf.where(rest < 0, _taken(second, tf.clip_by_value(slots - first_count, 0, last)), _taken(third, places)),
    )
    return Sample(indices, slots < first_count, (rest < 0) | (third_count > 0))


def position_mask_targets(
    masks: tf.Tensor,
    grids: tf.Tensor,
    truths: tf.Tensor,
    regions: tf.Tensor,
    matches: tf.Tensor,
    *,
    size: int,
) -> tf.Tensor:
    """Binary masks that regions should get.

    Regions and boxes are rounded to whole pixels; the mask's pixels that lie in both are resized bilinearly with the
    rest of the region, which is empty, and a cell of at least `MASK_THRESHOLD` is mask.

    Args:
        masks: float32 [B, G, S, T] in 0..1.
        grids: float32 [B, G, 4], the boxes over which the masks are stretched.
        truths: float32 [B, G, 4], the boxes of the instances; nothing of a mask counts outside.
        regions: float32 [B, N, 4].
        matches: int32 [B, N], the instance of each region.
        size: M, side of the targets.

    Returns:
        float32 [B, N, M, M], 0 or 1.
    """
    grids = tf.gather(grids, matches, batch_dims=1)
    truths = tf.round(tf.gather(truths, matches, batch_dims=1) - INCLUSIVE)
    regions = tf.round(regions - INCLUSIVE)

    def weights(axis: int, cells: int) -> tf.Tensor:
        """How much each of a mask's cells gives to each target cell along an axis: [B, N, M, cells]."""
        low, high = regions[..., axis, None], regions[..., axis + 2, None]
        points = (tf.range(size, dtype=tf.float32) + 0.5) * ((high - low + 1.0) / size) - 0.5
        before = tf.floor(points)
        total = tf.zeros([], tf.float32)
        for tap, share in ((before, 1.0 - (points - before)), (before + 1.0, points - before)):
            pixel = low + tf.clip_by_value(tap, 0.0, high - low)
            inside = (pixel >= truths[..., axis, None]) & (pixel <= truths[..., axis + 2, None])
            start, stop = grids[..., axis, None], grids[..., axis + 2, None]
            at = (pixel + 0.5 - start) / tf.maximum(stop - start, box_ops.MIN_SIDE) * cells - 0.5
            at = tf.clip_by_value(at, 0.0, cells - 1.0)
            total += bilinear_weights(at, tf.range(cells, dtype=tf.float32)) * tf.where(inside, share, 0.0)[..., None]
        return total

    rows, columns = weights(1, masks.shape[2]), weights(0, masks.shape[3])
    own = tf.gather(masks, matches, batch_dims=1)
    resized = tf.matmul(tf.matmul(rows, own), columns, transpose_b=True)
    return tf.cast(resized >= MASK_THRESHOLD, tf.float32)


def _in_order(candidates: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
    """Indices int32 [B, A], the candidates first, by descending keys."""
    return tf.argsort(tf.where(candidates, keys, -1), axis=1, direction="DESCENDING", stable=True)


def _count(candidates: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(candidates, tf.int32), axis=1, keepdims=True)


def _taken(indices: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    return tf.gather(indices, tf.broadcast_to(places, [tf.shape(indices)[0], places.shape[1]]), batch_dims=1)
