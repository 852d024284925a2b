"""Cuts the masks of partly hidden instances, and shrinks their boxes to what is visible."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from maskx_tf.data.pipeline.sample import Sample, grids_of, tidy
from maskx_tf.ops import boxes as box_ops
from maskx_tf.ops import masks as mask_ops
from maskx_tf.structures import MASK_SIDE

TINY = 1e-3  # pixels, by which rounding may move the centre of a cell


def seen_through(
    sample: Sample,
    maybe: tf.Tensor,
    visible: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    size: tuple[tf.Tensor | int, tf.Tensor | int],
    *,
    least: float = 0.0,
) -> Sample:
    """The instances as far as they lie in the image and can be seen.

    An instance whose mask is known is where its mask is, another one anywhere in its box.

    Args:
        sample: what is seen.
        maybe: bool [G], instances that may be seen in part only; boxes and grids of the others stay as they are.
        visible: whether something can be seen at y and x, float32 tensors whose shapes broadcast.
        size: height and width of the image.
        least: the share of an instance that has to be seen.
    """
    grids = [field for field in sample.fields if field.kind == "grid"]
    changing = ["boxes", "valid", *(name for field in grids for name in (field.flag, field.name))]

    def look() -> dict[str, tf.Tensor]:
        boxes = sample["boxes"]
        cells = {field.name: grids_of(sample[field.name]) for field in grids}
        rows, columns = centres_of(boxes)
        seen = visible(rows[:, :, None], columns[:, None, :])
        whole = cells["masks"] | ~sample["has_mask"][:, None, None]
        left = whole & seen
        before, after = (tf.reduce_sum(tf.cast(area, tf.float32), axis=[1, 2]) for area in (whole, left))
        fitted = _fitted(boxes, whole, left, size)
        changed = maybe & ((before != after) | tf.reduce_any(fitted != boxes, axis=-1))
        values = {
            "boxes": tf.where(changed[:, None], fitted, boxes),
            "valid": sample["valid"] & ~(changed & ((after == 0.0) | (after < least * before))),
        }
        for field in grids:
            moved = _moved(cells[field.name] & seen, boxes, values["boxes"])
            packed = mask_ops.pack_bits(tf.reshape(moved, [-1, MASK_SIDE * MASK_SIDE]))
            values[field.name] = tf.where(changed[:, None], packed, sample[field.name])
            values[field.flag] = sample[field.flag] & (~changed | tf.reduce_any(moved, axis=[1, 2]))
        return values

    values = tf.cond(tf.reduce_any(maybe), look, lambda: {name: sample[name] for name in changing})
    return tidy(_without_hidden_points(sample.with_values(**values), visible))


def _without_hidden_points(sample: Sample, visible: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> Sample:
    """Labels become 0 where a point cannot be seen; a set of points of which none is left is unknown."""
    values: dict[str, tf.Tensor] = {}
    for field in sample.fields:
        if field.kind == "points":
            x, y, label = tf.unstack(sample[field.name], axis=-1)
            label = tf.where(visible(y, x), label, 0.0)
            values[field.name] = tf.stack([x, y, label], axis=-1)
            values[field.flag] = sample[field.flag] & tf.reduce_any(label != 0.0, axis=-1)
    return sample.with_values(**values)


def _fitted(
    boxes: tf.Tensor, whole: tf.Tensor, seen: tf.Tensor, size: tuple[tf.Tensor | int, tf.Tensor | int]
) -> tf.Tensor:
    """Boxes around what is seen of grids, exact where they end at the border of the image, else to a cell.

    An edge at which nothing is hidden stays where it was: the annotated box is more exact than its grid.
    """
    height, width = (tf.cast(side, tf.float32) for side in size)
    before, after = _extents(whole), _extents(seen)
    start, cell = tf.tile(boxes[:, :2], [1, 2]), tf.tile((boxes[:, 2:] - boxes[:, :2]) / MASK_SIDE, [1, 2])
    edges = start + after * cell
    border = tf.stack([0.0, 0.0, width, height])
    edges = tf.where(tf.abs(edges - border) <= 0.5 * cell + TINY, border, edges)
    return box_ops.clip(tf.where(after == before, boxes, edges), height, width)


def centres_of(boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the centres of the cells of each box lie: y float32 [G, S], x float32 [G, S]."""
    x1, y1, x2, y2 = tf.unstack(boxes[..., None], axis=1)  # [G, 1]
    centre = (tf.range(MASK_SIDE, dtype=tf.float32) + 0.5) / MASK_SIDE
    return y1 + (y2 - y1) * centre, x1 + (x2 - x1) * centre


def _extents(grids: tf.Tensor) -> tf.Tensor:
    """The boxes float32 [G, 4] around the cells that are set, in cells of bool [G, S, S]."""
    columns, rows = (tf.cast(tf.reduce_any(grids, axis=axis), tf.int32) for axis in (1, 2))
    first = [tf.argmax(line, axis=1) for line in (columns, rows)]
    last = [MASK_SIDE - tf.argmax(tf.reverse(line, [1]), axis=1) for line in (columns, rows)]
    return tf.cast(tf.stack(first + last, axis=1), tf.float32)


def _moved(grids: tf.Tensor, boxes: tf.Tensor, new_boxes: tf.Tensor) -> tf.Tensor:
    """Grids bool [G, S, S] over boxes inside those they had: interpolated between the centres of the old cells."""
    values = tf.cast(grids, tf.float32)
    old, new = centres_of(boxes), centres_of(new_boxes)
    for axis in (1, 2):
        first, last = old[axis - 1][:, :1], old[axis - 1][:, -1:]
        place = (new[axis - 1] - first) / tf.maximum(last - first, box_ops.MIN_SIDE) * (MASK_SIDE - 1)
        place = tf.clip_by_value(place, 0.0, MASK_SIDE - 1.0)
        below = tf.cast(place, tf.int32)
        share = tf.expand_dims(place - tf.floor(place), 3 - axis)
        above = tf.minimum(below + 1, MASK_SIDE - 1)
        values = (1.0 - share) * tf.gather(values, below, axis=axis, batch_dims=1) + share * tf.gather(
            values, above, axis=axis, batch_dims=1
        )
    return values >= 0.5
