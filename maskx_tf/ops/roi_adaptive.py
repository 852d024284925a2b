"""RoIAlign's adaptive sampling: the samples along each side of a bin are its length in cells, rounded up.

Detectron and detectron2 do this unless a number is set (their sampling ratio is 0).
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

# Samples of regions int32 [R], a sample of every bin: the first bin's at float32 [R, 2] (x, y) in feature coordinates,
# the next bins' in steps float32 [R, 2]. Gives float [R, size, size, C].
Read = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


def pool_adaptively(read: Read, edges: tf.Tensor, cells: tf.Tensor, *, size: int, channels: int) -> tf.Tensor:
    """Averages the samples of each bin.

    A pass of the loop reads one sample of every bin for R regions, and a region has a turn for each of its samples. So
    shapes are fixed and memory is that of one sample a bin, whatever the regions, and the work is that of the samples.

    Args:
        read: see `Read`.
        edges: float32 [R, 4], the regions in feature coordinates.
        cells: int32 [2] or [R, 2], width and height of their maps. A bin that is longer than that has no more samples
            than the map has cells: such a region is `size` times as large as its map.
        size: side of the output.
        channels: the number of channels of the features.

    Returns:
        float32 [R, size, size, C]; 0 for a region without area.
    """
    regions = edges.shape[0] or tf.shape(edges)[0]
    extent = edges[:, 2:] - edges[:, :2]
    counts = tf.clip_by_value(_length_of_bins(extent, size), 0, cells)  # [R, 2]
    turns = tf.reduce_prod(counts, axis=-1)
    ends = tf.cumsum(turns)

    def one_pass(start: tf.Tensor, sums: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Turn start + j belongs to the first region whose end is greater than start + j. Its index is the number of
        # regions with ends <= start + j.
        ended = tf.clip_by_value(ends - start, 0, regions)
        region = tf.cumsum(tf.math.unsorted_segment_sum(tf.ones_like(ended), ended, regions + 1)[:-1])
        known = tf.minimum(region, regions - 1)  # past the last turn there is no region, and nothing is added
        count = tf.maximum(tf.gather(counts, known), 1)
        turn = start + tf.range(regions) - tf.gather(ends - turns, known)
        place = tf.stack([turn % count[:, 0], turn // count[:, 0]], axis=-1)
        step = tf.gather(extent, known) / size
        offset = step * (tf.cast(place, tf.float32) + 0.5) / tf.cast(count, tf.float32)
        samples = read(known, tf.gather(edges[:, :2], known) + offset, step)
        added = tf.math.unsorted_segment_sum(tf.cast(samples, tf.float32), region, regions + 1)[:-1]
        return start + regions, sums + added

    _, sums = tf.while_loop(
        lambda start, _: start < tf.reduce_sum(turns),
        one_pass,
        (tf.constant(0), tf.zeros([regions, size, size, channels])),
        parallel_iterations=1,  # several passes at a time would take the memory of several
    )
    return sums / tf.cast(tf.maximum(turns, 1), tf.float32)[:, None, None, None]


def _length_of_bins(extent: tf.Tensor, size: int) -> tf.Tensor:
    """Cells along a bin, rounded up: int32, of extents in cells; 0 or less where there is none.

    Rounding up a quotient would be wrong where the quotient is: XLA multiplies by 1 / size, which is not exact.
    """
    whole = tf.floor(extent / size)
    return tf.cast(whole + tf.cast(whole * size < extent, tf.float32), tf.int32)
