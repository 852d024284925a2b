"""Every loss, as a sum and the count that it is divided by.

The two are kept apart until `mean`, so that training on several replicas can add up the counts of all before it
divides, and one batch gives the same loss however it is split. Entries that do not count are cut out before any
arithmetic could make a NaN of them: a batch without a single mask has a mask loss and a gradient of exactly zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import tensorflow as tf


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
) -> tuple[Loss, Loss]:
    """Objectness and box loss of the sampled anchors.

    Args:
        logits: float [B, S], objectness.
        deltas: float [B, S, 4].
        target_deltas: float32 [B, S, 4].
        foreground: bool [B, S].
        valid: bool [B, S].
        beta: of the smooth L1.
        normaliser: both are divided by the number of anchors sampled ("sampled": torchvision), or by S an image
            ("fixed": detectron2).
    """
    weight = tf.cast(valid, tf.float32)
    if normaliser == "sampled":
        count = tf.reduce_sum(weight)
    elif normaliser == "fixed":
        count = tf.cast(tf.size(valid), tf.float32)
    else:
        raise ValueError(f"normaliser is {normaliser!r}, expected sampled or fixed")
    logits = tf.where(valid, tf.cast(logits, tf.float32), 0.0)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(foreground, tf.float32), logits)
    return Loss(tf.reduce_sum(entropy * weight), count), Loss(
        _box_total(deltas, target_deltas, foreground & valid, beta), count
    )


def class_loss(logits: tf.Tensor, classes: tf.Tensor, valid: tf.Tensor) -> Loss:
    """Softmax cross-entropy, mean over the regions.

    Args:
        logits: float [B, R, K + 1], background first.
        classes: int32 [B, R], 0 for background.
        valid: bool [B, R].
    """
    logits = tf.where(valid[..., None], tf.cast(logits, tf.float32), 0.0)
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)
    weight = tf.cast(valid, tf.float32)
    return Loss(tf.reduce_sum(entropy * weight), tf.reduce_sum(weight))


def box_loss(
    deltas: tf.Tensor, target_deltas: tf.Tensor, foreground: tf.Tensor, valid: tf.Tensor, *, beta: float = 1 / 9
) -> Loss:
    """Smooth L1 of the foreground regions, divided by all regions.

    Args:
        deltas: float [B, R, 4], those of each region's own class.
        target_deltas: float32 [B, R, 4].
        foreground: bool [B, R].
        valid: bool [B, R].
        beta: of the smooth L1.
    """
    return Loss(_box_total(deltas, target_deltas, foreground & valid, beta), tf.reduce_sum(tf.cast(valid, tf.float32)))


def _box_total(deltas: tf.Tensor, target_deltas: tf.Tensor, counts: tf.Tensor, beta: float) -> tf.Tensor:
    errors = tf.where(counts[..., None], tf.cast(deltas, tf.float32) - target_deltas, 0.0)
    return tf.reduce_sum(smooth_l1(errors, beta))


def mask_loss(logits: tf.Tensor, targets: tf.Tensor, has_mask: tf.Tensor) -> Loss:
    """Binary cross-entropy a pixel, mean over the pixels of the regions that have a mask (Mask R-CNN, section 3).

    Args:
        logits: float [B, R, M, M], of each region's own class.
        targets: float32 [B, R, M, M] in 0..1.
        has_mask: bool [B, R]; the others may hold anything, NaN included.
    """
    logits = tf.where(has_mask[..., None, None], tf.cast(logits, tf.float32), 0.0)
    targets = tf.where(has_mask[..., None, None], targets, 0.0)
    entropy = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(targets, logits), axis=[-2, -1])
    return _masked_mean(entropy, has_mask, pixels=tf.size(logits[0, 0]))


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


def _masked_mean(entropy: tf.Tensor, has_mask: tf.Tensor, pixels: tf.Tensor) -> Loss:
    weight = tf.cast(has_mask, tf.float32)
    return Loss(tf.reduce_sum(entropy * weight), tf.reduce_sum(weight) * tf.cast(pixels, tf.float32))
