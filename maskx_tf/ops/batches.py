"""Converts a batch of the input pipeline to the tuples that the model takes."""

from __future__ import annotations

import tensorflow as tf

from maskx_tf.ops import masks as mask_ops
from maskx_tf.structures import FIELDS, MASK_SIDE, VALID, Field, Targets, with_flags


def targets_of(batch: dict[str, tf.Tensor]) -> Targets:
    """The truth of a batch, unpacked on whatever device this runs on."""
    fields = [field for field in with_flags((VALID, *FIELDS)) if field.key in batch]
    return Targets(**{field.name: _unpacked(field, batch[field.key]) for field in fields})


def _unpacked(field: Field, value: tf.Tensor) -> tf.Tensor:
    if field.kind == "flag":
        return value > 0
    if field.kind == "grid":  # uint8 [B, G, S * S / 8]
        shape = [tf.shape(value)[0], value.shape[1], MASK_SIDE, MASK_SIDE]
        return tf.cast(tf.reshape(mask_ops.unpack_bits(value), shape), tf.float32)
    return value
