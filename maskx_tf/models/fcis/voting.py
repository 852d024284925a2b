"""Mask voting in the graph: for each detection, the regions that overlap it vote for pixels of the canvas.

The window of pixels is as large as the voters are, so the shapes depend on the boxes, and neither XLA nor LiteRT can
compile it.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from maskx_tf.models.fcis.targets import INCLUSIVE
from maskx_tf.ops import boxes as box_ops
from maskx_tf.ops import sampling
from maskx_tf.ops.masks import bilinear_weights
from maskx_tf.structures import Detections

# Voters that are drawn at a time: all voters of a large object would take gigabytes.
VOTERS_AT_ONCE = 16


class Voters(NamedTuple):
    """The regions of all passes.

    Attributes:
        boxes: float32 [B, R, 4], inside the image.
        scores: float32 [B, R, K + 1].
        classes: int32 [B, R], the best foreground class.
        masks: float32 [B, R, M, M] of that class, in 0..1.
        valid: bool [B, R].
    """

    boxes: tf.Tensor
    scores: tf.Tensor
    classes: tf.Tensor
    masks: tf.Tensor
    valid: tf.Tensor


class Voting(NamedTuple):
    """How masks are voted for; the fields are those of the configuration's section `model.fcis`."""

    merge_iou: float
    threshold: float
    prebinarize: bool
    own_class: bool

    def draw(self, found: Detections, voters: Voters, image_sizes: tf.Tensor) -> Detections:
        """The detections with masks and with their enclosing boxes, without those whose mask is a line or nothing."""
        limit, side = found.boxes.shape[1], voters.masks.shape[-1]
        count = tf.shape(found.boxes)[0]
        images = tf.repeat(tf.range(count), limit)
        items = (
            images,
            *(tf.reshape(part, [-1, *part.shape[2:]]) for part in (found.boxes, found.classes, found.valid)),
        )

        def draw_one(item: tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
            image, box, number, valid = item
            nothing = (tf.zeros([4]), tf.zeros([side, side]))
            own = Voters(*(part[image] for part in voters))
            return tf.cond(valid, lambda: self._vote(box, number, own, image_sizes[image]), lambda: nothing)

        specs = (tf.TensorSpec([4], tf.float32), tf.TensorSpec([side, side], tf.float32))
        boxes, masks = tf.map_fn(draw_one, items, fn_output_signature=specs)
        boxes, masks = tf.reshape(boxes, [-1, limit, 4]), tf.reshape(masks, [-1, limit, side, side])
        width, height = box_ops.sides(boxes)
        valid = (width > 1.0) & (height > 1.0)
        order = sampling.flagged_first(valid)
        parts = {
            "boxes": boxes,
            "scores": found.scores,
            "classes": found.classes,
            "valid": valid,
            "masks": with_half(masks, self.threshold),
        }
        sorted_parts = {name: tf.gather(part, order, batch_dims=1) for name, part in parts.items()}
        kept = sorted_parts["valid"]
        return Detections(**{name: sampling.where_flagged(kept, part) for name, part in sorted_parts.items()})

    def _vote(self, box: tf.Tensor, number: tf.Tensor, voters: Voters, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The enclosing box [4] and the votes in it [M, M] for a detection; a box of zeros if it has no pixel."""
        side = voters.masks.shape[-1]
        agree = voters.valid & (box_ops.iou(voters.boxes, box[None])[:, 0] >= self.merge_iou)
        if self.own_class:
            agree &= voters.classes == number
        index = tf.where(agree)[:, 0]
        weights = tf.gather(voters.scores[:, number], index)
        weights = tf.math.divide_no_nan(weights, tf.reduce_sum(weights))
        boxes = tf.round(tf.gather(voters.boxes, index) - tf.constant(INCLUSIVE))
        masks = tf.gather(voters.masks, index)
        # One pixel more on each side, which the answer's outermost samples read.
        last = tf.round(size[::-1]) - 1.0
        # Without voters, the window is the last pixel: the extent of no voters is infinite.
        low = tf.clip_by_value(tf.reduce_min(boxes[:, :2], axis=0) - 1.0, 0.0, last)
        high = tf.clip_by_value(tf.reduce_max(boxes[:, 2:], axis=0) + 1.0, low, last)
        columns, rows = tf.range(low[0], high[0] + 1.0), tf.range(low[1], high[1] + 1.0)

        def add(first: tf.Tensor, votes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            part = slice(first, first + VOTERS_AT_ONCE)
            down = _cells_of(rows, boxes[part, 1], boxes[part, 3], side)
            across = _cells_of(columns, boxes[part, 0], boxes[part, 2], side)
            drawn = tf.matmul(tf.matmul(down, masks[part]), across, transpose_b=True)
            if self.prebinarize:
                drawn = tf.cast(drawn >= self.threshold, tf.float32)
            return first + VOTERS_AT_ONCE, votes + tf.tensordot(weights[part], drawn, 1)

        _, votes = tf.while_loop(
            lambda first, _: first < tf.shape(boxes)[0],
            add,
            (tf.constant(0), tf.zeros([tf.size(rows), tf.size(columns)])),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, None])),
        )
        enough = votes >= self.threshold
        top, bottom = _extent(rows, tf.reduce_any(enough, axis=1))
        left, right = _extent(columns, tf.reduce_any(enough, axis=0))
        down = _stretched(top, bottom, rows, side, last[1])
        across = _stretched(left, right, columns, side, last[0])
        mask = tf.matmul(tf.matmul(down, votes), across, transpose_b=True)
        return tf.stack([left, top, right + 1.0, bottom + 1.0]), mask


def with_half(masks: tf.Tensor, threshold: float) -> tf.Tensor:
    """Masks in 0..1 with .5 where they had the threshold, and 1 where they had 1.

    All code that draws masks uses the threshold .5. A linear map moves the threshold there, and commutes with the
    bilinear sampling before it.
    """
    slope = 0.5 / (1.0 - threshold)
    return slope * masks + (1.0 - slope)


def _cells_of(pixels: tf.Tensor, low: tf.Tensor, high: tf.Tensor, side: int) -> tf.Tensor:
    """How much each cell of masks gives to pixels along an axis: [V, pixels, M]; nothing beyond boxes [V] low..high."""
    low, high = low[:, None], high[:, None]
    at = (pixels - low + 0.5) * (side / (high - low + 1.0)) - 0.5
    weights = bilinear_weights(tf.clip_by_value(at, 0.0, side - 1.0), tf.range(side, dtype=tf.float32))
    return tf.where(((pixels >= low) & (pixels <= high))[..., None], weights, 0.0)


def _extent(pixels: tf.Tensor, flags: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The first and the last pixel that is flagged; 0 and -1 if there is none, which makes an empty box."""
    some = tf.reduce_any(flags)
    first = tf.reduce_min(tf.where(flags, pixels, pixels[-1:]))
    last = tf.reduce_max(tf.where(flags, pixels, pixels[:1]))
    return tf.where(some, first, 0.0), tf.where(some, last, -1.0)


def _stretched(first: tf.Tensor, last: tf.Tensor, pixels: tf.Tensor, side: int, end: tf.Tensor) -> tf.Tensor:
    """How much each pixel gives to cells stretched over first..last: [M, pixels]; they read none beyond 0..end."""
    at = (tf.range(side, dtype=tf.float32) + 0.5) * ((last - first + 1.0) / side) - 0.5 + first
    return bilinear_weights(tf.clip_by_value(at, 0.0, tf.maximum(end, 0.0)), pixels)
