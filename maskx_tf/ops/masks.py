"""Masks on their way through the model: packed bits, targets for regions, and pasting into the image.

A mask travels as a small square grid stretched over a box: cell (i, j) of an S x S grid covers the j-th of S equal
columns and the i-th of S equal rows of the box, and its value belongs to the cell's centre.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from maskx_tf.ops import boxes as box_ops
from maskx_tf.structures import PASTE_MODES


def pack_bits(masks: tf.Tensor) -> tf.Tensor:
    """Eight cells a byte, the first in the highest bit, as NumPy's packbits does.

    Args:
        masks: bool [..., N], N divisible by 8.

    Returns:
        uint8 [..., N / 8].
    """
    length = masks.shape[-1]
    if length % 8:
        raise ValueError(f"the last dimension is {length}, expected a multiple of 8")
    bits = tf.reshape(tf.cast(masks, tf.int32), tf.concat([tf.shape(masks)[:-1], [length // 8, 8]], axis=0))
    return tf.cast(tf.reduce_sum(bits * _BIT_VALUES, axis=-1), tf.uint8)


def unpack_bits(packed: tf.Tensor) -> tf.Tensor:
    """The inverse of `pack_bits`: uint8 [..., M] to bool [..., 8 M]."""
    bits = tf.bitwise.bitwise_and(tf.cast(packed, tf.int32)[..., None], _BIT_VALUES)
    shape = tf.concat([tf.shape(packed)[:-1], [packed.shape[-1] * 8]], axis=0)
    return tf.reshape(bits > 0, shape)


_BIT_VALUES = [128, 64, 32, 16, 8, 4, 2, 1]


def mask_targets(
    masks: tf.Tensor, mask_boxes: tf.Tensor, regions: tf.Tensor, matches: tf.Tensor, *, size: int, samples: int = 2
) -> tf.Tensor:
    """Returns the target of each region's mask: its instance's mask, cut to the region.

    The grid is sampled bilinearly at `samples` x `samples` points a cell, which are averaged; around its box a mask
    fades to zero within half a cell of its grid. Threshold the result at .5 for binary targets.

    Args:
        masks: float32 [B, G, S, S] in 0..1, each stretched over its box.
        mask_boxes: float32 [B, G, 4].
        regions: float32 [B, N, 4].
        matches: int32 [B, N], the instance of each region.
        size: M, side of the targets.
        samples: sample points a cell along each side.

    Returns:
        float32 [B, N, M, M] in 0..1.
    """
    side = masks.shape[-1]
    boxes = tf.gather(mask_boxes, matches, batch_dims=1)
    # Regions in cells of their mask's grid: the centre of cell i is at i, and beyond the last cells the mask is 0.
    scale = side / tf.maximum(boxes[..., 2:] - boxes[..., :2], box_ops.MIN_SIDE)
    start, stop = ((edges - boxes[..., :2]) * scale - 0.5 for edges in (regions[..., :2], regions[..., 2:]))
    fractions = (tf.range(size * samples, dtype=tf.float32) + 0.5) / (size * samples)
    points = start[..., None] + (stop - start)[..., None] * fractions  # [B, N, 2, points]
    weights = bilinear_weights(points, tf.range(side, dtype=tf.float32))
    shape = [tf.shape(regions)[0], regions.shape[1], 2, size, samples, side]
    weights = tf.reduce_mean(tf.reshape(weights, shape), axis=4)
    columns, rows = weights[:, :, 0], weights[:, :, 1]  # each [B, N, M, S]
    return tf.matmul(tf.matmul(rows, tf.gather(masks, matches, batch_dims=1)), columns, transpose_b=True)


def cells_inside(regions: tf.Tensor, boxes: tf.Tensor, *, size: int) -> tf.Tensor:
    """Whether the centre of each cell of a region's grid lies in a box.

    Args:
        regions: float32 [B, N, 4].
        boxes: float32 [B, N, 4], or [B, 1, 4] for one box an image.
        size: M, side of the grid.

    Returns:
        bool [B, N, M, M].
    """
    fractions = (tf.range(size, dtype=tf.float32) + 0.5) / size
    low, high = regions[..., None, :2], regions[..., None, 2:]
    centres = low + (high - low) * fractions[:, None]  # [B, N, M, 2]
    within = (centres >= boxes[..., None, :2]) & (centres < boxes[..., None, 2:])
    return within[..., :, None, 1] & within[..., None, :, 0]


def extent_iou(masks: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """The IoU of each mask's enclosing box with a box, in cells: float32 [B, N]; 0 for an empty mask.

    Args:
        masks: bool [B, N, M, M].
        boxes: bool [B, N, M, M], the cells of the box (`cells_inside`).
    """
    sides = []
    for axis in (-1, -2):
        some = tf.cast(tf.reduce_any(masks, axis=axis), tf.int32)
        sides.append((tf.cumsum(some, axis=-1) > 0) & (tf.cumsum(some, axis=-1, reverse=True) > 0))
    extent = sides[0][..., :, None] & sides[1][..., None, :]

    def count(cells: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.cast(cells, tf.float32), axis=[-2, -1])

    return tf.math.divide_no_nan(count(extent & boxes), count(extent | boxes))


def cut_margin(masks: tf.Tensor, margin: float) -> tf.Tensor:
    """Masks [..., M, M] of boxes, sampled bilinearly out of masks of the boxes with a margin (`ops.boxes.with_margin`).

    Two products with a constant matrix, which every runtime has. Not by `matmul`, which writes where it should not when
    it broadcasts to a dimension of 1 (TensorFlow 2.21).
    """
    side = masks.shape[-1]
    centres = (np.arange(side) + 0.5) / side  # of the answer's cells, as fractions of the box
    at = (centres + margin) / (1.0 + 2.0 * margin) * side - 0.5  # in cells of the mask, the first centre at 0
    weights = np.maximum(1.0 - np.abs(at[:, None] - np.arange(side)), 0.0)
    weights = tf.constant(weights, masks.dtype)
    flat = tf.reshape(masks, [-1, side, side])  # ONNX's converter knows no dots in an equation
    cut = tf.einsum("xj,nyj->nyx", weights, tf.einsum("yi,nij->nyj", weights, flat))
    return tf.reshape(cut, tf.shape(masks))


def bilinear_weights(places: tf.Tensor, cells: tf.Tensor) -> tf.Tensor:
    """How much cells [N] give to places [...] along an axis, in units of a cell: float32 [..., N]."""
    return tf.maximum(1.0 - tf.abs(places[..., None] - cells), 0.0)


def paste(
    masks: tf.Tensor, boxes: tf.Tensor, height: int, width: int, *, threshold: float = 0.5, mode: str = "continuous"
) -> tf.Tensor:
    """Masks in the image, computed for the pixels of each box alone; `masks.paste.paste` is the same in NumPy.

    Args:
        masks: float32 [D, M, M] in 0..1.
        boxes: float32 [D, 4] in pixels of the image.
        height: the height of the image.
        width: the width of the image.
        threshold: a pixel belongs to the mask from this value on.
        mode: "continuous", the mask sampled at the centres of the pixels that lie in the box (detectron2, without
            its fading rim outside the box); "integer", as Detectron and torchvision do: a rim of zeros around the
            mask, the box grown in proportion and rounded to whole pixels; "replicate", as FCIS does: sampled at the
            centres of the pixels in the box, the outermost cells continuing to its edges.

    Returns:
        bool [D, height, width].
    """
    if mode not in PASTE_MODES:
        raise ValueError(f"mode is {mode!r}, expected one of {', '.join(PASTE_MODES)}")
    side = masks.shape[-1]
    if mode == "integer":
        masks = tf.pad(masks, [[0, 0], [1, 1], [1, 1]])
        boxes = _integer_boxes(boxes, side)
        side += 2
    bounds = tf.constant([width, height, width, height], tf.float32)
    # Pixels whose centre lies in the box: from ceil(low - .5) up to, but without, ceil(high - .5).
    pixels = tf.cast(tf.clip_by_value(tf.math.ceil(boxes - 0.5), 0.0, bounds), tf.int32)

    def weights(low: tf.Tensor, high: tf.Tensor, first: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
        """Bilinear weights of the mask's cells for the pixels of one axis: [pixels, M]."""
        centres = tf.cast(tf.range(first, tf.maximum(first, last)), tf.float32) + 0.5
        at = (centres - low) / tf.maximum(high - low, box_ops.MIN_SIDE) * side - 0.5
        if mode != "continuous":
            at = tf.clip_by_value(at, 0.0, side - 1.0)
        return bilinear_weights(at, tf.range(side, dtype=tf.float32))

    def paste_one(item: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        mask, box, pixel = item
        rows = weights(box[1], box[3], pixel[1], pixel[3])
        columns = weights(box[0], box[2], pixel[0], pixel[2])
        inside = tf.matmul(tf.matmul(rows, mask), columns, transpose_b=True) >= threshold
        empty = tf.reduce_any(pixel[2:] <= pixel[:2])
        padding = [[pixel[1], height - pixel[3]], [pixel[0], width - pixel[2]]]
        return tf.cond(empty, lambda: tf.zeros([height, width], tf.bool), lambda: tf.pad(inside, padding))

    return tf.map_fn(paste_one, (masks, boxes, pixels), fn_output_signature=tf.TensorSpec([height, width], tf.bool))


def _integer_boxes(boxes: tf.Tensor, side: int) -> tf.Tensor:
    """Boxes grown by the rim around a mask of this side, as edges of whole pixels: at least one a side."""
    centre = 0.5 * (boxes[..., :2] + boxes[..., 2:])
    half = 0.5 * (boxes[..., 2:] - boxes[..., :2]) * ((side + 2.0) / side)
    # Towards zero, as a cast in C does.
    low, high = (tf.cast(tf.cast(edge, tf.int32), tf.float32) for edge in (centre - half, centre + half))
    return tf.concat([low, tf.maximum(high, low) + 1.0], axis=-1)
