"""One image and its instances as tensors, on their way into a batch."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from maskx_tf.ops import boxes as box_ops
from maskx_tf.ops import masks as mask_ops

SIDE = 112  # cells along a side of a mask's grid
PACKED = SIDE * SIDE // 8  # bytes of a grid
MIN_SIDE = 1.0  # pixels; an instance of which less is left teaches nothing


class Sample(NamedTuple):
    """One image and its G instances, some of which may be padding.

    Attributes:
        image: [h, w, 3] in 0..255, uint8 or float32.
        boxes: float32 [G, 4], xyxy in pixels of the image; zeros where not valid.
        classes: int32 [G], 1..K.
        valid: bool [G].
        crowd: bool [G].
        has_mask: bool [G].
        masks: uint8 [G, PACKED], the grids of `ops.masks`, row by row and packed; zeros where there is none.
    """

    image: tf.Tensor
    boxes: tf.Tensor
    classes: tf.Tensor
    valid: tf.Tensor
    crowd: tf.Tensor
    has_mask: tf.Tensor
    masks: tf.Tensor


def drop_tiny(sample: Sample) -> Sample:
    """Without the instances that are less than MIN_SIDE pixels wide or high."""
    width, height = box_ops.sides(sample.boxes)
    return tidy(sample._replace(valid=sample.valid & (tf.minimum(width, height) >= MIN_SIDE)))


def pad(sample: Sample, limit: int) -> Sample:
    """The valid instances, at most `limit`, in their order, and padding up to it."""

    def fill(values: tf.Tensor) -> tf.Tensor:
        kept = tf.boolean_mask(values, sample.valid)[:limit]
        padded = tf.pad(kept, [[0, limit - tf.shape(kept)[0]], *([[0, 0]] * (len(values.shape) - 1))])
        return tf.ensure_shape(padded, [limit, *values.shape[1:]])

    return Sample(sample.image, *map(fill, sample[1:]))


def grids_of(masks: tf.Tensor) -> tf.Tensor:
    """Packed masks as bool [G, S, S]."""
    return tf.reshape(mask_ops.unpack_bits(masks), [-1, SIDE, SIDE])


def tidy(sample: Sample) -> Sample:
    """Zeros in whatever is not valid, and in masks that are not there."""
    valid = sample.valid
    has_mask = sample.has_mask & valid
    return sample._replace(
        boxes=tf.where(valid[:, None], sample.boxes, 0.0),
        classes=tf.where(valid, sample.classes, 0),
        crowd=sample.crowd & valid,
        has_mask=has_mask,
        masks=tf.where(has_mask[:, None], sample.masks, tf.zeros([], tf.uint8)),
    )
