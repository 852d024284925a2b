"""Paints backgrounds: two muted colours in clouds, a faint texture, and clutter that is no object."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from maskx_tf.synthetic.materials import HUE_CIRCLE, TEXTURES, Colour, pattern, rgb
from maskx_tf.synthetic.painter import FINE, QUARTERS, Coat, Pose, paint, patch, turn
from maskx_tf.synthetic.silhouettes import UNIT, Inside, Plane

CLUTTER = (8, 17)  # pieces
PIECE_RADII = (20, 110)  # thousandths of the image's side
CLOUDS = (3, 7, 15)  # cells along the side of each layer of clouds


def background(generator: np.random.Generator, size: int) -> NDArray[np.int32]:
    """A canvas of twice the size of the image, int32 [2 size, 2 size, 3] in 0..255."""
    side = FINE * size
    clouds = sum(_clouds(generator, cells, side) >> layer for layer, cells in enumerate(CLOUDS))
    mix = np.clip(128 + (np.asarray(clouds) - 128 * 7 // 4), 0, 255)
    weave = _weave(generator, side)
    low, high = _muted(generator, 70), _muted(generator, 70)
    canvas = np.empty([side, side, 3], np.int32)
    for channel in range(3):
        tone = (low[channel] * (255 - mix) + high[channel] * mix) // 255
        canvas[..., channel] = np.clip((tone * weave) >> 8, 0, 255)
    for _ in range(int(generator.integers(*CLUTTER))):
        _add_clutter(generator, canvas, size)
    return canvas


def _muted(generator: np.random.Generator, most: int) -> Colour:
    """A colour without much saturation."""
    hue, saturation, value = generator.integers([0, 0, 50], [HUE_CIRCLE, most, 211])
    return rgb(int(hue), int(saturation), int(value))


def _clouds(generator: np.random.Generator, cells: int, side: int) -> NDArray[np.int32]:
    """Smooth random values in 0..255: a coarse grid of them, and what lies between, [side, side]."""
    grid = generator.integers(0, 256, [cells + 1, cells + 1], dtype=np.int32)
    at = (np.arange(side, dtype=np.int32) * cells * 256) // side
    cell, rest = at >> 8, at & 255
    weight = (rest * rest * (768 - 2 * rest)) >> 16  # a smooth step, in 0..256
    rows = (grid[cell] * (256 - weight)[:, None] + grid[cell + 1] * weight[:, None]) >> 8
    return np.asarray((rows[:, cell] * (256 - weight) + rows[:, cell + 1] * weight) >> 8)


def _weave(generator: np.random.Generator, side: int) -> NDArray[np.int32]:
    """A faint texture of the ground: its light in 256ths, [side, side]."""
    cosine, sine, norm = turn(generator)
    period, phase, texture, contrast = (int(n) for n in generator.integers([8, 0, 1, 8], [33, 64, 4, 36]))
    along, across = (64 * cosine) // norm, (64 * sine) // norm
    steps = np.arange(side, dtype=np.int32)
    u = (along * steps[None, :] + across * steps[:, None]) >> 6
    v = (along * steps[:, None] - across * steps[None, :]) >> 6
    dark = pattern(TEXTURES[texture], u, v, period, (phase, 0))
    return np.where(dark, 256 - contrast, 256 + contrast // 2).astype(np.int32)


def _add_clutter(generator: np.random.Generator, canvas: NDArray[np.int32], size: int) -> None:
    """A splinter: what some random lines cut out of the plane."""
    low, high = (QUARTERS * size * thousandths // 1000 for thousandths in PIECE_RADII)
    x, y = (int(number) for number in generator.integers(0, QUARTERS * size, 2))
    pose = Pose(x, y, int(generator.integers(low, high)), *turn(generator))
    lines = [(*turn(generator), int(generator.integers(200, 800))) for _ in range(int(generator.integers(3, 6)))]
    texture, period, phase = (int(number) for number in generator.integers([0, 200, 0], [4, 700, 700]))
    tones = (_muted(generator, 150), _muted(generator, 150))

    def splinter(u: Plane, v: Plane) -> Inside:
        inside = np.maximum(abs(u), abs(v)) <= UNIT
        for cosine, sine, norm, distance in lines:
            inside &= ((UNIT * cosine // norm) * u + (UNIT * sine // norm) * v) <= UNIT * distance
        return np.asarray(inside)

    paint(canvas, patch(pose, splinter, size), Coat(TEXTURES[texture], tones, period, (phase, phase)))
