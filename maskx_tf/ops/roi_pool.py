"""The RoI operations that RoIAlign replaced: RoIPool and RoIWarp (Mask R-CNN, table 2c).

Both round a region to whole cells of the feature map. RoIPool then takes the maximum over bins of whole cells; RoIWarp
samples the rounded region bilinearly. They serve the paper's ablation, not speed.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from maskx_tf.ops import roi_align as align_ops


def roi_warp(
    features: Sequence[tf.Tensor],
    boxes: tf.Tensor,
    levels: tf.Tensor,
    *,
    strides: Sequence[int],
    size: int,
    samples: int = 2,
    reduce: str = "average",
) -> tf.Tensor:
    """Bilinear samples of the rounded region; arguments and result as those of `roi_align`."""
    scale = tf.gather(tf.constant(strides, tf.float32), levels)[..., None]
    # Whole cells: the first starts at its edge, the last ends at its own.
    whole = _round_to_cells(boxes, scale) * scale
    return align_ops.roi_align(
        features, whole, levels, strides=strides, size=size, samples=samples, aligned=True, reduce=reduce
    )


def roi_pool(
    features: Sequence[tf.Tensor], boxes: tf.Tensor, levels: tf.Tensor, *, strides: Sequence[int], size: int
) -> tf.Tensor:
    """Maximum over bins of whole cells, which overlap where the region does not divide evenly; 0 in empty bins.

    Arguments and result as those of `roi_align`.
    """
    batch, count = tf.shape(boxes)[0], tf.shape(boxes)[1]
    channels = features[0].shape[-1]
    flat_levels = tf.reshape(levels, [-1])
    scale = tf.gather(tf.constant(strides, tf.float32), levels)[..., None]
    cells = tf.reshape(_round_to_cells(boxes, scale), [-1, 4])
    image = tf.repeat(tf.range(batch), count)
    rows = tf.dynamic_partition(tf.range(batch * count), flat_levels, len(features))
    pooled = [
        _pool_level(level, tf.gather(cells, row), tf.gather(image, row), size)
        for level, row in zip(features, rows, strict=True)
    ]
    stitched = tf.dynamic_stitch(rows, pooled)
    return tf.reshape(stitched, [batch, boxes.shape[1] or count, size, size, channels])


def _round_to_cells(boxes: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Edges of the whole cells that a region covers, the cell of its last corner included: at least one a side."""
    scaled = boxes / scale
    # Half upwards, as the kernels in C do for positive numbers; tf.round goes to even.
    low, high = tf.floor(scaled[..., :2] + 0.5), tf.floor(scaled[..., 2:] + 0.5)
    return tf.concat([low, tf.maximum(high, low) + 1.0], axis=-1)


def _pool_level(features: tf.Tensor, cells: tf.Tensor, image: tf.Tensor, size: int) -> tf.Tensor:
    """RoIPool of regions [N, 4], in whole cells, from one level [B, H, W, C]: float32 [N, size, size, C]."""

    def pool_one(region: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        edges, index = region
        level = tf.cast(features[index], tf.float32)  # [H, W, C]
        rows = _bins(edges[1], edges[3], tf.shape(level)[0], size)
        columns = _bins(edges[0], edges[2], tf.shape(level)[1], size)
        region_columns = level[:, columns[0, 0] : columns[-1, 1]]
        strips = tf.stack([_strip_maximum(region_columns, rows[i], axis=0) for i in range(size)])  # [size, w, C]
        inside = columns - columns[0, 0]
        bins = tf.stack([_strip_maximum(strips, inside[i], axis=1) for i in range(size)], axis=1)
        filled = (rows[:, 1] > rows[:, 0])[:, None] & (columns[:, 1] > columns[:, 0])[None, :]
        return tf.where(filled[..., None], bins, 0.0)

    shape = tf.TensorSpec([size, size, features.shape[-1]], tf.float32)
    return tf.map_fn(pool_one, (cells, image), fn_output_signature=shape)


def _bins(start: tf.Tensor, stop: tf.Tensor, cells: tf.Tensor, size: int) -> tf.Tensor:
    """First cell and the one past the last of each bin, inside the map: int32 [size, 2]."""
    # In whole numbers: in floats a compiler may multiply by 1 / size, and a bin then reaches one cell too far.
    first, count = tf.cast(start, tf.int32), tf.cast(stop - start, tf.int32)
    index = tf.range(size)
    low, high = index * count // size, -(-(index + 1) * count // size)
    return tf.clip_by_value(tf.stack([low, high], axis=1) + first, 0, cells)


def _strip_maximum(values: tf.Tensor, bin_edges: tf.Tensor, axis: int) -> tf.Tensor:
    """Maximum over one bin's cells along an axis; the lowest float where the bin is empty."""
    strip = values[bin_edges[0] : bin_edges[1]] if axis == 0 else values[:, bin_edges[0] : bin_edges[1]]
    return tf.reduce_max(strip, axis=axis)
