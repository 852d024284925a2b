"""Paints shapes on a canvas of twice the size, and remembers which object each of its points shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskx_tf.synthetic.materials import Colour, pattern
from maskx_tf.synthetic.silhouettes import UNIT, Inside, Plane

FINE = 2  # points of the canvas along the side of a pixel
QUARTERS = 4  # of a pixel: the unit of places, in which the centres of the points are odd numbers
SHIFT = 10  # binary digits of the fractions in a rotation
MASK_POINTS = 2  # a pixel belongs to a mask if at least this many of its four points do


class Pose(NamedTuple):
    """Where a shape is, how large, and how it is turned.

    Attributes:
        x: the x of its centre, in quarters of a pixel.
        y: the y of its centre.
        radius: the radius in quarters of a pixel.
        cosine: the cosine of its rotation, times `norm`.
        sine: the sine of its rotation, times `norm`.
        norm: the hypotenuse: turns have whole sides, so that no machine rounds them otherwise.
        mirrored: it is turned over.
    """

    x: int
    y: int
    radius: int
    cosine: int
    sine: int
    norm: int
    mirrored: bool = False


class Coat(NamedTuple):
    """The paint of a shape.

    Attributes:
        texture: one of the materials' textures.
        tones: the two colours of the texture.
        period: the period of the texture, in the units of the shape's plane.
        phase: where the texture begins.
        shade: by how many 256ths it becomes brighter from the centre to the rim, along u and along v.
    """

    texture: str
    tones: tuple[Colour, Colour]
    period: int
    phase: tuple[int, int]
    shade: tuple[int, int] = (0, 0)


class Patch(NamedTuple):
    """The points of the canvas near a shape, in the shape's own plane."""

    rows: slice
    columns: slice
    u: Plane
    v: Plane
    inside: Inside


def turn(generator: np.random.Generator) -> tuple[int, int, int]:
    """A random turn as cosine, sine and norm, which are the sides of a Pythagorean triangle."""
    step, octant = (int(number) for number in generator.integers(0, [170, 8]))
    side = 408  # 169 / 408 is the tangent of half of 45 degrees, to five digits
    cosine, sine = side * side - step * step, 2 * step * side
    if octant % 2:
        cosine, sine = sine, cosine
    for _ in range(octant // 2):
        cosine, sine = -sine, cosine
    return cosine, sine, side * side + step * step


def patch(pose: Pose, silhouette: Callable[[Plane, Plane], Inside], size: int) -> Patch:
    """The points of a canvas for images of this size that lie in the shape's reach."""
    reach = pose.radius * 9 // 8
    spans = []
    for centre in (pose.x, pose.y):
        low = max((centre - reach) // FINE, 0)
        spans.append((low, max(low, min((centre + reach) // FINE + 1, FINE * size))))  # empty if it lies outside
    dx, dy = (
        2 * np.arange(low, high, dtype=np.int32) + 1 - centre
        for (low, high), centre in zip(spans, (pose.x, pose.y), strict=True)
    )
    scale = UNIT << SHIFT
    along, across = scale * pose.cosine // (pose.norm * pose.radius), scale * pose.sine // (pose.norm * pose.radius)
    u = (along * dx[None, :] + across * dy[:, None]) >> SHIFT
    v = (along * dy[:, None] - across * dx[None, :]) >> SHIFT
    if pose.mirrored:
        v = -v
    return Patch(slice(*spans[1]), slice(*spans[0]), u, v, silhouette(u, v))


def paint(canvas: NDArray[np.int32], spot: Patch, coat: Coat) -> None:
    """Covers what is below the shape, in place; the canvas is int32 [2 H, 2 W, 3]."""
    second = pattern(coat.texture, spot.u, spot.v, coat.period, coat.phase)
    light = 256 + ((coat.shade[0] * spot.u + coat.shade[1] * spot.v) >> 10)
    region = canvas[spot.rows, spot.columns]
    for channel in range(3):
        tone = np.where(second, coat.tones[1][channel], coat.tones[0][channel]).astype(np.int32)
        np.copyto(region[..., channel], np.clip((tone * light) >> 8, 0, 255), where=spot.inside)


def shrink(canvas: NDArray[np.int32]) -> NDArray[np.int32]:
    """The canvas in the size of the image: each pixel the mean of its points."""
    summed = canvas[0::2, 0::2] + canvas[0::2, 1::2] + canvas[1::2, 0::2] + canvas[1::2, 1::2]
    return np.asarray((summed + 2) >> 2)


def visible_masks(owners: NDArray[np.int32], count: int) -> list[Inside]:
    """The mask of each object, bool [H, W]: the pixels of which it shows at least half; the later one of two halves.

    Args:
        owners: [2 H, 2 W], the object that each point shows, from 1 on; 0 for none.
        count: how many objects there are.
    """
    corners = (owners[0::2, 0::2], owners[0::2, 1::2], owners[1::2, 0::2], owners[1::2, 1::2])
    free = np.ones(corners[0].shape, bool)
    masks: list[Inside] = []
    for number in range(count, 0, -1):
        points = sum((corner == number).astype(np.int32) for corner in corners)
        mask = np.asarray(points >= MASK_POINTS) & free
        free &= ~mask
        masks.insert(0, mask)
    return masks
