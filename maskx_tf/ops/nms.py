"""Non-maximum suppression: exact per group, padded, in two forms, a soft one, and the choice of candidates before it.

`nms` compares groups rather than shifting boxes apart by an offset, so it is as exact for 3000 classes as for one, and
it is made of basic operations: it compiles under XLA and converts to LiteRT. `nms_levels` calls TensorFlow's kernel for
several groups, which is the fastest on a CPU, and which GPUs, XLA and LiteRT lack; `nms_levels_portable` replaces it
there with TensorFlow's kernel for one group, called for each level. A box is suppressed when its IoU with a kept,
better box of its group is above the threshold.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import tensorflow as tf

from maskx_tf.ops import boxes as box_ops

# Scores are probabilities, so this marks what must never be chosen.
NEVER = -1.0
# `top_scores` looks for the best entries among the best blocks of this many.
BLOCK = 64
# `nms` decides about this many boxes together.
TOGETHER = 128


def nms(
    boxes: tf.Tensor, scores: tf.Tensor, groups: tf.Tensor, valid: tf.Tensor, *, iou_threshold: float, limit: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Keeps the best boxes, none of which overlaps a better one of its group.

    Goes through blocks of boxes, best first. In a block, a box stays unless it overlaps a better one that was kept or
    stays. Rounds apply this rule to all boxes of the block at once until nothing changes: as many as there are boxes
    in the longest chain that suppress one another, and one more.

    Args:
        boxes: float32 [B, N, 4].
        scores: float32 [B, N], at least 0; of equal scores the first entry wins.
        groups: int32 [B, N], the class or the level.
        valid: bool [B, N].
        iou_threshold: suppress above this.
        limit: D, the largest number to keep.

    Returns:
        Indices into N, int32 [B, D], best first (0 in padding), and their validity, bool [B, D].
    """
    images, total = tf.shape(boxes)[0], boxes.shape[1]
    indices, slots = tf.zeros([images, limit], tf.int32), tf.range(limit)[None, :]
    if total == 0:
        return indices, tf.zeros([images, limit], tf.bool)
    size = min(TOGETHER, total)
    best, order = tf.math.top_k(tf.where(valid, scores, NEVER), total)
    padding = [[0, 0], [0, -total % size]]
    usable = tf.pad(best >= 0.0, padding)
    order = tf.pad(order, padding)
    boxes, groups = (tf.gather(values, order, batch_dims=1) for values in (boxes, groups))
    # Row i of a block looks at the boxes that are kept, and at the boxes of the block before it.
    before = np.concatenate([np.ones([size, limit], bool), np.tri(size, k=-1, dtype=bool)], axis=1)

    def look(
        start: tf.Tensor, stays: tf.Tensor, places: tf.Tensor, count: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """One round for the block [B, size] at `start`; places [B, D] of boxes that are kept, count [B, 1] of them."""
        block = start + tf.range(size)
        compared = tf.concat([places, tf.broadcast_to(block, tf.shape(stays))], axis=1)  # [B, D + size]
        own, others = tf.gather(boxes, block, axis=1), tf.gather(boxes, compared, batch_dims=1)
        own_group, other_groups = tf.gather(groups, block, axis=1), tf.gather(groups, compared, batch_dims=1)
        rivals = (box_ops.iou(own, others) > iou_threshold) & (own_group[..., None] == other_groups[:, None])
        present = tf.concat([slots < count, stays], axis=1)[:, None]
        left = tf.gather(usable, block, axis=1) & ~tf.reduce_any(rivals & present & before, axis=-1)
        settled = tf.reduce_all(left == stays)
        to = tf.where(left & settled, count + tf.cumsum(tf.cast(left, tf.int32), axis=1) - 1, limit)
        filled = to[:, None] == slots[..., None]  # [B, D, size]
        new = tf.reduce_max(tf.where(filled, block, -1), axis=-1)
        return (
            tf.where(settled, start + size, start),
            left | settled,  # at first, all boxes of the next block
            tf.where(new >= 0, new, places),
            count + tf.reduce_sum(tf.cast(new >= 0, tf.int32), axis=1, keepdims=True),
        )

    def unfinished(start: tf.Tensor, stays: tf.Tensor, places: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        here = tf.gather(usable, tf.minimum(start, total - 1), axis=1)
        return (start < total) & tf.reduce_any(here[:, None] & (count < limit))

    state = (tf.constant(0), tf.ones([images, size], tf.bool), indices, tf.zeros([images, 1], tf.int32))
    rounds = -(-total // size) * (size + 1)
    _, _, places, count = tf.while_loop(unfinished, look, state, parallel_iterations=1, maximum_iterations=rounds)
    kept = slots < count
    return tf.where(kept, tf.gather(order, places, batch_dims=1), 0), kept


def soft_nms(
    boxes: tf.Tensor,
    scores: tf.Tensor,
    groups: tf.Tensor,
    valid: tf.Tensor,
    *,
    iou_threshold: float | None = None,
    sigma: float = 0.5,
    least: float = 0.0,
    limit: int,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Soft-NMS (Bodla et al. 2017): a box that overlaps a better box of its group loses score and is not dropped.

    Args:
        boxes: see `nms`.
        scores: see `nms`.
        groups: see `nms`.
        valid: see `nms`.
        iou_threshold: scores are multiplied by 1 - IoU above this (linear); None: by exp(-IoU^2 / sigma) everywhere.
        sigma: see iou_threshold.
        least: a box whose score falls to this or below goes.
        limit: see `nms`.

    Returns:
        Indices and validity as `nms` has them, and the scores that are left, float32 [B, D]; 0 in padding.
    """

    def lowered(remaining: tf.Tensor, overlap: tf.Tensor) -> tf.Tensor:
        if iou_threshold is None:
            remaining *= tf.exp(-tf.square(overlap) / sigma)
        else:
            remaining *= tf.where(overlap > iou_threshold, 1.0 - overlap, 1.0)
        return tf.where(remaining > least, remaining, NEVER)

    count, first = tf.shape(boxes)[0], tf.where(valid, scores, NEVER)
    kinds = (tf.int32, tf.bool, first.dtype)
    start = (tf.constant(0), first, *(tf.zeros([count, limit], kind) for kind in kinds))
    if boxes.shape[1] == 0:
        return start[2:]
    left, top, right, bottom = (edge[..., 0] for edge in tf.split(boxes, 4, axis=-1))  # each [B, N]
    area = box_ops.area(boxes)
    positions = tf.range(tf.shape(boxes)[1])[None, :]
    slots = tf.range(limit)[None, :]

    def keep_best(
        step: tf.Tensor, remaining: tf.Tensor, indices: tf.Tensor, kept: tf.Tensor, best_scores: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        best = tf.argmax(remaining, axis=1, output_type=tf.int32)  # [B]

        def of_best(values: tf.Tensor) -> tf.Tensor:
            return tf.gather(values, best, axis=1, batch_dims=1)[:, None]

        score = of_best(remaining)
        alive = score >= 0.0  # [B, 1]
        width = tf.minimum(right, of_best(right)) - tf.maximum(left, of_best(left))
        height = tf.minimum(bottom, of_best(bottom)) - tf.maximum(top, of_best(top))
        shared = tf.maximum(width, 0.0) * tf.maximum(height, 0.0)
        overlap = tf.math.divide_no_nan(shared, area + of_best(area) - shared)
        remaining = tf.where(groups == of_best(groups), lowered(remaining, overlap), remaining)
        remaining = tf.where(positions == best[:, None], NEVER, remaining)
        here = (slots == step) & alive  # [B, D]
        return (
            step + 1,
            remaining,
            tf.where(here, best[:, None], indices),
            kept | here,
            tf.where(here, score, best_scores),
        )

    _, _, *found = tf.while_loop(
        lambda step, *_: step < limit, keep_best, start, parallel_iterations=1, maximum_iterations=limit
    )
    return tuple(found)


class LevelSuppression(Protocol):
    """A form of `nms_levels`."""

    def __call__(
        self, boxes: tf.Tensor, scores: tf.Tensor, valid: tf.Tensor, *, iou_threshold: float, limit: int
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """See `nms_levels`."""
        ...


def nms_levels(
    boxes: tf.Tensor, scores: tf.Tensor, valid: tf.Tensor, *, iou_threshold: float, limit: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Suppression within each level of a pyramid, then the best of all levels (FPN, section 4.1).

    Args:
        boxes: float32 [B, N, L, 4], the candidates of level l in column l.
        scores: float32 [B, N, L] in 0..1.
        valid: bool [B, N, L].
        iou_threshold: suppress above this.
        limit: P, the largest number to keep of an image.

    Returns:
        Boxes float32 [B, P, 4], scores float32 [B, P] and validity bool [B, P]; zeros in padding.
    """
    if boxes.shape[1] == 0:
        return _nothing(boxes, limit)
    found = tf.image.combined_non_max_suppression(
        boxes,
        tf.where(valid, scores, NEVER),
        max_output_size_per_class=min(limit, boxes.shape[1]),
        max_total_size=limit,
        iou_threshold=iou_threshold,
        score_threshold=NEVER / 2,
        clip_boxes=False,
    )
    kept = tf.range(limit)[None, :] < found.valid_detections[:, None]
    return found.nmsed_boxes, tf.where(kept, found.nmsed_scores, 0.0), kept


def nms_levels_portable(
    boxes: tf.Tensor, scores: tf.Tensor, valid: tf.Tensor, *, iou_threshold: float, limit: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """`nms_levels` of operations that GPUs, XLA, LiteRT and ONNX have; two to three times its time on a CPU.

    The same answer but for ties: of equal scores the kernel takes any first, this form the first of the first level.
    """
    candidates, levels = scores.shape[1:]
    if candidates == 0:
        return _nothing(boxes, limit)
    kept_of_level = min(limit, candidates)

    def keep(level: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        indices, count = tf.raw_ops.NonMaxSuppressionV4(
            boxes=level[0],
            scores=level[1],
            max_output_size=kept_of_level,
            iou_threshold=iou_threshold,
            score_threshold=NEVER / 2,
            pad_to_max_output_size=True,
        )
        return tf.ensure_shape(indices, [kept_of_level]), tf.range(kept_of_level) < count

    boxes = tf.reshape(tf.transpose(boxes, [0, 2, 1, 3]), [-1, candidates, 4])  # [B * L, N, 4]
    scores = tf.reshape(tf.transpose(tf.where(valid, scores, NEVER), [0, 2, 1]), [-1, candidates])
    specs = tf.TensorSpec([kept_of_level], tf.int32), tf.TensorSpec([kept_of_level], tf.bool)
    indices, kept = tf.map_fn(keep, (boxes, scores), fn_output_signature=specs)
    boxes = tf.reshape(tf.gather(boxes, indices, batch_dims=1), [-1, levels * kept_of_level, 4])
    scores = tf.reshape(tf.where(kept, tf.gather(scores, indices, batch_dims=1), NEVER), [-1, levels * kept_of_level])
    missing = max(limit - levels * kept_of_level, 0)
    best, chosen = tf.math.top_k(tf.pad(scores, [[0, 0], [0, missing]], constant_values=NEVER), limit)
    boxes = tf.gather(tf.pad(boxes, [[0, 0], [0, missing], [0, 0]]), chosen, batch_dims=1)
    kept = best >= 0.0
    return tf.where(kept[..., None], boxes, 0.0), tf.where(kept, best, 0.0), kept


def _nothing(boxes: tf.Tensor, limit: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the result of suppression for no boxes."""
    count = tf.shape(boxes)[0]
    return tf.zeros([count, limit, 4]), tf.zeros([count, limit]), tf.zeros([count, limit], tf.bool)


def top_scores(scores: tf.Tensor, limit: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The best entries of long rows: what `tf.math.top_k` gives, several times faster for millions of entries.

    The best `limit` entries lie in the `limit` blocks with the best maxima, so only those blocks are sorted through.

    Args:
        scores: float32 [B, L], at least 0.
        limit: C, the number to return; at most L are.

    Returns:
        Values float32 [B, C] in descending order and their indices int32 [B, C]. Among equal values any may be taken.
    """
    length = scores.shape[1]
    limit = min(limit, length)
    blocks = -(-length // BLOCK)
    if blocks <= 2 * limit:
        return tf.math.top_k(scores, limit)
    rows = tf.reshape(
        tf.pad(scores, [[0, 0], [0, blocks * BLOCK - length]], constant_values=NEVER), [-1, blocks, BLOCK]
    )
    _, best = tf.math.top_k(tf.reduce_max(rows, axis=-1), limit)  # [B, C] blocks
    values, within = tf.math.top_k(tf.reshape(tf.gather(rows, best, batch_dims=1), [-1, limit * BLOCK]), limit)
    block = tf.gather(best, within // BLOCK, batch_dims=1)
    return values, block * BLOCK + within % BLOCK
