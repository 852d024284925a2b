"""Every loss, as a sum and the count that it is divided by.

Both are kept separate until `mean`, so that training on several replicas can add up all counts before it divides. So
the loss of a batch does not depend on how it is split. Entries that do not count are removed before any arithmetic
could turn them into NaN: in a batch without masks, the mask loss and its gradient are exactly zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import tensorflow as tf

from maskx_tf.ops.colour import neighbours
from maskx_tf.ops.masks import bilinear_weights


class Loss(NamedTuple):
    """A loss before its division.

    Attributes:
        total: float32 scalar, the sum over all entries that count.
        count: float32 scalar, what the sum is divided by.
    """

    total: tf.Tensor
    count: tf.Tensor


def mean(loss: Loss) -> tf.Tensor:
    """The loss itself: total / count, and exactly 0 where nothing counts; NaN if the total is not finite."""
    # divide_no_nan would turn NaN / 0 into 0. Where nothing counts, a total that is finite is 0.
    return tf.where(loss.count > 0.0, tf.math.divide_no_nan(loss.total, loss.count), loss.total)


def nan_unless_finite(loss: Loss, outputs: Iterable[tf.Tensor]) -> Loss:
    """The loss with a total of NaN if any of the network's outputs is not finite, otherwise as it is.

    A loss looks at sampled entries only, so it can miss that a part of a feature map is NaN.
    """
    finite = [tf.reduce_all(tf.math.is_finite(output)) for output in outputs]
    # A factor, so that the gradient becomes NaN too.
    return Loss(loss.total * tf.where(tf.reduce_all(tf.stack(finite)), 1.0, float("nan")), loss.count)


def smooth_l1(errors: tf.Tensor, beta: float) -> tf.Tensor:
    """Quadratic below beta, linear above: .5 e^2 / beta or |e| - .5 beta; beta 0 gives |e| (Fast R-CNN, equation 3)."""
    size = tf.abs(errors)
    if beta == 0.0:
        return size
    return tf.where(size < beta, 0.5 * tf.square(size) / beta, size - 0.5 * beta)


def rpn_losses(
    logits: tf.Tensor,
    deltas: tf.Tensor,
    target_deltas: tf.Tensor,
    foreground: tf.Tensor,
    valid: tf.Tensor,
    *,
    beta: float = 1 / 9,
    normaliser: str = "sampled",
    fixed_boxes: bool = False,
) -> tuple[Loss, Loss]:
    """Objectness and box loss of the sampled anchors.

    Args:
        logits: float [B, S], objectness.
        deltas: float [B, S, 4].
        target_deltas: float32 [B, S, 4].
        foreground: bool [B, S].
        valid: bool [B, S].
        beta: the beta of the smooth L1.
        normaliser: both are divided by the number of anchors sampled ("sampled": torchvision), or by S an image
            ("fixed": detectron2).
        fixed_boxes: divide the box loss by S an image, whatever the normaliser (FCIS).
    """
    if normaliser not in ("sampled", "fixed"):
        raise ValueError(f"normaliser is {normaliser!r}, expected sampled or fixed")
    weight = tf.cast(valid, tf.float32)
    sampled, fixed = tf.reduce_sum(weight), tf.cast(tf.size(valid), tf.float32)
    count = sampled if normaliser == "sampled" else fixed
    logits = tf.where(valid, tf.cast(logits, tf.float32), 0.0)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(foreground, tf.float32), logits)
    errors = tf.reduce_sum(box_errors(deltas, target_deltas, foreground & valid, beta))
    return Loss(tf.reduce_sum(entropy * weight), count), Loss(errors, fixed if fixed_boxes else count)


def class_loss(logits: tf.Tensor, classes: tf.Tensor, valid: tf.Tensor) -> Loss:
    """Softmax cross-entropy, mean over the regions.

    Args:
        logits: float [B, R, K + 1], background first.
        classes: int32 [B, R], 0 for background.
        valid: bool [B, R].
    """
    return Loss(tf.reduce_sum(class_entropy(logits, classes, valid)), tf.reduce_sum(tf.cast(valid, tf.float32)))


def class_entropy(logits: tf.Tensor, classes: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
    """Returns each region's part of `class_loss`: float32 [B, R]."""
    logits = tf.where(valid[..., None], tf.cast(logits, tf.float32), 0.0)
    return tf.where(valid, tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits), 0.0)


def box_errors(deltas: tf.Tensor, target_deltas: tf.Tensor, counts: tf.Tensor, beta: float) -> tf.Tensor:
    """Smooth L1 of each box, float32 [B, R], of those that count, bool [B, R]; 0 for the others."""
    errors = tf.where(counts[..., None], tf.cast(deltas, tf.float32) - target_deltas, 0.0)
    return tf.reduce_sum(smooth_l1(errors, beta), axis=-1)


def mask_loss(logits: tf.Tensor, targets: tf.Tensor, has_mask: tf.Tensor) -> Loss:
    """Binary cross-entropy a pixel, mean over the pixels of the regions that have a mask (Mask R-CNN, section 3).

    Args:
        logits: float [B, R, M, M], of each region's own class.
        targets: float32 [B, R, M, M] in 0..1.
        has_mask: bool [B, R]; the others may hold anything, NaN included.
    """
    return _masked_mean(mask_entropy(logits, targets, has_mask), has_mask, pixels=tf.size(logits[0, 0]))


def mask_entropy(logits: tf.Tensor, targets: tf.Tensor, has_mask: tf.Tensor) -> tf.Tensor:
    """The binary cross-entropies of a region's pixels, added up: float32 [B, R]; means nothing without a mask."""
    logits = tf.where(has_mask[..., None, None], tf.cast(logits, tf.float32), 0.0)
    targets = tf.where(has_mask[..., None, None], targets, 0.0)
    return tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(targets, logits), axis=[-2, -1])


def softmax_mask_loss(logits: tf.Tensor, targets: tf.Tensor, classes: tf.Tensor, has_mask: tf.Tensor) -> Loss:
    """Cross-entropy a pixel among all classes, the paper's coupled alternative (Mask R-CNN, table 2b).

    Args:
        logits: float [B, R, M, M, K + 1], background first.
        targets: float32 [B, R, M, M]; a pixel from .5 on belongs to the region's class, the others to background.
        classes: int32 [B, R].
        has_mask: bool [B, R]; the others may hold anything, NaN included.
    """
    logits = tf.where(has_mask[..., None, None, None], tf.cast(logits, tf.float32), 0.0)
    labels = tf.where((targets >= 0.5) & has_mask[..., None, None], classes[..., None, None], 0)
    entropy = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits), axis=[-2, -1])
    return _masked_mean(entropy, has_mask, pixels=tf.size(labels[0, 0]))


def keypoint_loss(logits: tf.Tensor, cells: tf.Tensor, valid: tf.Tensor) -> Loss:
    """Cross-entropy of each keypoint among the cells of its heat map (Mask R-CNN, section 5), mean over keypoints.

    Args:
        logits: float [B, R, P, S, S].
        cells: int32 [B, R, P], the cell of each keypoint, counted row by row.
        valid: bool [B, R, P]; the others may hold anything, NaN included.
    """
    logits = tf.where(valid[..., None, None], tf.cast(logits, tf.float32), 0.0)
    flat = tf.reshape(logits, tf.concat([tf.shape(cells), [logits.shape[-1] * logits.shape[-2]]], axis=0))
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.where(valid, cells, 0), flat)
    weight = tf.cast(valid, tf.float32)
    return Loss(tf.reduce_sum(entropy * weight), tf.reduce_sum(weight))


def projection_loss(logits: tf.Tensor, inside: tf.Tensor, applies: tf.Tensor) -> Loss:
    """How far a mask's extent is from its box's, mean over the regions (after BoxInst, Tian et al. 2021).

    The largest probability of each column, and of each row, is compared with the box's by 1 - dice, 0 for an equal
    extent, and both are added up. The mean cross-entropy of the cells outside the box, which are background, is added,
    because dice has no gradient where the mask is certain to fill the whole region. The loss does not see the shape:
    on its own it fills boxes.

    Args:
        logits: float [B, R, M, M], of each region's own class.
        inside: bool [B, R, M, M], cells in the box of the region's truth (`ops.masks.cells_inside`).
        applies: bool [B, R]; the others may hold anything, NaN included. A region without a cell in its box is skipped.
    """
    applies &= tf.reduce_any(inside, axis=[-2, -1])
    logits = tf.where(applies[..., None, None], tf.cast(logits, tf.float32), 0.0)
    weight = tf.cast(applies, tf.float32)
    total = tf.constant(0.0)
    for axis in (-1, -2):
        # The sigmoid of the largest logit is the largest probability, of M numbers instead of M * M.
        mask = tf.sigmoid(tf.reduce_max(logits, axis=axis))
        box = tf.cast(tf.reduce_any(inside, axis=axis), tf.float32)
        overlap = 2.0 * tf.reduce_sum(mask * box, axis=-1)
        distance = 1.0 - overlap / tf.reduce_sum(tf.square(mask) + tf.square(box), axis=-1)
        total += tf.reduce_sum(distance * weight)
    outside = tf.cast(~inside, tf.float32)
    background = tf.reduce_sum(tf.nn.softplus(logits) * outside, axis=[-2, -1])
    total += tf.reduce_sum(tf.math.divide_no_nan(background, tf.reduce_sum(outside, axis=[-2, -1])) * weight)
    return Loss(total, tf.reduce_sum(weight))


def pairwise_loss(
    logits: tf.Tensor,
    similarity: tf.Tensor,
    inside: tf.Tensor,
    applies: tf.Tensor,
    *,
    threshold: float = 0.3,
) -> Loss:
    """-log of the probability that both cells of a pair are mask, or neither: mean over pairs of one colour.

    Counted are pairs that are similar and have an end in the box (BoxInst). With p = sigmoid(a) and
    q = sigmoid(b), -log(p q + (1 - p) (1 - q)) = softplus(a) + softplus(b) - softplus(a + b).

    Args:
        logits: float [B, R, M, M], of each region's own class.
        similarity: float32 [B, R, 4, M, M] of each pair (`ops.colour.colour_similarity`).
        inside: bool [B, R, M, M], cells in the box of the region's truth.
        applies: bool [B, R]; the others may hold anything, NaN included.
        threshold: the least similarity that counts, above 0, which is that of pairs beyond the image.
    """
    logits = tf.where(applies[..., None, None], tf.cast(logits, tf.float32), 0.0)
    counted = (similarity >= threshold) & applies[..., None, None, None]
    alone = tf.nn.softplus(logits)
    total = count = tf.constant(0.0)
    pairs = zip(*(neighbours(grid) for grid in (logits, alone, inside)), strict=True)
    for index, (other, other_alone, other_inside) in enumerate(pairs):
        counts = counted[:, :, index] & (inside | other_inside)
        entropy = alone + other_alone - tf.nn.softplus(logits + other)
        total += tf.reduce_sum(tf.where(counts, entropy, 0.0))
        count += tf.reduce_sum(tf.cast(counts, tf.float32))
    return Loss(total, count)


def point_loss(logits: tf.Tensor, points: tf.Tensor, labels: tf.Tensor, valid: tf.Tensor) -> Loss:
    """Binary cross-entropy at points, where logits are sampled bilinearly: mean over the points.

    Args:
        logits: float [B, R, M, M], of each region's own class; regions without a point may hold anything.
        points: float32 [B, R, P, 2], x and y as fractions of the region; those outside 0..1 do not count.
        labels: bool [B, R, P], whether the point lies on the object.
        valid: bool [B, R, P], false in padding, which may hold anything.
    """
    side = logits.shape[-1]
    counts = valid & tf.reduce_all((points >= 0.0) & (points <= 1.0), axis=-1)
    logits = tf.where(tf.reduce_any(counts, axis=-1)[..., None, None], tf.cast(logits, tf.float32), 0.0)
    # In cells, the first centre at 0; within half a cell of the border the outermost centres are read.
    at = tf.clip_by_value(tf.where(counts[..., None], points, 0.0) * side - 0.5, 0.0, side - 1.0)
    weights = bilinear_weights(at, tf.range(side, dtype=tf.float32))  # [B, R, P, 2, M]
    rows = tf.matmul(weights[..., 1, :], logits)  # [B, R, P, M]
    sampled = tf.reduce_sum(rows * weights[..., 0, :], axis=-1)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(labels, tf.float32), sampled)
    weight = tf.cast(counts, tf.float32)
    return Loss(tf.reduce_sum(entropy * weight), tf.reduce_sum(weight))


def teacher_loss(logits: tf.Tensor, taught: tf.Tensor, weights: tf.Tensor, applies: tf.Tensor) -> Loss:
    """Binary cross-entropy to the probabilities of another model: weighted mean over the pixels of regions.

    Args:
        logits: float [B, R, M, M], of each region's own class.
        taught: float32 [B, R, M, M] in 0..1.
        weights: float32 [B, R].
        applies: bool [B, R]; the others may hold anything, NaN included.
    """
    entropy = mask_entropy(logits, taught, applies)
    weight = tf.where(applies, weights, 0.0)
    pixels = tf.cast(tf.size(logits[0, 0]), tf.float32)
    return Loss(tf.reduce_sum(entropy * weight), tf.reduce_sum(weight) * pixels)


def _masked_mean(entropy: tf.Tensor, has_mask: tf.Tensor, pixels: tf.Tensor) -> Loss:
    weight = tf.cast(has_mask, tf.float32)
    return Loss(tf.reduce_sum(entropy * weight), tf.reduce_sum(weight) * tf.cast(pixels, tf.float32))
