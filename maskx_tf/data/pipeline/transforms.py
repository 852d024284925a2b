"""Transforms one image and its instances for a batch: cuts, mirrors, scales, and puts them on a canvas.

Pure functions on tensors; whatever is random takes a seed, int32 [2]. Values change by the kind of their field, not by
its name. A mask is a grid over its box (see `ops.masks`) and goes where the box goes: scaling changes nothing in it,
mirroring reverses its rows, and only a box that is cut gets a new grid. Boxes have continuous edges, so mirroring takes
x to width - x.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from maskx_tf.data.pipeline.sample import Sample, tidy
from maskx_tf.data.pipeline.visibility import TINY, seen_through
from maskx_tf.ops import boxes as box_ops
from maskx_tf.ops import images as image_ops
from maskx_tf.structures import MASK_SIDE, Field


def random_flip(sample: Sample, seed: tf.Tensor) -> Sample:
    """Mirrors every other image, at random."""
    return tf.cond(tf.random.stateless_uniform([], seed) < 0.5, lambda: flip(sample), lambda: sample)


def flip(sample: Sample) -> Sample:
    """The image mirrored left to right."""
    width = tf.cast(tf.shape(sample.image)[1], tf.float32)

    def mirrored(field: Field, value: tf.Tensor) -> tf.Tensor:
        match field.kind:
            case "box":
                x1, y1, x2, y2 = tf.unstack(value, axis=-1)
                return tf.stack([width - x2, y1, width - x1, y2], axis=-1)
            case "grid":
                # A row of cells is reversed by the order of its bytes and of the bits in each.
                rows = tf.reshape(value, [-1, MASK_SIDE, MASK_SIDE // 8])
                return tf.reshape(tf.gather(_REVERSED, tf.cast(tf.reverse(rows, [2]), tf.int32)), tf.shape(value))
            case "points":
                x, y, label = tf.unstack(value, axis=-1)
                points = tf.stack([width - x, y, label], axis=-1)
                return tf.gather(points, field.mirror, axis=1) if field.mirror else points
        return value

    # tf.reverse takes a tenth of the time of [:, ::-1].
    return tidy(sample.mapped(mirrored).with_image(tf.reverse(sample.image, [1])))


_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1)[:, 0]


def random_window(
    size: tf.Tensor,
    seed: tf.Tensor,
    *,
    least: float,
    jitter: tuple[float, float],
    canvas: tuple[int, int],
    short_side: int,
    long_side: int,
    rounding: str = "exact",
) -> tuple[tf.Tensor, tf.Tensor]:
    """Which part of an image is used, and in what size.

    Height and width of the window are drawn first. What it is scaled by is what `ops.images.letterbox` would scale it
    by, times a number of the jitter; of a window that is then larger than the canvas, a random part is used.

    Args:
        size: int32 [2], height and width of the image.
        seed: int32 [2].
        least: share of the height and of the width that a window keeps at least; 1 keeps all.
        jitter: lowest and highest factor; .1 and 2 are large scale jitter.
        canvas: height and width.
        short_side: the short side in pixels.
        long_side: the long side in pixels.
        rounding: the rounding, as in `ops.images.letterbox`.

    Returns:
        int32 [4], the window's top, left, height and width in whole pixels, and int32 [2], what it is resized to.
    """
    draws = tf.random.stateless_uniform([5], seed, dtype=tf.float64)
    whole = tf.cast(size, tf.float64)
    kept = tf.maximum(tf.round(whole * (least + (1.0 - least) * draws[:2])), 1.0)
    scale = tf.minimum(short_side / tf.reduce_min(kept), long_side / tf.reduce_max(kept))
    limit = tf.constant(canvas, tf.float64)
    scale = tf.minimum(scale, tf.reduce_min(limit / kept)) * (jitter[0] + (jitter[1] - jitter[0]) * draws[2])
    kept = tf.clip_by_value(tf.floor(limit / scale + image_ops.ROUNDINGS["exact"]), 1.0, kept)
    resized = tf.clip_by_value(tf.floor(kept * scale + image_ops.ROUNDINGS[rounding]), 1.0, limit)
    corner = tf.floor((whole - kept + 1.0) * draws[3:])
    return tf.cast(tf.concat([corner, kept], axis=0), tf.int32), tf.cast(resized, tf.int32)


def crop(sample: Sample, window: tf.Tensor) -> Sample:
    """The part of an image in a window int32 [4] (top, left, height, width); see `cut`."""
    top, left, height, width = tf.unstack(window)
    return cut(sample, window).with_image(sample.image[top : top + height, left : left + width])


def cut(sample: Sample, window: tf.Tensor) -> Sample:
    """The instances in a window, in its coordinates; the image stays as it is.

    An instance whose mask is known gets the box around what is left of it, which may be smaller than what is left of
    its box. An instance of which nothing is left is no longer valid. Points outside are no longer there.
    """
    top, left, height, width = tf.unstack(tf.cast(window, tf.float32))

    def moved(field: Field, value: tf.Tensor) -> tf.Tensor:
        match field.kind:
            case "box":
                return value - tf.stack([left, top, left, top])
            case "points":
                return value - tf.stack([left, top, 0.0])
        return value

    def inside(y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        return (y >= -TINY) & (y <= height + TINY) & ((x >= -TINY) & (x <= width + TINY))

    sample = sample.mapped(moved)
    boxes = sample["boxes"]
    is_cut = sample["valid"] & tf.reduce_any(box_ops.clip(boxes, height, width) != boxes, axis=-1)
    return seen_through(sample, is_cut, inside, (height, width))


def resize(sample: Sample, size: tf.Tensor) -> Sample:
    """The image in another size int32 [2], float32, as prediction resizes it."""
    resized = scale(sample, tf.cast(size, tf.float32) / tf.cast(tf.shape(sample.image)[:2], tf.float32))
    boxes = box_ops.clip(resized["boxes"], size[0], size[1])  # against rounding
    return resized.with_values(boxes=boxes).with_image(image_ops.resize(sample.image, size))


def scale(sample: Sample, factor: tf.Tensor) -> Sample:
    """The instances in an image whose height and width are multiplied by a factor [2]; the image stays as it is."""

    def scaled(field: Field, value: tf.Tensor) -> tf.Tensor:
        match field.kind:
            case "box":
                return box_ops.denormalise(value, factor[0], factor[1])
            case "points":
                return value * tf.stack([factor[1], factor[0], 1.0])
        return value

    return sample.mapped(scaled)
