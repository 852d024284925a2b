"""Polygons and run lengths as files have them: checked, measured, and compared with the box that they should fill."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from itertools import pairwise
from operator import mul
from typing import Any

import numpy as np

from maskx_tf.data.dataset import Box, ImageRecord, MaskFile, Segmentation, area_of, bitmap
from maskx_tf.data.formats import records as fields
from maskx_tf.data.formats.records import Unfit
from maskx_tf.data.problems import Problem, Report
from maskx_tf.errors import shorten
from maskx_tf.masks import rle
from maskx_tf.masks.rle import RleError

LEAST_AREA = 1e-3  # square pixels that a polygon encloses; less is a line
EXACT = 1.0  # pixels by which a rectangle may miss the box that it repeats


def read(value: Any, image: ImageRecord, where: str, report: Report) -> Segmentation | None:
    """A segmentation as JSON has it, checked; None where there is none, or none with a pixel.

    Raises:
        Unfit: it is of no known form, or not of this image.
    """
    if value is None or value in ([], {}):
        return None
    if isinstance(value, Mapping):
        try:
            mask = rle.checked(value, image.height, image.width)
        except RleError as error:
            raise Unfit(f"segmentation.{error}", error.kind) from None
        if rle.area(mask):
            return mask
        report(Problem("empty_mask", where, "segmentation: expected a mask, found no pixel"))
        return None
    if not isinstance(value, list):
        raise fields.unfit("segmentation", "polygons, run lengths or nothing", value)
    kept = []
    for points in value:
        numbers = polygon(points, image)
        if encloses(numbers):
            kept.append(numbers)
        else:
            found = f"segmentation: expected at least 3 points that are not on a line, found {shorten(points)}"
            report(Problem("short_polygon", where, found))
    return tuple(kept) or None


def polygon(points: Sequence[Any], image: ImageRecord) -> array[float]:
    """The numbers x1, y1, x2, y2, ... of a polygon in the image or, at most, one side of the image beyond it.

    Raises:
        Unfit: they are no such numbers. A line that goes far would fill the memory with its pixels.
    """
    width, height = image.width, image.height
    try:
        numbers = array("d", points if isinstance(points, list) else [None])
    except (TypeError, OverflowError):
        numbers = array("d", [math.nan])
    xs, ys = numbers[::2], numbers[1::2]
    inside = not numbers or (
        math.isfinite(sum(numbers))  # min and max do not see NaN
        and (-width <= min(xs) and max(xs) <= 2 * width)
        and (-height <= min(ys) and max(ys) <= 2 * height)
    )
    if not inside or len(xs) != len(ys):
        expected = f"polygons, each an even number of numbers in or near {width} x {height} pixels"
        raise fields.unfit("segmentation", expected, points)
    return numbers


def encloses(numbers: array[float]) -> bool:
    """Whether a polygon has an area."""
    xs, ys = numbers[::2], numbers[1::2]
    if len(xs) < 3:
        return False
    doubled = sum(map(mul, xs, ys[1:] + ys[:1])) - sum(map(mul, ys, xs[1:] + xs[:1]))
    if abs(doubled) >= 2 * LEAST_AREA:
        return True
    # By that formula a figure of eight has no area, but it fills pixels: are all points on a line?
    points = np.stack([xs, ys], axis=1) - (xs[0], ys[0])
    farthest = points[np.abs(points).sum(axis=1).argmax()]
    return bool((np.abs(points[:, 0] * farthest[1] - points[:, 1] * farthest[0]) >= 2 * LEAST_AREA).any())


def extent(segmentation: Segmentation, image: ImageRecord) -> Box | None:
    """The box around a mask, as far as it lies in the image; None for a mask file without a pixel.

    Raises:
        BadInput: it is in a file that cannot be decoded.
    """
    if isinstance(segmentation, dict):
        return rle.extent(segmentation)
    if isinstance(segmentation, MaskFile):
        mask = bitmap(segmentation, image.height, image.width)
        return rle.extent(rle.encode(mask)) if mask.any() else None
    xs = [x for numbers in segmentation for x in numbers[::2]]
    ys = [y for numbers in segmentation for y in numbers[1::2]]
    return max(min(xs), 0.0), max(min(ys), 0.0), min(max(xs), image.width), min(max(ys), image.height)


def is_box(segmentation: Segmentation, box: Box) -> bool:
    """Whether a mask is the rectangle of its box, and so perhaps a placeholder for a mask that was never drawn."""
    if isinstance(segmentation, MaskFile):  # someone drew it
        return False
    if isinstance(segmentation, dict):
        x1, y1, x2, y2 = rle.extent(segmentation)
        return near((x1, y1, x2, y2), box) and rle.area(segmentation) == (x2 - x1) * (y2 - y1)
    if len(segmentation) != 1:
        return False
    corners = list(zip(segmentation[0][::2], segmentation[0][1::2], strict=True))
    if len(corners) == 5 and corners[0] == corners[4]:
        corners.pop()
    if len(corners) != 4 or any(a[0] != b[0] and a[1] != b[1] for a, b in pairwise(corners)):
        return False
    xs, ys = zip(*corners, strict=True)
    return near((min(xs), min(ys), max(xs), max(ys)), box)


def overlap(box: Box, other: Box) -> float:
    """Intersection over union."""
    shared = area_of((max(box[0], other[0]), max(box[1], other[1]), min(box[2], other[2]), min(box[3], other[3])))
    return shared / max(area_of(box) + area_of(other) - shared, 1e-9)


def near(box: Box, other: Box) -> bool:
    """Whether two boxes are the same but for rounding."""
    return all(abs(a - b) <= EXACT for a, b in zip(box, other, strict=True))
