"""FCIS' three losses, of all regions or of those that have the largest ones (Shrivastava et al. 2016)."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from maskx_tf import losses as loss_ops
from maskx_tf.losses import Loss
from maskx_tf.ops import nms as nms_ops


class RegionLosses(NamedTuple):
    """The losses of each region, float32 [B, R] each, 0 where a term does not apply.

    Attributes:
        classes: cross-entropy of the class.
        masks: mean cross-entropy of the mask's pixels, weighted; None for models without masks.
        boxes: smooth L1 of the four deltas, added up.
    """

    classes: tf.Tensor
    masks: tf.Tensor | None
    boxes: tf.Tensor


class RegionOutputs(NamedTuple):
    """What the maps say of regions, and what they should say.

    Attributes:
        class_logits: float [B, R, K + 1].
        mask_logits: float [B, R, M, M] of each region's class; None for models without masks.
        deltas: float [B, R, 4].
        classes: int32 [B, R], 0 for background.
        mask_targets: float32 [B, R, M, M], 0 or 1; None for models without masks.
        delta_targets: float32 [B, R, 4].
        has_mask: bool [B, R].
        valid: bool [B, R].
    """

    class_logits: tf.Tensor
    mask_logits: tf.Tensor | None
    deltas: tf.Tensor
    classes: tf.Tensor
    mask_targets: tf.Tensor | None
    delta_targets: tf.Tensor
    has_mask: tf.Tensor
    valid: tf.Tensor


def region_losses(outputs: RegionOutputs, *, mask_weight: float, beta: float = 1.0) -> RegionLosses:
    """The losses of each region by itself.

    Args:
        outputs: predictions and targets.
        mask_weight: of the mask loss; the reference's code has 10, the paper 1.
        beta: of the smooth L1.
    """
    logits = tf.where(outputs.valid[..., None], tf.cast(outputs.class_logits, tf.float32), 0.0)
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(outputs.classes, logits)
    foreground = outputs.valid & (outputs.classes > 0)
    errors = tf.where(foreground[..., None], tf.cast(outputs.deltas, tf.float32) - outputs.delta_targets, 0.0)
    masks = None
    if outputs.mask_logits is not None:
        has_mask = (outputs.has_mask & outputs.valid)[..., None, None]
        pixels = tf.nn.sigmoid_cross_entropy_with_logits(
            tf.where(has_mask, outputs.mask_targets, 0.0), tf.where(has_mask, outputs.mask_logits, 0.0)
        )
        masks = mask_weight * tf.reduce_mean(tf.where(has_mask, pixels, 0.0), axis=[-2, -1])
    return RegionLosses(
        classes=tf.where(outputs.valid, entropy, 0.0),
        masks=masks,
        boxes=tf.reduce_sum(loss_ops.smooth_l1(errors, beta), axis=-1),
    )


def hardest(losses: RegionLosses, valid: tf.Tensor, size: int) -> tf.Tensor:
    """The regions of each image with the largest sum of losses, bool [B, R]: `size` of them, or all if there are fewer.

    Which of equal ones are taken is open.
    """
    total = losses.classes + losses.boxes + (0.0 if losses.masks is None else losses.masks)
    total = tf.where(valid, total, nms_ops.NEVER)
    count = min(size, total.shape[1])
    _, indices = tf.math.top_k(total, count)
    kept = tf.reduce_any(tf.one_hot(indices, total.shape[1], on_value=True, off_value=False), axis=1)
    return kept & valid


def sums(losses: RegionLosses, kept: tf.Tensor) -> dict[str, Loss]:
    """The losses of a batch: those of the regions kept, bool [B, R], all divided by the number of these."""
    count = tf.reduce_sum(tf.cast(kept, tf.float32))
    named = {"loss_class": losses.classes, "loss_mask": losses.masks, "loss_box": losses.boxes}
    return {
        name: Loss(tf.reduce_sum(tf.where(kept, values, 0.0)), count)
        for name, values in named.items()
        if values is not None
    }
