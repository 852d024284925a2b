"""Matching boxes to ground truth, and random choice with explicit seeds."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from maskx_tf.ops import boxes as box_ops

# `match` compares about this many pairs of a box and a truth at a time: few rounds, in the cache of a core.
PAIRS_A_ROUND = 2**18


class Matches(NamedTuple):
    """The truth that each box overlaps most.

    Attributes:
        truths: int32 [B, A], index into G; 0 where there is no truth.
        overlaps: float32 [B, A], the IoU with it.
        best_of_truth: bool [B, A], no box overlaps some truth more than this one does.
    """

    truths: tf.Tensor
    overlaps: tf.Tensor
    best_of_truth: tf.Tensor


def match(boxes: tf.Tensor, truths: tf.Tensor, valid: tf.Tensor) -> Matches:
    """Finds each box's truth, some truths at a time, so that memory does not grow with their number.

    Args:
        boxes: float32 [B, A, 4], or [1, A, 4] for the same boxes in every image.
        truths: float32 [B, G, 4].
        valid: bool [B, G], which truths count; the loop ends at the last one of the batch.
    """
    count = truths.shape[1]
    shape = [tf.shape(truths)[0], boxes.shape[1] or tf.shape(boxes)[1]]
    together = min(max(PAIRS_A_ROUND // max(boxes.shape[1] or PAIRS_A_ROUND, 1), 1), max(count, 1))
    missing = -count % together
    truths = tf.pad(truths, [[0, 0], [0, missing], [0, 0]])
    last = tf.reduce_max(tf.where(valid, tf.range(1, count + 1), 0))
    valid = tf.pad(valid, [[0, 0], [0, missing]])

    def look(
        first: tf.Tensor, matched: tf.Tensor, best: tf.Tensor, marked: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        some, here = tf.slice(truths, [0, first, 0], [-1, together, 4]), tf.slice(valid, [0, first], [-1, together])
        pairs = tf.where(here[..., None], box_ops.iou(some, boxes), -1.0)  # [B, together, A]
        top = tf.reduce_max(pairs, axis=2, keepdims=True)
        marked |= tf.reduce_any((pairs == top) & (top > 0.0), axis=1)
        overlap = tf.reduce_max(pairs, axis=1)
        places = first + tf.range(together)[:, None]
        own = tf.reduce_min(tf.where(pairs == overlap[:, None], places, count), axis=1)
        better = overlap > best
        return first + together, tf.where(better, own, matched), tf.where(better, overlap, best), marked

    start = (tf.constant(0), tf.zeros(shape, tf.int32), tf.fill(shape, -1.0), tf.zeros(shape, tf.bool))
    rounds = (count + missing) // together
    _, matched, best, marked = tf.while_loop(
        lambda first, *_: first < last, look, start, parallel_iterations=1, maximum_iterations=rounds
    )
    return Matches(matched, tf.maximum(best, 0.0), marked)


def flagged_first(flags: tf.Tensor) -> tf.Tensor:
    """Indices int32 [B, N] of entries, those with a flag, bool [B, N], before the others; each in their order."""
    return tf.argsort(tf.cast(~flags, tf.int32), axis=1, stable=True)


def where_flagged(flags: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Values [B, N, ...] of entries with a flag, bool [B, N]; zeros elsewhere."""
    aligned = flags[(..., *[tf.newaxis] * (values.shape.rank - 2))]
    return tf.where(aligned, values, tf.zeros([], values.dtype))


class Sample(NamedTuple):
    """A random choice of boxes, foreground first.

    Attributes:
        indices: int32 [B, S], index into the boxes; 0 in padding.
        foreground: bool [B, S].
        valid: bool [B, S].
    """

    indices: tf.Tensor
    foreground: tf.Tensor
    valid: tf.Tensor


def sample(
    foreground: tf.Tensor, background: tf.Tensor, *, size: int, foreground_limit: int, seed: tf.Tensor
) -> Sample:
    """Picks up to `foreground_limit` foreground boxes, and background to fill up to `size`.

    Args:
        foreground: bool [B, A].
        background: bool [B, A].
        size: S.
        foreground_limit: the largest number of foreground samples.
        seed: int32 [2], or [B, 2] with one for each image; the same seed picks the same.
    """
    # One column at least, for the gathers below, even where none is wanted.
    keys = random_keys(tf.shape(foreground), seed, 2)
    first, first_valid = _choose(foreground & (foreground_limit > 0), max(foreground_limit, 1), keys[0])
    second, second_valid = _choose(background, size, keys[1])
    count = tf.reduce_sum(tf.cast(first_valid, tf.int32), axis=1, keepdims=True)  # [B, 1]
    # Slot j takes foreground j, or else background j - count: both lists hold their valid entries first.
    slots = tf.range(size)[None, :]
    is_first = slots < count
    from_second = tf.clip_by_value(slots - count, 0, second.shape[1] - 1)
    from_first = tf.broadcast_to(tf.minimum(slots, first.shape[1] - 1), tf.shape(from_second))
    in_second = tf.gather(second_valid, from_second, batch_dims=1) & (slots - count < second.shape[1])
    valid = is_first | in_second
    indices = tf.where(
        is_first, tf.gather(first, from_first, batch_dims=1), tf.gather(second, from_second, batch_dims=1)
    )
    return Sample(tf.where(valid, indices, 0), is_first, valid)


def fold_in(seed: tf.Tensor, number: int) -> tf.Tensor:
    """Another seed made of one, int32 [2], or of several, int32 [B, 2]."""
    seed = tf.convert_to_tensor(seed)
    if seed.shape.rank == 1:
        return tf.random.experimental.stateless_fold_in(seed, number)
    return tf.map_fn(lambda one: tf.random.experimental.stateless_fold_in(one, number), seed)


def uniform(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Numbers from -1 up to 1, float32 of `shape`, whose first dimension is B; seed int32 [2] or [B, 2]."""
    if seed.shape.rank == 1:
        return tf.random.stateless_uniform(shape, seed, -1.0, 1.0, alg="philox")

    def draw(one: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_uniform(shape[1:], one, -1.0, 1.0, alg="philox")

    return tf.map_fn(draw, seed, fn_output_signature=tf.float32)


def random_keys(shape: tf.Tensor, seed: tf.Tensor, sets: int) -> list[tf.Tensor]:
    """Sets of whole numbers from 0 up, each int32 of `shape`, whose first dimension is B; seed int32 [2] or [B, 2]."""

    def draw(shape: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, ...]:
        # Whole numbers of a named algorithm: XLA's default differs from TensorFlow's, and so do its random floats.
        return tuple(
            tf.random.stateless_uniform(shape, fold_in(seed, number), None, None, tf.int32, alg="philox")
            for number in range(sets)
        )

    seed = tf.convert_to_tensor(seed)
    if seed.shape.rank == 1:
        keys = draw(shape, seed)
    else:
        specs = (tf.TensorSpec(None, tf.int32),) * sets
        keys = tf.map_fn(lambda one: draw(shape[1:], one), seed, fn_output_signature=specs)
    return [tf.bitwise.bitwise_and(some, 0x7FFFFFFF) for some in keys]


def _choose(candidates: tf.Tensor, limit: int, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The candidates [B, A] of the highest keys, at most `limit`: indices and validity, [B, min(limit, A)]."""
    best, indices = tf.math.top_k(tf.where(candidates, keys, -1), min(limit, candidates.shape[1]))
    return indices, best >= 0
