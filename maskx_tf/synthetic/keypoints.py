"""The keypoints of an object: the corners of its silhouette farthest to the top, right, bottom and left of the image.

What is round has points of its rim instead. All arithmetic is on whole numbers, as everywhere in the benchmark.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from maskx_tf.files import Json
from maskx_tf.synthetic.painter import FINE, QUARTERS, Pose
from maskx_tf.synthetic.silhouettes import STAR_NORMALS, UNIT

KEYPOINT_NAMES = ("top", "right", "bottom", "left")
KEYPOINT_SKELETON = ((1, 2), (2, 3), (3, 4), (4, 1))
HUNDREDTHS = 100  # of a pixel: as exact as coordinates are written
ARC = 64  # points of a quarter of a circle

Outline = Sequence[tuple[int, int]]


def _corners(u: int, v: int) -> Outline:
    return [(x, y) for x in (-u, u) for y in (-v, v)]


def _circle(radius: int) -> Outline:
    """Points of a circle that every machine rounds alike: ((s s - t t), 2 s t) / (s s + t t) lies on it."""
    arc = []
    for step in range(ARC):
        cosine, sine, norm = ARC * ARC - step * step, 2 * ARC * step, ARC * ARC + step * step
        arc.append((radius * cosine // norm, radius * sine // norm))
    return [turned for x, y in arc for turned in ((x, y), (-y, x), (-x, -y), (y, -x))]


# The points of a silhouette that can be farthest in some direction, in the units of its plane. They lie an eighth
# inside of its corners or its rim, so that the box around its pixels contains them.
OUTLINES: Mapping[str, Callable[[], Outline]] = {
    "disc": lambda: _circle(790),
    "square": lambda: _corners(680, 680),
    "triangle": lambda: [(-770, -450), (770, -450), (0, 880)],
    "ring": lambda: _circle(830),
    "frame": lambda: _corners(700, 700),
    "plus": lambda: [*_corners(270, 810), *_corners(810, 270)],
    "star": lambda: [(7 * u // 8, 7 * v // 8) for u, v in STAR_NORMALS],  # its points lie in these directions
    "bar": lambda: _corners(860, 280),
    "crescent": lambda: [(480, 750), (480, -750), *(point for point in _circle(830) if point[0] <= -350)],
    "L": lambda: [(-700, -700), (700, -700), (700, -340), (-340, 700), (-700, 700)],
}


@cache
def outline(silhouette: str) -> NDArray[np.int64]:
    """The points of a silhouette that can be farthest in some direction, [N, 2]."""
    return np.array(OUTLINES[silhouette](), np.int64)


def farthest(silhouette: str, pose: Pose) -> list[tuple[int, int]]:
    """The four keypoints, x and y in hundredths of a pixel from the border of the image."""
    u, v = outline(silhouette).T
    if pose.mirrored:
        v = -v
    # What `painter.patch` does, undone; both are multiplied by a number that is the same for all points.
    across, down = pose.cosine * u - pose.sine * v, pose.sine * u + pose.cosine * v
    places = (int(down.argmin()), int(across.argmax()), int(down.argmax()), int(across.argmin()))
    unit, step = UNIT * pose.norm, HUNDREDTHS // QUARTERS

    def moved(centre: int, offset: np.int64) -> int:
        return step * (centre * unit + int(offset) * pose.radius) // unit

    return [(moved(pose.x, across[place]), moved(pose.y, down[place])) for place in places]


def as_annotation(silhouette: str, pose: Pose, owners: NDArray[np.int32], number: int) -> Json:
    """Returns an object's keypoints in the form of a COCO annotation; zeros for those outside of the image.

    Args:
        silhouette: the silhouette of the object.
        pose: its pose.
        owners: the object that each point of the canvas shows, from 1 on; what comes later hides what came before.
        number: the number of this object.
    """
    numbers: list[float] = []
    size = len(owners) // FINE
    for x, y in farthest(silhouette, pose):
        if not (0 <= x <= HUNDREDTHS * size and 0 <= y <= HUNDREDTHS * size):
            numbers += [0, 0, 0]
            continue
        row, column = (min(FINE * place // HUNDREDTHS, FINE * size - 1) for place in (y, x))
        visible = 2 if owners[row, column] <= number else 1
        # COCO counts pixels, whose centres are at .5.
        numbers += [(x - HUNDREDTHS // 2) / HUNDREDTHS, (y - HUNDREDTHS // 2) / HUNDREDTHS, visible]
    return {"keypoints": numbers, "num_keypoints": sum(label > 0 for label in numbers[2::3])}
