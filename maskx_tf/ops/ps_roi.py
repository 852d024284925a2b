"""Position-sensitive RoI pooling (Dai et al. 2016, Li et al. 2017): each part of a region reads maps for that part.

A map has group x group cells of D channels, in the order (row of cells, column of cells, channel), so that its channels
are [group, group, D]. Bins p of a region's `size` rows and columns read cell floor(p * group / size).

`ps_roi_pool` averages whole cells, as the reference of FCIS does: running sums and gather, which XLA and LiteRT have.
`ps_roi_pool_bilinear` averages bilinear samples of boxes that are not rounded, as RoIAlign does: one crop_and_resize.
"""

from __future__ import annotations

import tensorflow as tf

from maskx_tf.ops import boxes as box_ops

# The shortest side of a region, in cells.
LEAST_REGION = 0.1


def ps_roi_pool(maps: tf.Tensor, boxes: tf.Tensor, *, stride: int, group: int, size: int) -> tf.Tensor:
    """Averages of the whole cells that each bin touches; 0 in bins without any.

    Edges are computed in float32 and in the reference's order of operations, because a region whose edges fall on whole
    cells loses or gains a column in another order. XLA may compile another order.

    Args:
        maps: float [B, H, W, group * group * D].
        boxes: float32 [B, N, 4]; their inclusive forms, with 1 less at x2 and y2, are rounded to whole pixels, halves
            away from zero.
        stride: pixels a cell of the map.
        group: cells of maps along each side.
        size: bins along each side.

    Returns:
        float32 [B, N, size, size, D].
    """
    maps = tf.cast(maps, tf.float32)
    height, width, channels = maps.shape[1:]
    depth = _depth(channels, group)
    # Running sums lose less of small differences when they stay small.
    level = tf.reduce_mean(maps, axis=[1, 2], keepdims=True)
    sums = tf.cumsum(tf.cumsum(maps - level, axis=1), axis=2)
    sums = tf.reshape(tf.pad(sums, [[0, 0], [1, 0], [1, 0], [0, 0]]), [-1, depth])
    top, bottom = _bins(boxes[..., 1], boxes[..., 3], height, stride=stride, size=size)
    left, right = _bins(boxes[..., 0], boxes[..., 2], width, stride=stride, size=size)
    image = tf.range(tf.shape(maps)[0])[:, None, None, None]
    parts = tf.range(size) * group // size
    cell = parts[:, None] * group + parts[None, :]

    def corner(rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
        place = (image * (height + 1) + rows[..., :, None]) * (width + 1) + columns[..., None, :]
        return tf.gather(sums, place * (group * group) + cell)

    total = corner(bottom, right) - corner(top, right) - corner(bottom, left) + corner(top, left)
    area = tf.cast((bottom - top)[..., :, None] * (right - left)[..., None, :], tf.float32)[..., None]
    levels = tf.gather(tf.reshape(level, [-1, group * group, depth]), cell, axis=1)  # [B, size, size, D]
    return tf.where(area > 0.0, total / tf.maximum(area, 1.0) + levels[:, None], 0.0)


def ps_roi_pool_bilinear(
    maps: tf.Tensor, boxes: tf.Tensor, *, stride: int, group: int, size: int, samples: int = 2
) -> tf.Tensor:
    """Averages of `samples` x `samples` bilinear samples a bin, of boxes that are not rounded.

    Beyond the outermost centres a map continues for one cell, and is zero from there on.

    Args:
        maps: float [B, H, W, group * group * D].
        boxes: float32 [B, N, 4].
        stride: pixels a cell of the map.
        group: cells of maps along each side.
        size: bins along each side, a multiple of group.
        samples: along each side of a bin.

    Returns:
        float32 [B, N, size, size, D].
    """
    if size % group:
        raise ValueError(f"size is {size}, expected a multiple of group, which is {group}")
    height, width, channels = maps.shape[1:]
    depth, cells = _depth(channels, group), group * group
    batch, count = tf.shape(boxes)[0], tf.shape(boxes)[1]
    bins = size // group
    points = bins * samples
    maps = tf.reshape(maps, [-1, height, width, cells, depth])
    maps = tf.reshape(tf.transpose(maps, [0, 3, 1, 2, 4]), [-1, height, width, depth])
    # A border of one cell, so that the half cell outside of the outermost centres can be sampled.
    maps = tf.pad(maps, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    low, high = boxes[..., None, :2] / stride, boxes[..., None, 2:] / stride
    part = tf.range(cells)
    offset = tf.cast(tf.stack([part % group, part // group], axis=-1), tf.float32)  # x and y of each cell
    side = (high - low) / group
    step = side / points
    # The centre of a map's first cell, at .5, is number 1 of the padded map.
    first = low + offset * side + 0.5 * step + 0.5
    last = first + (points - 1) * step
    normal = tf.concat([first, last], axis=-1) / tf.constant([width + 1, height + 1] * 2, tf.float32)
    index = tf.range(batch)[:, None, None] * cells + part
    index = tf.broadcast_to(index, [batch, count, cells])
    crops = tf.image.crop_and_resize(
        maps, box_ops.swap_xy(tf.reshape(normal, [-1, 4])), tf.reshape(index, [-1]), [points, points]
    )
    if samples > 1:
        crops = tf.nn.avg_pool2d(crops, samples, samples, "VALID")
    crops = tf.reshape(crops, [batch, boxes.shape[1] or count, group, group, bins, bins, depth])
    return tf.reshape(tf.transpose(crops, [0, 1, 2, 4, 3, 5, 6]), [batch, boxes.shape[1] or count, size, size, depth])


def _depth(channels: int, group: int) -> int:
    if channels % (group * group):
        raise ValueError(f"maps: expected a multiple of {group} x {group} channels, found {channels}")
    return channels // (group * group)


def _bins(low: tf.Tensor, high: tf.Tensor, cells: int, *, stride: int, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """First cell and the one past the last of each bin, inside the map: int32 [B, N, size] each."""
    start = _round_away(low) * (1.0 / stride)
    end = (_round_away(high - 1.0) + 1.0) * (1.0 / stride)
    # A plain division by a constant becomes a product with its inverse when the graph is optimised.
    step = tf.math.divide_no_nan(tf.maximum(end - start, LEAST_REGION), float(size))[..., None]
    start = start[..., None]
    index = tf.range(size, dtype=tf.float32)
    first, last = tf.floor(index * step + start), tf.math.ceil((index + 1.0) * step + start)
    inside = [tf.cast(tf.clip_by_value(edge, 0.0, float(cells)), tf.int32) for edge in (first, last)]
    return inside[0], inside[1]


def _round_away(values: tf.Tensor) -> tf.Tensor:
    """Rounds to whole numbers, halves away from zero, as C does; `tf.round` takes halves to even."""
    whole = tf.where(values < 0.0, tf.math.ceil(values), tf.floor(values))
    return whole + tf.where(tf.abs(values - whole) >= 0.5, tf.sign(values), 0.0)
