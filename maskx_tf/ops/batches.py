"""What a batch of the input pipeline says, as the tuples that the model takes."""

from __future__ import annotations

import math

import tensorflow as tf

from maskx_tf.ops import masks as mask_ops
from maskx_tf.structures import Targets


def targets_of(batch: dict[str, tf.Tensor]) -> Targets:
    """The truth of a batch, unpacked on whatever device this runs on."""
    packed = batch["gt_masks"]  # uint8 [B, G, S * S / 8]
    side = math.isqrt(8 * packed.shape[-1])
    shape = [tf.shape(packed)[0], packed.shape[1], side, side]
    return Targets(
        boxes=batch["gt_boxes"],
        classes=batch["gt_classes"],
        valid=batch["gt_valid"] > 0,
        crowd=batch["gt_crowd"] > 0,
        masks=tf.cast(tf.reshape(mask_ops.unpack_bits(packed), shape), tf.float32),
        has_mask=batch["gt_has_mask"] > 0,
    )
