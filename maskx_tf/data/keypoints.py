"""Points as COCO's files have them: keypoints, what a category names and where an object has them; labelled points.

A file counts pixels, as indices; records have continuous coordinates, as boxes do, in which the centre of pixel 0 is at
.5. So half a pixel is added in reading, and taken away in writing.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskx_tf.data.dataset import Box, Dataset
from maskx_tf.data.formats import records as fields
from maskx_tf.data.formats.records import MAX_IMAGE_SIDE
from maskx_tf.data.problems import Problem, Report
from maskx_tf.files import Json, JsonView
from maskx_tf.masks.results import HALF_PIXEL, keypoint_numbers, keypoint_places
from maskx_tf.structures import KeypointSet

OTHER_SIDE = {"left": "right", "right": "left"}
LEFT_OR_RIGHT = re.compile("left|right", re.IGNORECASE)


def flip_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """The pairs of keypoints whose names differ by left and right alone."""
    places = {name.lower(): index for index, name in enumerate(names)}
    pairs = set()
    for name, index in places.items():
        other = places.get(LEFT_OR_RIGHT.sub(lambda found: OTHER_SIDE[found.group()], name), index)
        if other != index:
            pairs.add((min(index, other), max(index, other)))
    return tuple(sorted(pairs))


def read_set(category: JsonView) -> KeypointSet | None:
    """The keypoints that a category names; None if it names none.

    Raises:
        Unfit: the names or the skeleton do not fit.
    """
    if category.get("keypoints") in (None, []):
        return None
    names = tuple(fields.as_text(name, "keypoints") for _, name in fields.entries(category, "keypoints"))
    if len({name.lower() for name in names}) < len(names):
        raise fields.unfit("keypoints", "no name twice", list(names))
    if category.get("skeleton") is None:
        return KeypointSet(names, (), flip_pairs(names))
    lines = tuple(_line(pair, len(names)) for _, pair in fields.entries(category, "skeleton"))
    return KeypointSet(names, lines, flip_pairs(names))


def _line(pair: Any, count: int) -> tuple[int, int]:
    """A line of a skeleton, whose ends a file numbers from 1 on."""
    numbers = pair if isinstance(pair, list) else []
    ends = [number - 1 for number in numbers if type(number) is int and 1 <= number <= count]
    if len(ends) != 2 or len(numbers) != 2:
        raise fields.unfit("skeleton", f"pairs of whole numbers from 1 to {count}", pair)
    return ends[0], ends[1]


def read_points(
    annotation: JsonView, named: KeypointSet | None, where: str, report: Report
) -> NDArray[np.float32] | None:
    """The keypoints of an annotation, [P, 3]; None if it has none.

    Raises:
        Unfit: they do not fit.
    """
    values = annotation.get("keypoints")
    if values in (None, []):
        return None
    if named is None:
        report(Problem("unnamed_keypoints", where, "expected a category that names its keypoints, found none"))
        return None
    points = _numbers(values, len(named.names))
    labelled = int((points[:, 2] > 0).sum())
    if annotation.get("num_keypoints") is not None:
        stated = fields.whole(annotation, "num_keypoints", 0, len(named.names))
        if stated != labelled:
            what = f"num_keypoints: expected {labelled}, as many as have the label 1 or 2, found {stated}"
            report(Problem("keypoint_count", where, what))
    return points


def _numbers(values: Any, count: int) -> NDArray[np.float32]:
    """Numbers x1, y1, v1, x2, ... as [P, 3], continuous; zeros where there is no keypoint."""
    try:
        numbers = array("d", values if isinstance(values, list) else [])
    except (TypeError, OverflowError):
        numbers = array("d")
    inside = numbers and math.isfinite(sum(numbers)) and max(map(abs, numbers)) <= MAX_IMAGE_SIDE
    if len(numbers) != 3 * count or not inside:
        raise fields.unfit("keypoints", f"{count} x 3 numbers in or near the image", values)
    points = keypoint_places(numbers)
    labels = points[:, 2]
    points[labels == 0] = 0.0
    wrong = labels[(labels != 0) & (labels != 1) & (labels != 2)]
    if wrong.size:
        raise fields.unfit("keypoints", "0, 1 or 2 as the third number of each", float(wrong[0]))
    return points


def read_clicks(annotation: JsonView) -> NDArray[np.float32] | None:
    """The labelled points of an annotation, [Q, 3] as `Instance.clicks`; None if it has none.

    A file has a list of x, y and a label: 1 on the object, 0 outside it. x and y are continuous, as in a box.

    Raises:
        Unfit: they do not fit.
    """
    if annotation.get("points") in (None, []):
        return None
    clicks = []
    for _, click in fields.entries(annotation, "points"):
        named = dict(zip(("points.x", "points.y"), click, strict=False)) if isinstance(click, list) else {}
        if len(named) < 2 or len(click) != 3 or click[2] not in (0, 1):
            raise fields.unfit("points", "lists of x, y and 1 or 0", click)
        x, y = (fields.number(named, key) for key in named)
        clicks.append([x, y, 1.0 if click[2] else 2.0])
    return np.array(clicks, np.float32)


def as_clicks(clicks: NDArray[np.float32]) -> list[list[float]]:
    """Returns labelled points in the form of an annotation; see `read_clicks`."""
    return [[x, y, int(label == 1)] for x, y, label in clicks.tolist()]


def inside(points: NDArray[np.float32], box: Box) -> NDArray[np.bool_]:
    """Which points [P, 3] lie in a box, edges included: bool [P]."""
    x1, y1, x2, y2 = box
    return np.all((points[:, :2] >= [x1, y1]) & (points[:, :2] <= [x2, y2]), axis=1)


def classes_of(dataset: Dataset) -> frozenset[int]:
    """The labels of the classes whose instances have keypoints."""
    return frozenset(one.label for image in dataset.images for one in image.instances if one.keypoints is not None)


def as_category(named: KeypointSet) -> Json:
    """Returns the keypoint fields of a COCO category."""
    return {"keypoints": list(named.names), "skeleton": [[first + 1, second + 1] for first, second in named.skeleton]}


def as_annotation(points: NDArray[np.float32]) -> Json:
    """Returns the keypoint fields of a COCO annotation."""
    written = keypoint_numbers(np.where(points[:, 2:] > 0, points, HALF_PIXEL))  # three zeros for one that is not there
    return {"keypoints": written, "num_keypoints": int((points[:, 2] > 0).sum())}
