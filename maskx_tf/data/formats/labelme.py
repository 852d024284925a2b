"""Reads a folder of LabelMe's JSON files, one an image.

Polygons, circles and painted masks are masks; rectangles, upright or turned, are boxes only. Shapes of one label and
group_id are parts of one object. The image lies in `images`, or where `imagePath` says; a file that holds it in
`imageData` needs neither.
"""

from __future__ import annotations

import base64
import binascii
import math
from pathlib import Path, PureWindowsPath

import numpy as np

from maskx_tf import files
from maskx_tf.data.dataset import Dataset, ImageRecord
from maskx_tf.data.formats import records as fields
from maskx_tf.data.formats import shapes
from maskx_tf.data.formats.records import MAX_IMAGE_SIDE, Unfit
from maskx_tf.data.images import id_map, size_of
from maskx_tf.data.paths import first_file, list_files
from maskx_tf.data.problems import Report, each_noted, refuse
from maskx_tf.errors import BadInput
from maskx_tf.files import JsonView

LABELME_OPEN_SHAPES = ("line", "linestrip", "point", "points")  # they enclose nothing


def read(images: Path, annotations: Path, report: Report = refuse) -> Dataset:
    """Reads a data set.

    Args:
        images: the folder of the images.
        annotations: the folder of the JSON files.
        report: receives every problem.
    """
    paths = list_files(annotations, "*.json", "LabelMe's JSON files")
    places = ((path.relative_to(annotations).as_posix(), path) for path in paths)
    drawings = each_noted(places, lambda path, where: _drawing(path, where, images, report), report)
    return shapes.dataset(annotations.name, drawings, report)


def _drawing(path: Path, where: str, images: Path, report: Report) -> shapes.Drawing:
    try:
        data = fields.mapping(files.read_json(path), "file")
    except BadInput as error:  # one of many files
        raise Unfit(str(error)) from None
    file = _image_file(data, images, path)
    if data.get("imageWidth") is None or data.get("imageHeight") is None:
        width, height = size_of(file)
    else:
        width, height = (fields.whole(data, side, 1, MAX_IMAGE_SIDE) for side in ("imageWidth", "imageHeight"))
    image = ImageRecord(where.removesuffix(".json"), file, width, height)
    entries = ((f"{where}: shapes[{number}]", entry) for number, entry in fields.entries(data, "shapes"))
    drawn = each_noted(entries, lambda entry, _: _shape(fields.mapping(entry), image), report)
    return shapes.Drawing(where, image, drawn)


def _image_file(data: JsonView, images: Path, path: Path) -> Path | bytes:
    name = PureWindowsPath(fields.text(data, "imagePath"))  # which takes both kinds of slashes
    places = [images / name.name, images / name.as_posix(), path.parent / name.as_posix()]
    file = first_file(places)
    if file is not None or not data.get("imageData"):
        return file or places[0]  # which is then reported as missing
    try:
        return base64.b64decode(fields.text(data, "imageData"))
    except (binascii.Error, ValueError):
        raise fields.unfit("imageData", "an image in base64", data["imageData"]) from None


def _shape(entry: JsonView, image: ImageRecord) -> shapes.DrawnShape:
    name, kind, points = fields.text(entry, "label"), entry.get("shape_type", "polygon"), _points(entry)
    group = None if entry.get("group_id") is None else fields.identity(entry, "group_id")
    if kind in LABELME_OPEN_SHAPES:
        raise shapes.skipped(kind)
    if kind == "polygon":
        return shapes.outlined(name, points)._replace(group=group)
    if kind == "oriented_rectangle":
        if len(points) != 4:
            raise fields.unfit("points", "four corners", points)
        return shapes.outlined(name, points)._replace(outline=[], group=group)
    if kind not in ("rectangle", "circle", "mask"):
        raise fields.unfit("shape_type", "polygon, rectangle, oriented_rectangle, circle or mask", kind)
    if len(points) < 2:
        raise fields.unfit("points", "two points", points)
    (x1, y1), (x2, y2) = points[0], points[-1]
    if kind == "rectangle":
        return shapes.rectangle(name, x1, y1, x2, y2)._replace(group=group)
    if kind == "circle":  # its centre, and a point on it
        radius = math.hypot(x2 - x1, y2 - y1)
        return shapes.ellipse(name, x1, y1, radius, radius)._replace(group=group)
    try:
        content = base64.b64decode(fields.text(entry, "mask"))
    except (binascii.Error, ValueError):
        raise fields.unfit("mask", "an image in base64", entry["mask"]) from None
    bitmap = id_map(content) > 0
    left, top = round(x1), round(y1)
    mask = shapes.painted(np.asarray(bitmap), left, top, image)
    # LabelMe counts the last pixel in.
    return shapes.rectangle(name, max(left, 0), max(top, 0), x2 + 1, y2 + 1)._replace(mask=mask, group=group)


def _points(entry: JsonView) -> list[tuple[float, float]]:
    points = []
    for number, point in fields.entries(entry, "points"):
        if not isinstance(point, list) or len(point) != 2:
            raise fields.unfit(f"points[{number}]", "[x, y]", point)
        named = {"x": point[0], "y": point[1]}
        points.append((fields.number(named, "x"), fields.number(named, "y")))
    return points
