"""RoIAlign over the levels of a pyramid, in a form to train with and a form to convert, and the choice of level.

Both forms sample each bin of a region at regular points, bilinearly, and reduce the samples (Mask R-CNN, section 3).
`roi_align` partitions the regions by level and calls TensorFlow's crop_and_resize, which runs fast forward and
backward everywhere but under XLA and in LiteRT. `roi_align_gather` is made of gathers: the fastest form where XLA
compiles it, and convertible; its gradient is slow. A gradient flows into the boxes as well, where the papers have
none: the models stop it at the call.

A sample at feature coordinate v (the centre of cell i is at i) reads 0 outside [-1, size] and is moved into
[0, size - 1] otherwise, as in every RoIAlign known to us.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import tensorflow as tf

from maskx_tf.ops import boxes as box_ops

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
        samples: samples a bin along each side.
        aligned: subtract half a cell, so that a box edge at pixel 0 lies half a cell before the first cell's centre;
            without it (torchvision's and Detectron's models) sides are at least one cell.
        reduce: "average" or "max" of a bin's samples.

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
        crops = _crop(level, tf.gather(edges, row), tf.gather(image, row), size * samples)
        if samples > 1:
            pool = tf.nn.avg_pool2d if reduce == "average" else tf.nn.max_pool2d
            crops = pool(crops, samples, samples, "VALID")
        pooled.append(crops)
    stitched = tf.dynamic_stitch(rows, pooled) if len(pooled) > 1 else pooled[0]
    return tf.reshape(stitched, [batch, boxes.shape[1] or count, size, size, channels])


def _crop(features: tf.Tensor, edges: tf.Tensor, image: tf.Tensor, points: int) -> tf.Tensor:
    """Samples the map at `points` regular points along each side of boxes in feature coordinates, exactly.

    crop_and_resize reads 0 beyond the outermost centres; one more cell all around, equal to its neighbour, moves
    that border to where RoIAlign has it.
    """
    padded = tf.pad(tf.cast(features, tf.float32), [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    height, width = tf.shape(padded)[1], tf.shape(padded)[2]
    start, stop = edges[:, :2] + 1.0, edges[:, 2:] + 1.0
    inset = 0.5 * (stop - start) / points  # half a step: the outermost samples lie this far inside the box
    last = tf.cast(tf.stack([width - 1, height - 1]), tf.float32)
    normal = tf.concat([(start + inset) / last, (stop - inset) / last], axis=-1)
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
    columns = _corners(edges[..., 0], edges[..., 2], widths, size, samples)
    rows = _corners(edges[..., 1], edges[..., 3], heights, size, samples)
    bin_samples = []
    for row_sample, column_sample in itertools.product(range(samples), repeat=2):
        value = tf.zeros([batch, count, size, size, channels], dtype)
        for (row, row_weight), (column, column_weight) in itertools.product(rows, columns):
            y, x = row[..., row_sample], column[..., column_sample]
            cell = first[..., None, None] + (y * widths[..., None])[..., :, None] + x[..., None, :]
            weight = row_weight[..., row_sample][..., :, None] * column_weight[..., column_sample][..., None, :]
            value += tf.gather(table, cell) * tf.cast(weight, dtype)[..., None]  # [B, N, size, size, C]
        bin_samples.append(value)
    if reduce == "max":
        return functools.reduce(tf.maximum, bin_samples)
    return functools.reduce(tf.add, bin_samples) / samples**2


def _corners(
    start: tf.Tensor, stop: tf.Tensor, cells: tf.Tensor, size: int, samples: int
) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """The two cells that each sample along one axis lies between, and their weights.

    Args:
        start: float32 [B, N], the boxes' lower edges in feature coordinates.
        stop: float32 [B, N].
        cells: int32 [B, N], how many cells the level has along this axis.
        size: bins.
        samples: samples a bin.

    Returns:
        Two pairs of index int32 and weight float32, each [B, N, size, samples].
    """
    points = size * samples
    fraction = (tf.range(points, dtype=tf.float32) + 0.5) / points
    at = start[..., None] + (stop - start)[..., None] * fraction  # [B, N, points]
    limit = tf.cast(cells, tf.float32)[..., None]
    inside = tf.cast((at >= -1.0) & (at <= limit), tf.float32)
    at = tf.clip_by_value(at, 0.0, limit - 1.0)
    lower = tf.floor(at)
    upper_weight = at - lower
    shape = tf.concat([tf.shape(start), [size, samples]], axis=0)

    def pair(index: tf.Tensor, weight: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.reshape(tf.cast(index, tf.int32), shape), tf.reshape(weight * inside, shape)

    return [pair(lower, 1.0 - upper_weight), pair(tf.minimum(lower + 1.0, limit - 1.0), upper_weight)]


def _feature_edges(boxes: tf.Tensor, levels: tf.Tensor, strides: Sequence[int], aligned: bool) -> tf.Tensor:
    """Boxes [B, N, 4] in the coordinates of their level, where the centre of cell i is at i."""
    scaled = boxes / tf.gather(tf.constant(strides, tf.float32), levels)[..., None]
    if aligned:
        return scaled - 0.5
    low, high = scaled[..., :2], scaled[..., 2:]
    return tf.concat([low, low + tf.maximum(high - low, 1.0)], axis=-1)


def _check(samples: int, reduce: str) -> None:
    if samples not in (1, 2):
        raise ValueError(f"samples is {samples}, expected 1 or 2")
    if reduce not in ("average", "max"):
        raise ValueError(f"reduce is {reduce!r}, expected average or max")
