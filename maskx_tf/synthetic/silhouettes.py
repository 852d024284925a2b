"""The ten silhouettes: which points of an object's own plane are inside, in whole numbers.

A point is (u, v), int32, in units of which 1024 are the object's radius; nothing reaches much beyond that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.int32]
Inside = NDArray[np.bool_]
UNIT = 1024
# Outward normals of a pentagram's five lines, 1024 long, and the distance of the lines: 1024 cos 72 degrees.
STAR_NORMALS = ((0, -1024), (974, -316), (602, 828), (-602, 828), (-974, -316))
STAR_DISTANCE = 316


def _disc(u: Plane, v: Plane) -> Inside:
    return u * u + v * v <= 900**2


def _square(u: Plane, v: Plane) -> Inside:
    return np.maximum(abs(u), abs(v)) <= 780


def _triangle(u: Plane, v: Plane) -> Inside:
    return (v >= -520) & (1500 * abs(u) + 866 * v <= 866 * 1010)  # equilateral


def _ring(u: Plane, v: Plane) -> Inside:
    squared = u * u + v * v
    return (squared >= 540**2) & (squared <= 950**2)


def _frame(u: Plane, v: Plane) -> Inside:
    distance = np.maximum(abs(u), abs(v))
    return (distance >= 450) & (distance <= 800)


def _plus(u: Plane, v: Plane) -> Inside:
    return (np.minimum(abs(u), abs(v)) <= 310) & (np.maximum(abs(u), abs(v)) <= 930)


def _star(u: Plane, v: Plane) -> Inside:
    behind = sum(((x * u + y * v <= UNIT * STAR_DISTANCE).astype(np.int32) for x, y in STAR_NORMALS), np.int32(0))
    return np.asarray(behind) >= 4  # of the five lines: all in the middle, all but one in a point


def _bar(u: Plane, v: Plane) -> Inside:
    return (abs(u) <= 980) & (abs(v) <= 320)


def _crescent(u: Plane, v: Plane) -> Inside:
    return (u * u + v * v <= 950**2) & ((u - 420) ** 2 + v * v > 740**2)


def _ell(u: Plane, v: Plane) -> Inside:
    return (np.maximum(abs(u), abs(v)) <= 800) & (np.minimum(u, v) <= -240)


SILHOUETTES: Mapping[str, Callable[[Plane, Plane], Inside]] = {
    "disc": _disc,
    "square": _square,
    "triangle": _triangle,
    "ring": _ring,
    "frame": _frame,
    "plus": _plus,
    "star": _star,
    "bar": _bar,
    "crescent": _crescent,
    "L": _ell,
}


@cache
def area(silhouette: str) -> int:
    """How large a silhouette is, in square units."""
    step = 8
    line = np.arange(-UNIT - step // 2, UNIT + step, step, dtype=np.int32)
    return int(SILHOUETTES[silhouette](line[None, :], line[:, None]).sum()) * step * step
