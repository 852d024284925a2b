"""The eight materials: four textures, each in two hues of which no two are the same; colours in whole numbers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
HUE_CIRCLE = 1536  # steps: six from one pure colour to the next, of 256 each
HUE_SPREAD = 30  # steps to either side that the hue of an object may lie from that of its material
TEXTURES = ("plain", "striped", "checked", "dotted")


class Material(NamedTuple):
    """A texture in a hue."""

    texture: str
    hue: str
    angle: int  # on the circle of hues


# Eight hues at equal distances; the two of a texture are opposite.
MATERIALS = tuple(
    Material(TEXTURES[index % 4], hue, index * HUE_CIRCLE // 8)
    for index, hue in enumerate(("red", "amber", "lime", "green", "cyan", "blue", "violet", "pink"))
)


def rgb(hue: int, saturation: int, value: int) -> Colour:
    """A colour; the hue on a circle of 1536 steps, saturation and value in 0..255."""
    sector, rest = divmod(hue % HUE_CIRCLE, 256)
    low = value * (255 - saturation) // 255
    rising = value * (255 * 256 - saturation * (256 - rest)) // (255 * 256)
    falling = value * (255 * 256 - saturation * rest) // (255 * 256)
    return (
        (value, rising, low),
        (falling, value, low),
        (low, value, rising),
        (low, falling, value),
        (rising, low, value),
        (value, low, falling),
    )[sector]


def pattern(
    texture: str, u: NDArray[np.int32], v: NDArray[np.int32], period: int, phase: tuple[int, int]
) -> NDArray[np.bool_]:
    """Where a texture has its second, darker tone.

    Args:
        texture: one of TEXTURES.
        u: the first coordinate in the object's plane.
        v: the second.
        period: the period of the texture, in the units of the plane.
        phase: where the texture begins.
    """
    if texture == "plain":
        return np.zeros(u.shape, bool)
    along, across = (u + phase[0]) % period, (v + phase[1]) % period
    if texture == "striped":
        return 2 * along < period
    if texture == "checked":
        return np.asarray((2 * along < period) != (2 * across < period))
    du, dv = 2 * along - period, 2 * across - period
    return np.asarray(16 * (du * du + dv * dv) < 9 * period * period)  # discs of 3/8 of the period in radius
