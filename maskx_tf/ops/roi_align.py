"""RoIAlign over the levels of a pyramid, in a form to train with and a form to convert, and the choice of level.

Both forms sample each bin of a region at regular points, bilinearly, and reduce the samples (Mask R-CNN, section 3):
a fixed number of them or, adaptively, the length of the bin in cells, rounded up, along each side. `roi_align`
partitions the regions by level and calls TensorFlow's crop_and_resize, which is fast forward and backward; XLA and
LiteRT lack it. `roi_align_gather` consists of gathers. It is the fastest form under XLA, and convertible, but
its gradient is slow. Both have a gradient for the boxes; the papers have none, so the models stop it at the call.

A sample at feature coordinate v (the centre of cell i is at i) reads 0 outside [-1, size] and is moved into
[0, size - 1] otherwise, as in every RoIAlign known to us.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import tensorflow as tf

from maskx_tf.ops import boxes as box_ops
from maskx_tf.ops.roi_adaptive import pool_adaptively

# Cells next to samples along one axis, and their weights.
Corners = list[tuple[tf.Tensor, tf.Tensor]]
EPSILONS = ("torchvision", "detectron", "detectron2")
# Boxes of this size belong to the level of CANONICAL_LEVEL (FPN, section 4.2).
CANONICAL_SIZE = 224.0
CANONICAL_LEVEL = 4


def assign_levels(boxes: tf.Tensor, *, lowest: int = 2, highest: int = 5, epsilon: str = "torchvision") -> tf.Tensor:
    """The pyramid level that each box is pooled from: floor(4 + log2(sqrt(area) / 224)) within the levels there are.

    Args:
        boxes: float32 [..., 4].
        lowest: the finest level.
        highest: the coarsest level.
        epsilon: where a small number guards the rounding: added to the logarithm ("torchvision", 1e-6), inside it
            ("detectron", 1e-6; "detectron2", 1e-8).

    Returns:
        int32 [...], 0 for the finest level.
    """
    size = tf.sqrt(box_ops.area(boxes)) / CANONICAL_SIZE
    if epsilon == "torchvision":
        level = CANONICAL_LEVEL + _log2(size) + 1e-6
    elif epsilon == "detectron":
        level = CANONICAL_LEVEL + _log2(size + 1e-6)
    elif epsilon == "detectron2":
        level = CANONICAL_LEVEL + _log2(size + 1e-8)
    else:
        raise ValueError(f"epsilon is {epsilon!r}, expected one of {', '.join(EPSILONS)}")
    # Clipped before the cast: an empty box has level -infinity.
    return tf.cast(tf.clip_by_value(tf.floor(level), lowest, highest), tf.int32) - lowest


def _log2(values: tf.Tensor) -> tf.Tensor:
    return tf.math.log(values) / tf.math.log(2.0)


def roi_align(
    features: Sequence[tf.Tensor],
    boxes: tf.Tensor,
    levels: tf.Tensor,
    *,
    strides: Sequence[int],
    size: int,
    samples: int = 2,
    aligned: bool = True,
    reduce: str = "average",
) -> tf.Tensor:
    """Pools each box from its level.

    Args:
        features: float [B, H_level, W_level, C] of each level, finest first.
        boxes: float32 [B, N, 4] in pixels of the network input.
        levels: int32 [B, N], index into features.
        strides: pixels a cell of each level.
        size: side of the output.
        samples: samples a bin along each side, 1 or 2; 0 for as many as the bin is cells long, rounded up.
        aligned: subtract half a cell, so that a box edge at pixel 0 lies half a cell before the first cell's centre;
            without it (torchvision's and Detectron's models) sides are at least one cell.
        reduce: "average" or "max" of a bin's samples; "average" alone where samples is 0.

    Returns:
        float32 [B, N, size, size, C].
    """
    _check(samples, reduce)
    batch, count = tf.shape(boxes)[0], tf.shape(boxes)[1]
    channels = features[0].shape[-1]
    flat_levels = tf.reshape(levels, [-1])
    edges = tf.reshape(_feature_edges(boxes, levels, strides, aligned), [-1, 4])  # [B * N, 4]
    image = tf.repeat(tf.range(batch), count)
    rows = tf.dynamic_partition(tf.range(batch * count), flat_levels, len(features))
    pooled = []
    for level, row in zip(features, rows, strict=True):
        pooled.append(_pool_level(level, tf.gather(edges, row), tf.gather(image, row), size, samples, reduce))
    stitched = tf.dynamic_stitch(rows, pooled) if len(pooled) > 1 else pooled[0]
    return tf.reshape(stitched, [batch, boxes.shape[1] or count, size, size, channels])


def _pool_level(
    features: tf.Tensor, edges: tf.Tensor, image: tf.Tensor, size: int, samples: int, reduce: str
) -> tf.Tensor:
    """The regions [R, size, size, C] of one level, from their edges [R, 4] in its coordinates and their images [R]."""
    # crop_and_resize reads 0 beyond the outermost centres; one more cell all around, equal to its neighbour, moves
    # that border to where RoIAlign has it.
    padded = tf.pad(tf.cast(features, tf.float32), [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    if not samples:

        def read(region: tf.Tensor, first: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
            start = first + 1.0
            return _crop(padded, tf.gather(image, region), start, start + step * (size - 1.0), size)

        return pool_adaptively(read, edges, tf.shape(features)[2:0:-1], size=size, channels=features.shape[-1])
    start, stop = edges[:, :2] + 1.0, edges[:, 2:] + 1.0
    inset = 0.5 * (stop - start) / (size * samples)  # half a step: the outermost samples lie this far inside the box
    crops = _crop(padded, image, start + inset, stop - inset, size * samples)
    if samples == 1:
        return crops
    pool = tf.nn.avg_pool2d if reduce == "average" else tf.nn.max_pool2d
    return pool(crops, samples, samples, "VALID")


def _crop(padded: tf.Tensor, image: tf.Tensor, first: tf.Tensor, last: tf.Tensor, points: int) -> tf.Tensor:
    """Samples the map at regular points along each side, the outermost at first and last [R, 2] (x, y), exactly."""
    height, width = tf.shape(padded)[1], tf.shape(padded)[2]
    end = tf.cast(tf.stack([width - 1, height - 1]), tf.float32)
    normal = tf.concat([first / end, last / end], axis=-1)
    return tf.image.crop_and_resize(padded, box_ops.swap_xy(normal), image, [points, points])


def roi_align_gather(
    features: Sequence[tf.Tensor],
    boxes: tf.Tensor,
    levels: tf.Tensor,
    *,
    strides: Sequence[int],
    size: int,
    samples: int = 2,
    aligned: bool = True,
    reduce: str = "average",
) -> tf.Tensor:
    """`roi_align` of gathers, for XLA and LiteRT: the same arguments and answer, in the features' own type."""
    _check(samples, reduce)
    channels, dtype = features[0].shape[-1], features[0].dtype
    batch, count = tf.shape(boxes)[0], boxes.shape[1]
    table = tf.concat([tf.reshape(level, [batch, -1, channels]) for level in features], axis=1)
    cells = tf.shape(table)[1]
    heights = tf.gather(tf.stack([tf.shape(level)[1] for level in features]), levels)  # [B, N]
    widths = tf.gather(tf.stack([tf.shape(level)[2] for level in features]), levels)
    starts = tf.cumsum(tf.stack([tf.shape(level)[1] * tf.shape(level)[2] for level in features]), exclusive=True)
    first = tf.gather(starts, levels) + tf.range(batch)[:, None] * cells  # [B, N]
    table = tf.reshape(table, [-1, channels])

    edges = _feature_edges(boxes, levels, strides, aligned)
    if not samples:
        first, widths, heights = (tf.reshape(value, [-1]) for value in (first, widths, heights))

        def read(region: tf.Tensor, start: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
            at = start[..., None] + step[..., None] * tf.range(size, dtype=tf.float32)  # [R, 2, size]
            width = tf.gather(widths, region)
            columns, rows = _corners(at[:, 0], width), _corners(at[:, 1], tf.gather(heights, region))
            return _interpolated(table, tf.gather(first, region), width, rows, columns)

        cells = tf.stack([widths, heights], axis=-1)
        pooled = pool_adaptively(read, tf.reshape(edges, [-1, 4]), cells, size=size, channels=channels)
        return tf.cast(tf.reshape(pooled, [batch, count, size, size, channels]), dtype)
    columns, rows = (
        _corners(_regular_points(edges[..., low], edges[..., low + 2], size * samples), cells)
        for low, cells in ((0, widths), (1, heights))
    )
    bin_samples = [
        _interpolated(table, first, widths, _every(rows, row, samples), _every(columns, column, samples))
        for row, column in itertools.product(range(samples), repeat=2)
    ]
    if reduce == "max":
        return functools.reduce(tf.maximum, bin_samples)
    return functools.reduce(tf.add, bin_samples) / samples**2


def _regular_points(start: tf.Tensor, stop: tf.Tensor, points: int) -> tf.Tensor:
    """The centres [..., points] of so many equal parts of [start, stop]."""
    fraction = (tf.range(points, dtype=tf.float32) + 0.5) / points
    return start[..., None] + (stop - start)[..., None] * fraction


def _every(corners: Corners, first: int, step: int) -> Corners:
    """Returns the corners of every step-th sample, from `first` on."""
    return [(index[..., first::step], weight[..., first::step]) for index, weight in corners]


def _interpolated(table: tf.Tensor, first: tf.Tensor, widths: tf.Tensor, rows: Corners, columns: Corners) -> tf.Tensor:
    """The samples at every pair of a row and a column: [..., size, size, C].

    Args:
        table: all cells of all levels and images, [cells, C].
        first: int32 [...], where in the table the level of each region begins.
        widths: int32 [...], cells in a row of that level.
        rows: see `_corners`, [..., size].
        columns: like rows.
    """
    value = tf.zeros([], table.dtype)
    for (row, row_weight), (column, column_weight) in itertools.product(rows, columns):
        cell = first[..., None, None] + (row * widths[..., None])[..., :, None] + column[..., None, :]
        weight = row_weight[..., :, None] * column_weight[..., None, :]
        value += tf.gather(table, cell) * tf.cast(weight, table.dtype)[..., None]
    return value


def _corners(at: tf.Tensor, cells: tf.Tensor) -> Corners:
    """The two cells that each sample along one axis lies between, and their weights.

    Args:
        at: float32 [..., points], in feature coordinates.
        cells: int32 [...], how many cells the level has along this axis.

    Returns:
        Two pairs of index int32 and weight float32, each [..., points].
    """
    limit = tf.cast(cells, tf.float32)[..., None]
    inside = tf.cast((at >= -1.0) & (at <= limit), tf.float32)
    at = tf.clip_by_value(at, 0.0, limit - 1.0)
    lower = tf.floor(at)
    upper = tf.minimum(lower + 1.0, limit - 1.0)
    upper_weight = at - lower
    return [
        (tf.cast(lower, tf.int32), (1.0 - upper_weight) * inside),
        (tf.cast(upper, tf.int32), upper_weight * inside),
    ]


def _feature_edges(boxes: tf.Tensor, levels: tf.Tensor, strides: Sequence[int], aligned: bool) -> tf.Tensor:
    """Boxes [B, N, 4] in the coordinates of their level, where the centre of cell i is at i."""
    scaled = boxes / tf.gather(tf.constant(strides, tf.float32), levels)[..., None]
    if aligned:
        return scaled - 0.5
    low, high = scaled[..., :2], scaled[..., 2:]
    return tf.concat([low, low + tf.maximum(high - low, 1.0)], axis=-1)


def _check(samples: int, reduce: str) -> None:
    if samples not in (0, 1, 2):
        raise ValueError(f"samples is {samples}, expected 0, 1 or 2")
    if not samples and reduce != "average":
        raise ValueError(f"reduce is {reduce!r}, expected average, because samples is 0")
    if reduce not in ("average", "max"):
        raise ValueError(f"reduce is {reduce!r}, expected average or max")
