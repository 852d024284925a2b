"""Shapes of annotation tools (polygons, circles, ellipses, rectangles) as instances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskx_tf.data.dataset import Box, Dataset, Id, ImageRecord, Instance
from maskx_tf.data.formats import segmentations
from maskx_tf.data.formats.records import Unfit
from maskx_tf.data.problems import Report, noted
from maskx_tf.masks import rle
from maskx_tf.masks.rle import Rle

CORNERS = 64  # corners of a polygon in place of a circle


GroupId = int | str


class DrawnShape(NamedTuple):
    """One drawn shape.

    Attributes:
        name: the name of its class.
        box: around it.
        outline: x1, y1, x2, y2, ...; empty for a rectangle, which says nothing about the object's outline.
        mask: its mask, if it was painted instead of drawn.
        group: shapes of one class with one group are parts of one object; None stands alone.
    """

    name: str
    box: Box
    outline: list[float] = []  # noqa: RUF012, nobody changes it
    mask: Rle | None = None
    group: GroupId | None = None


class Drawing(NamedTuple):
    """An image without instances yet, the shapes drawn on it, and where that is written."""

    where: str
    image: ImageRecord
    shapes: Sequence[DrawnShape]


def skipped(kind: str) -> Unfit:
    """The exception for a shape that has no inside."""
    return Unfit(f"expected a shape that encloses something, found {kind}", "skipped_shape")


def rectangle(name: str, x1: float, y1: float, x2: float, y2: float) -> DrawnShape:
    """A box without a mask; its corners may be given in any order."""
    return DrawnShape(name, (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)))


def outlined(name: str, points: Sequence[tuple[float, float]]) -> DrawnShape:
    """A polygon."""
    if len(points) < 3:
        raise Unfit(f"points: expected at least 3, found {len(points)}", "short_polygon")
    xs, ys = zip(*points, strict=True)
    return DrawnShape(name, (min(xs), min(ys), max(xs), max(ys)), [number for point in points for number in point])


def ellipse(name: str, x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> DrawnShape:
    """An ellipse around a centre, turned by an angle in radians, as a polygon."""
    angles = np.arange(CORNERS) * (2 * np.pi / CORNERS)
    along, across = rx * np.cos(angles), ry * np.sin(angles)
    xs = x + along * np.cos(turn) - across * np.sin(turn)
    ys = y + along * np.sin(turn) + across * np.cos(turn)
    return outlined(name, list(zip(xs.tolist(), ys.tolist(), strict=True)))


def dataset(name: str, drawings: Sequence[Drawing], report: Report) -> Dataset:
    """The data set of these drawings; its classes are in the order of the alphabet."""
    names = sorted({shape.name for drawing in drawings for shape in drawing.shapes})
    labels = {class_name: label for label, class_name in enumerate(names, 1)}
    records: dict[Id, ImageRecord] = {}
    for drawing in drawings:
        with noted(report, drawing.where):
            if drawing.image.id in records:
                raise Unfit(f"expected one drawing of an image, found another of {drawing.image.id}", "duplicate")
            instances = tuple(_instances(drawing, labels))
            records[drawing.image.id] = drawing.image._replace(instances=instances)
    return Dataset(name, tuple(names), tuple(labels.values()), tuple(records.values()))


def _instances(drawing: Drawing, labels: Mapping[str, int]) -> Iterator[Instance]:
    """The objects that the shapes show."""
    objects: dict[tuple[str, GroupId | None, int], list[DrawnShape]] = {}
    for number, shape in enumerate(drawing.shapes):
        key = (shape.name, shape.group, number if shape.group is None else 0)
        objects.setdefault(key, []).append(shape)
    for number, parts in enumerate(objects.values(), 1):
        box = (
            min(part.box[0] for part in parts),
            min(part.box[1] for part in parts),
            max(part.box[2] for part in parts),
            max(part.box[3] for part in parts),
        )
        painted = [part.mask for part in parts if part.mask]
        outlines = [segmentations.polygon(part.outline, drawing.image) for part in parts if part.outline]
        if painted and len(parts) > 1:
            raise Unfit("group_id: expected a painted mask to stand alone, found other parts of its object")
        polygons = tuple(numbers for numbers in outlines if segmentations.encloses(numbers))
        drawn = polygons if len(outlines) == len(parts) else ()  # a rectangle among the parts hides their outline
        mask = painted[0] if painted else drawn or None
        yield Instance(box, labels[parts[0].name], False, mask, number)


def painted(bitmap: NDArray[np.bool_], left: int, top: int, image: ImageRecord) -> Rle:
    """A mask that was stored as the bitmap of its box, of which a part may lie outside the image.

    Raises:
        Unfit: all of it does.
    """
    whole = np.zeros([image.height, image.width], bool)
    rows = slice(max(top, 0), min(top + bitmap.shape[0], image.height))
    columns = slice(max(left, 0), min(left + bitmap.shape[1], image.width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        found = f"{bitmap.shape[1]} x {bitmap.shape[0]} pixels at ({left}, {top})"
        raise Unfit(f"mask: expected a part of it in the image, {image.width} x {image.height}, found {found}")
    whole[rows, columns] = bitmap[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return rle.encode(whole)
