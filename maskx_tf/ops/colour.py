"""Colours over a region: its pixels on the mask's grid, in CIE LAB, and which neighbouring cells look alike.

Two neighbours of similar colour probably belong to the same side of a mask's outline, so a mask can be learned from a
box (BoxInst, Tian et al. 2021). The eight neighbours of a cell make four kinds of pairs, each seen from both of its
ends: each pair is computed once.
"""

from __future__ import annotations

import tensorflow as tf

from maskx_tf.ops.roi_align import roi_align, roi_align_gather

# Rows down and columns right to the other end of a pair. Steps of two cells alone (BoxInst's eight neighbours with
# dilation 2) would tie even cells to even ones and odd to odd, and a mask in the form of a chessboard costs nothing.
PAIRS = ((0, 2), (1, 2), (2, -1), (2, 0))
# Linear RGB of sRGB's primaries to CIE XYZ, and the white point D65 that LAB is relative to (IEC 61966-2-1).
_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_WHITE = (0.95047, 1.0, 1.08883)


def region_pixels(images: tf.Tensor, regions: tf.Tensor, *, size: int, gather: bool = False) -> tf.Tensor:
    """Pixels of each region on a grid: RoIAlign of the canvas, the mean of 2 x 2 samples a cell; zeros around it.

    Args:
        images: canvases [B, H, W, 3], any number type.
        regions: float32 [B, N, 4] in pixels.
        size: M, side of the grid.
        gather: the form that XLA and LiteRT can compile.

    Returns:
        float32 [B, N, M, M, 3].
    """
    align = roi_align_gather if gather else roi_align
    level = tf.zeros_like(regions[..., 0], tf.int32)
    return align([tf.cast(images, tf.float32)], regions, level, strides=(1,), size=size)


def to_lab(rgb: tf.Tensor) -> tf.Tensor:
    """CIE LAB float32 [..., 3] of sRGB [..., 3] in 0..255: L in 0..100, a and b about -100..100."""
    share = tf.cast(rgb, tf.float32) / 255.0
    # exp(log): several times as fast on a CPU as tf.pow.
    curve = tf.exp(2.4 * tf.math.log((share + 0.055) / 1.055))
    linear = tf.where(share <= 0.04045, share / 12.92, curve)
    xyz = tf.tensordot(linear, tf.transpose(_XYZ), axes=1) / tf.constant(_WHITE)
    root = tf.exp(tf.math.log(tf.maximum(xyz, 1e-6)) / 3.0)
    f = tf.where(xyz > (6 / 29) ** 3, root, xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = tf.unstack(f, axis=-1)
    return tf.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1)


def neighbours(grids: tf.Tensor) -> list[tf.Tensor]:
    """The other end of each pair of `PAIRS`, at the place of the first end: zeros, or false, beyond the grid.

    Args:
        grids: [B, N, M, M, ...].
    """
    side, more = grids.shape[2], [[0, 0]] * (len(grids.shape) - 4)
    wide = tf.pad(grids, [[0, 0], [0, 0], [0, 2], [2, 2], *more])
    return [wide[:, :, down : down + side, 2 + right : 2 + right + side] for down, right in PAIRS]


def colour_similarity(pixels: tf.Tensor, inside: tf.Tensor, *, softness: float = 2.0) -> tf.Tensor:
    """exp(-distance / softness) of the colours of neighbouring cells, the distance in CIE LAB.

    LAB is not scaled: L runs from 0 to 100, so that with softness 2 a similarity of .3 is a distance of 2.4, about what
    an eye can distinguish. From there on, 98% of the pairs on 64 x 64 grids of Clothing Co-Parsing have both ends on
    one side of the outline; they are 27% of all pairs, and 5% of those that cross the outline are among them.

    Args:
        pixels: RGB float [B, N, M, M, 3] in 0..255.
        inside: bool [B, N, M, M], cells that show the image: a pair with an end elsewhere has similarity 0.
        softness: theta, a distance in LAB.

    Returns:
        float32 [B, N, 4, M, M] in 0..1, for each pair of `PAIRS` and each cell that is its first end.
    """
    lab = to_lab(pixels)
    similar = []
    for other, is_seen in zip(neighbours(lab), neighbours(inside), strict=True):
        distance = tf.sqrt(tf.reduce_sum(tf.math.squared_difference(lab, other), axis=-1))
        similar.append(tf.where(inside & is_seen, tf.exp(-distance / softness), 0.0))
    return tf.stack(similar, axis=2)
