"""Reads the JSON of VGG Image Annotator (VIA 2): an export of annotations, or a saved project.

Polygons, circles and ellipses are masks; rectangles are boxes only. The class is the value of the region's attribute:
the only one, or the one named class, label, name, category or type. Where no region has an attribute, all are of one
class, `object`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from maskx_tf import files
from maskx_tf.data.dataset import Dataset, ImageRecord
from maskx_tf.data.formats import records as fields
from maskx_tf.data.formats import shapes
from maskx_tf.data.formats.records import MAX_IMAGE_SIDE, Unfit
from maskx_tf.data.images import size_of
from maskx_tf.data.paths import list_files
from maskx_tf.data.problems import Report, each_noted, refuse
from maskx_tf.errors import BadInput, shorten
from maskx_tf.files import JsonView

ATTRIBUTES = ("class", "label", "name", "category", "type")
DEFAULT_CLASS = "object"
VIA_OPEN_SHAPES = ("polyline", "point")  # they enclose nothing


def read(images: Path, annotations: Path, report: Report = refuse) -> Dataset:
    """Reads a data set.

    Args:
        images: the folder of the images.
        annotations: the JSON file, or a folder of several.
        report: receives every problem.
    """
    several = annotations.is_dir()
    paths = list_files(annotations, "*.json", "VIA's JSON files") if several else [annotations]
    entries = [entry for path in paths for entry in _files(path)]
    default = None if any(_names_a_class(entry) for _, entry in entries) else DEFAULT_CLASS
    drawings = each_noted(
        entries, lambda entry, where: _drawing(fields.mapping(entry), where, images, report, default), report
    )
    return shapes.dataset(annotations.name, drawings, report)


def _files(path: Path) -> Iterator[tuple[str, Any]]:
    """Yields the entry of each image in the file, and its place for messages."""
    data = files.read_json(path)
    if isinstance(data, Mapping) and "_via_img_metadata" in data:
        data = data["_via_img_metadata"]
    if not isinstance(data, Mapping) or not data:
        raise BadInput(f"{path}: expected VIA's JSON, an entry for each image, found {shorten(data)}")
    for key, entry in data.items():
        yield f"{path.name}: {shorten(key)}", entry


def _regions(entry: JsonView) -> Any:
    """The regions of an image: a list, if the file is sound."""
    regions = entry.get("regions")
    return list(regions.values()) if isinstance(regions, Mapping) else regions  # VIA 1 has a mapping


def _names_a_class(entry: Any) -> bool:
    """Whether any region of an image has an attribute."""
    regions = _regions(entry) if isinstance(entry, Mapping) else None
    return isinstance(regions, list) and any(
        isinstance(region, Mapping) and region.get("region_attributes") for region in regions
    )


def _drawing(entry: JsonView, where: str, images: Path, report: Report, default: str | None) -> shapes.Drawing:
    name = fields.text(entry, "filename")
    image = ImageRecord(name, images / name, *size_of(images / name))
    regions = fields.entries({"regions": _regions(entry)}, "regions")
    places = ((f"{where}: regions[{number}]", region) for number, region in regions)
    drawn = each_noted(places, lambda region, _: _shape(fields.mapping(region), default), report)
    return shapes.Drawing(where, image, drawn)


def _class(region: JsonView, default: str | None) -> str:
    attributes = fields.mapping(region.get("region_attributes"), "region_attributes")
    if default is not None:
        return default
    keys = [key for key in ATTRIBUTES if key in attributes] or list(attributes)
    if not keys or (len(keys) > 1 and keys[0] not in ATTRIBUTES):
        raise fields.unfit("region_attributes", f"one, or one of {', '.join(ATTRIBUTES)}", dict(attributes))
    value = attributes[keys[0]]
    if isinstance(value, Mapping):  # a row of check boxes
        ticked = [name for name, is_ticked in value.items() if is_ticked]
        if len(ticked) != 1:
            raise fields.unfit(keys[0], "one ticked name", dict(value))
        value = ticked[0]
    return fields.as_text(value, keys[0]).strip()


def _shape(region: JsonView, default: str | None) -> shapes.DrawnShape:
    attributes = fields.mapping(region.get("shape_attributes"), "shape_attributes")
    kind = attributes.get("name")
    if kind in VIA_OPEN_SHAPES:
        raise shapes.skipped(kind)
    name = _class(region, default)
    if kind == "polygon":
        xs, ys = (
            [fields.as_number(value, key) for _, value in fields.entries(attributes, key)]
            for key in ("all_points_x", "all_points_y")
        )
        if len(xs) != len(ys):
            raise Unfit(f"all_points_y: expected as many numbers as all_points_x, {len(xs)}, found {len(ys)}")
        return shapes.outlined(name, list(zip(xs, ys, strict=True)))
    if kind == "rect":
        x, y = fields.number(attributes, "x"), fields.number(attributes, "y")
        width, height = (fields.number(attributes, side, 0) for side in ("width", "height"))
        return shapes.rectangle(name, x, y, x + width, y + height)
    if kind not in ("circle", "ellipse"):
        raise fields.unfit("shape_attributes.name", "polygon, rect, circle or ellipse", kind)
    keys = ("r", "r") if kind == "circle" else ("rx", "ry")
    rx, ry = (fields.number(attributes, key, 0, MAX_IMAGE_SIDE) for key in keys)
    turn = fields.number(attributes, "theta") if "theta" in attributes else 0.0
    return shapes.ellipse(name, fields.number(attributes, "cx"), fields.number(attributes, "cy"), rx, ry, turn)
