"""Reads and writes CVAT's XML, "CVAT for images 1.1".

Polygons, ellipses and masks are masks, boxes, upright or rotated, are boxes only, and other shapes are left out. Shapes
of one label and group_id (but 0) are parts of one object. A mask is the lengths of runs in its box, row by row,
background first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from maskx_tf import files
from maskx_tf.data.dataset import Box, Dataset, ImageRecord, Instance, bitmap
from maskx_tf.data.formats import records as fields
from maskx_tf.data.formats import shapes
from maskx_tf.data.formats.coco_write import relative_name
from maskx_tf.data.formats.records import MAX_IMAGE_SIDE, Unfit
from maskx_tf.data.problems import Report, each_noted, refuse
from maskx_tf.errors import BadInput, reason

OPEN_ELEMENTS = ("polyline", "points", "skeleton", "cuboid", "tag")  # what encloses nothing on a plane


def read(images: Path, annotations: Path, report: Report = refuse) -> Dataset:
    """Reads a data set.

    Args:
        images: the folder of the images.
        annotations: the XML file.
        report: receives every problem.
    """
    try:
        with files.open_regular(annotations) as stream:
            root = ElementTree.parse(stream).getroot()
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise BadInput(f"{annotations}: expected CVAT's XML: {reason(error)}") from None
    elements = ((f"{annotations.name}: image {number}", element) for number, element in enumerate(root.iter("image")))
    drawings = each_noted(elements, lambda element, where: _drawing(element, images, where, report), report)
    if not drawings:
        raise BadInput(f"{annotations}: expected images of CVAT for images 1.1, found none")
    return shapes.dataset(annotations.name, drawings, report)


def _drawing(element: ElementTree.Element, images: Path, where: str, report: Report) -> shapes.Drawing:
    name = fields.as_text(element.get("name"), "name")
    width, height = (int(fields.as_number(element.get(side), side, 1, MAX_IMAGE_SIDE)) for side in ("width", "height"))
    image = ImageRecord(Path(name).with_suffix("").as_posix(), images / name, width, height)
    children = ((f"{where} ({name}): shape {number}", child) for number, child in enumerate(element))
    return shapes.Drawing(where, image, each_noted(children, lambda child, _: _shape(child, image), report))


def _shape(element: ElementTree.Element, image: ImageRecord) -> shapes.DrawnShape:
    if element.tag in OPEN_ELEMENTS:
        raise shapes.skipped(element.tag)
    name = fields.as_text(element.get("label"), "label")

    def number(key: str) -> float:
        return fields.as_number(element.get(key), key)

    group = element.get("group_id")
    if element.tag == "box":
        corners = number("xtl"), number("ytl"), number("xbr"), number("ybr")
        drawn = shapes.rectangle(name, *_around(*corners, _turn(element)))
    elif element.tag == "ellipse":
        drawn = shapes.ellipse(name, number("cx"), number("cy"), number("rx"), number("ry"), _turn(element))
    elif element.tag == "polygon":
        pairs = [pair.split(",") for pair in fields.as_text(element.get("points"), "points").split(";")]
        if any(len(pair) != 2 for pair in pairs):
            raise fields.unfit("points", "x,y;x,y;...", element.get("points"))
        drawn = shapes.outlined(name, [(fields.as_number(x, "x"), fields.as_number(y, "y")) for x, y in pairs])
    elif element.tag == "mask":
        left, top, width, height = (int(number(key)) for key in ("left", "top", "width", "height"))
        pixels = _decoded(fields.as_text(element.get("rle"), "rle"), width, height, image)
        drawn = shapes.rectangle(name, max(left, 0), max(top, 0), left + width, top + height)
        drawn = drawn._replace(mask=shapes.painted(pixels, left, top, image))
    else:
        raise fields.unfit("shape", "box, polygon, mask or ellipse", element.tag)
    return drawn._replace(group=None if group in (None, "", "0") else group)


def _around(x1: float, y1: float, x2: float, y2: float, turn: float) -> Box:
    """The box around a box that is rotated about its centre by an angle in radians."""
    if not turn:
        return x1, y1, x2, y2
    x, y, width, height = (x1 + x2) / 2, (y1 + y2) / 2, abs(x2 - x1), abs(y2 - y1)
    cosine, sine = abs(math.cos(turn)), abs(math.sin(turn))
    across, down = (width * cosine + height * sine) / 2, (width * sine + height * cosine) / 2
    return x - across, y - down, x + across, y + down


def _turn(element: ElementTree.Element) -> float:
    return math.radians(fields.as_number(element.get("rotation", "0"), "rotation"))


def _decoded(text: str, width: int, height: int, image: ImageRecord) -> NDArray[np.bool_]:
    if not (0 < width <= image.width and 0 < height <= image.height):
        size = f"1 to {image.width} x {image.height} pixels"
        raise Unfit(f"mask: expected {size}, found {width} x {height}", "broken_mask")
    runs = [fields.as_number(word, "rle", 0, width * height) for word in text.split(",")]
    if sum(runs) != width * height or any(run != int(run) for run in runs):
        raise Unfit(f"rle: expected runs that add up to {width * height}, found {sum(runs):g}", "broken_mask")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, np.array(runs, np.int64)).reshape(height, width)


def write(dataset: Dataset, out: Path, images: Path) -> None:
    """Writes a data set. Objects with a mask are masks, others boxes; crowds are left out.

    Args:
        dataset: what to write.
        out: the XML file.
        images: the folder to which the names of files are relative.
    """
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    labels = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task"), "labels")
    for name in dataset.class_names:
        ElementTree.SubElement(ElementTree.SubElement(labels, "label"), "name").text = name
    for number, image in enumerate(dataset.images):
        head = {"id": str(number), "name": relative_name(image, images)}
        size = {"width": str(image.width), "height": str(image.height)}
        element = ElementTree.SubElement(root, "image", head | size)
        for tag, attributes in _elements(dataset, image):
            ElementTree.SubElement(element, tag, attributes)
    ElementTree.indent(root)
    files.write_bytes(out, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def _elements(dataset: Dataset, image: ImageRecord) -> Iterator[tuple[str, dict[str, str]]]:
    """The shapes of an image, as the name of an element and its attributes."""
    for one in image.instances:
        if one.crowd:
            continue
        source = "manual" if one.mask_source is None else "auto"
        common = {"label": dataset.class_names[one.label - 1], "source": source, "occluded": "0", "z_order": "0"}
        mask = _mask(one, image)
        if mask is not None:
            yield "mask", common | mask
        else:
            edges = dict(zip(("xtl", "ytl", "xbr", "ybr"), (f"{edge:.2f}" for edge in one.box), strict=True))
            yield "box", common | edges


def _mask(one: Instance, image: ImageRecord) -> dict[str, str] | None:
    if one.segmentation is None:
        return None
    pixels = bitmap(one.segmentation, image.height, image.width)
    rows, columns = (np.flatnonzero(pixels.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return None
    top, left = int(rows[0]), int(columns[0])
    inside = pixels[top : rows[-1] + 1, left : columns[-1] + 1]
    flat = np.concatenate([[False], inside.ravel()])
    runs = np.diff(np.flatnonzero(flat[1:] != flat[:-1]), prepend=0, append=inside.size)
    place = {"left": left, "top": top, "width": inside.shape[1], "height": inside.shape[0]}
    return {"rle": ", ".join(map(str, runs.tolist())), **{key: str(value) for key, value in place.items()}}
