"""Polygons around masks, with as few points as a tolerance allows."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # [N, 2], x and y
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # right, down, left, up


def outlines(bitmap: NDArray[np.bool_], tolerance: float = 0.0) -> list[Points]:
    """Polygons along the pixels' edges around the parts of a mask. They cover its holes, too.

    Pixels that touch at a corner alone are two parts.

    Args:
        bitmap: [height, width].
        tolerance: a point of the outline may lie so many pixels from the polygon. With 0 they cover the same pixels.

    Returns:
        A polygon for each part, in the order of their topmost rows; points go clockwise. A part to which the tolerance
        leaves no area has none.
    """
    # As plain numbers: a loop over points is several times as fast with them as with small arrays.
    parts = [np.array(loop, np.float64) for loop in _loops(bitmap)]
    kept = (simplified(part, tolerance) for part in parts if _area(part) > 0)
    return [part for part in kept if len(part) > 2 and _area(part) > 0]


def _loops(bitmap: NDArray[np.bool_]) -> list[list[tuple[int, int]]]:
    """The corners of the borders, with the mask on the right: clockwise around parts, the other way in holes."""
    padded = np.pad(bitmap, 1).astype(np.int8)
    across, down = np.diff(padded, axis=0)[:, 1:-1], np.diff(padded, axis=1)[1:-1]
    ways: dict[tuple[int, int], list[int]] = defaultdict(list)  # the steps that lead away from each point
    # Where the mask begins below an edge, the way goes right, and so on.
    for step, edges, shift in (
        (0, across > 0, (0, 0)),
        (2, across < 0, (1, 0)),
        (3, down > 0, (0, 1)),
        (1, down < 0, (0, 0)),
    ):
        for y, x in np.argwhere(edges).tolist():
            ways[x + shift[0], y + shift[1]].append(step)
    loops = []
    for start in sorted(ways, key=lambda point: (point[1], point[0])):
        while ways[start]:
            loops.append(_loop(ways, start))
    return loops


def _loop(ways: dict[tuple[int, int], list[int]], start: tuple[int, int]) -> list[tuple[int, int]]:
    """Follows a border from a point to the same point, and takes its steps away."""
    point, corners = start, []
    step = last = ways[start].pop(0)
    first = step
    while True:
        point = point[0] + STEPS[step][0], point[1] + STEPS[step][1]
        if point == start:
            break
        # Where two pixels touch at a corner, the right turn stays at the same pixel.
        choices = ways[point]
        step = (last + 1) % 4 if (last + 1) % 4 in choices else choices[0]
        choices.remove(step)
        if step != last:
            corners.append(point)
        last = step
    return corners if last == first else [start, *corners]


def _area(points: Points) -> float:
    """The area of a polygon; negative if its points go against the clock, with y downwards."""
    x, y = points.T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2)


def simplified(points: Points, tolerance: float) -> Points:
    """A closed polygon of some of its points, from which none of the others is farther than the tolerance.

    This is the method of Ramer, Douglas and Peucker, on two halves between points that are far from each other.
    """
    if tolerance <= 0 or len(points) < 4:
        return points
    far = int(np.argmax(np.sum((points - points[0]) ** 2, axis=1)))
    kept = np.zeros(len(points) + 1, bool)
    kept[[0, far, len(points)]] = True
    closed = np.concatenate([points, points[:1]])
    waiting = [(0, far), (far, len(points))]
    while waiting:
        low, high = waiting.pop()
        if high - low < 2:
            continue
        distances = _distances(closed[low + 1 : high], closed[low], closed[high])
        farthest = int(np.argmax(distances))
        if distances[farthest] > tolerance:
            middle = low + 1 + farthest
            kept[middle] = True
            waiting += [(low, middle), (middle, high)]
    return points[kept[:-1]]


def _distances(points: Points, start: Points, end: Points) -> Points:
    """The distances of points from a segment."""
    along = end - start
    length = float(along @ along)
    share = np.clip((points - start) @ along / length, 0, 1) if length else np.zeros(len(points))
    return np.linalg.norm(points - (start + share[:, None] * along), axis=1)
