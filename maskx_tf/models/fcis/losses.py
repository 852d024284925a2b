"""FCIS' three losses, of all regions or only of those with the largest losses (Shrivastava et al. 2016)."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from maskx_tf import losses as loss_ops
from maskx_tf.losses import Loss
from maskx_tf.ops import nms as nms_ops
from maskx_tf.targets import RegionTargets


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


def region_losses(
    class_logits: tf.Tensor,
    mask_logits: tf.Tensor | None,
    deltas: tf.Tensor,
    regions: RegionTargets,
    mask_targets: tf.Tensor | None,
    *,
    mask_weight: float,
    beta: float = 1.0,
) -> RegionLosses:
    """The losses of each region by itself.

    Args:
        class_logits: float [B, R, K + 1].
        mask_logits: float [B, R, M, M] of each region's class; None for models without masks.
        deltas: float [B, R, 4].
        regions: R of them.
        mask_targets: float32 [B, R, M, M], 0 or 1; None for models without masks.
        mask_weight: the weight of the mask loss; the reference's code has 10, the paper 1.
        beta: the beta of the smooth L1.
    """
    masks = None
    if mask_logits is not None:
        has_mask = regions.has_mask & regions.valid
        entropy = loss_ops.mask_entropy(mask_logits, mask_targets, has_mask)
        masks = tf.where(has_mask, mask_weight * entropy / mask_logits.shape[-1] ** 2, 0.0)
    return RegionLosses(
        classes=loss_ops.class_entropy(class_logits, regions.classes, regions.valid),
        masks=masks,
        boxes=loss_ops.box_errors(deltas, regions.deltas, regions.valid & (regions.classes > 0), beta),
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
