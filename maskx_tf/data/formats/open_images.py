"""Reads Open Images: boxes in one CSV file, masks listed in another and drawn in PNG files.

    class-descriptions-boxable.csv                      /m/0199g,Bicycle
    train-annotations-bbox.csv                          `annotations`: ImageID, LabelName, XMin, XMax, YMin, YMax, ...
    train-annotations-object-segmentation.csv           optional: MaskPath, ImageID, LabelName, BoxXMin, ...
    masks/0a1b..._m0199g_1234abcd.png                   optional; or masks/0/0a1b....png, as the archives have them

`images` holds 0a1b....jpg. Boxes are shares of the image, whose size stands in no file but itself. Groups are crowds.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from maskx_tf import files
from maskx_tf.data.dataset import Box, Dataset, ImageRecord, Instance, MaskFile
from maskx_tf.data.formats import records as fields
from maskx_tf.data.formats.records import Unfit
from maskx_tf.data.images import find_image, size_of
from maskx_tf.data.paths import first_file
from maskx_tf.data.problems import Problem, Report, noted, refuse
from maskx_tf.data.threads import read_records
from maskx_tf.errors import BadInput, shorten

BOX_COLUMNS = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")
MASK_COLUMNS = ("MaskPath", "ImageID", "LabelName", "BoxXMin", "BoxXMax", "BoxYMin", "BoxYMax")
SAME_BOX = 2e-3  # share of the image's side by which equal boxes of the two files may differ


class _Row(NamedTuple):
    """A line of either file: its box in shares of the image."""

    label_name: str
    box: Box
    crowd: bool
    mask: Path | None


def read(images: Path, annotations: Path, report: Report = refuse) -> Dataset:
    """Reads a data set.

    Args:
        images: the folder of the images.
        annotations: the CSV file of the boxes; the other files are expected next to it.
        report: receives every problem.
    """
    if not first_file([annotations]):
        raise BadInput(f"{annotations}: expected a CSV file of boxes, found none")
    names = _class_names(annotations.parent)
    boxes = _rows(annotations, BOX_COLUMNS, names, None, report)
    mask_list = annotations.with_name(annotations.name.replace("bbox", "object-segmentation"))
    masks: Mapping[str, list[_Row]] = {}
    if mask_list != annotations and first_file([mask_list]):
        masks = _rows(mask_list, MASK_COLUMNS, names, annotations.parent / "masks", report)
    used = {row.label_name for rows in boxes.values() for row in rows}
    labels = {name: label for label, name in enumerate(sorted(used, key=names.__getitem__), 1)}

    def read_one(image_id: str, tell: Report) -> ImageRecord:
        file = find_image(images, image_id)
        if file is None:
            raise Unfit(f"expected an image {images.name}/{image_id}.jpg, found none", "missing_image")
        width, height = size_of(file)
        rows = list(boxes[image_id])
        for mask in masks.get(image_id, ()):
            _give(rows, mask, f"{mask_list.name}: image {image_id}", tell)
        instances = (
            Instance(
                (row.box[0] * width, row.box[1] * height, row.box[2] * width, row.box[3] * height),
                labels[row.label_name],
                row.crowd,
                None if row.mask is None else MaskFile(row.mask),
                number,
            )
            for number, row in enumerate(rows, 1)
        )
        return ImageRecord(image_id, file, width, height, tuple(instances))

    for image_id in sorted(masks.keys() - boxes.keys()):
        report(Problem("unmatched_mask", f"{mask_list.name}: image {image_id}", "expected boxes, found none"))
    records = read_records(list(boxes), lambda image_id: f"{annotations.name}: image {image_id}", read_one, report)
    return Dataset(annotations.name, tuple(names[name] for name in labels), tuple(labels.values()), records)


def _class_names(folder: Path) -> dict[str, str]:
    """The name of each label, from the file of descriptions."""
    found = sorted(folder.glob("*class-descriptions*.csv"))
    path = next((one for one in found if "boxable" in one.name), found[0] if found else None)
    if path is None:
        raise BadInput(f"{folder}: expected a file *class-descriptions*.csv next to the boxes, found none")
    names: dict[str, str] = {}
    try:
        for line, row in enumerate(csv.reader(files.read_text(path).splitlines()), 1):
            if len(row) < 2 or not row[1].strip():
                raise BadInput(f"{path}: line {line}: expected a label and a name, found {shorten(row)}")
            names[row[0]] = row[1].strip()
    except csv.Error as error:
        raise BadInput(f"{path}: expected CSV: {error}") from None
    times = Counter(names.values())
    return {label: f"{name} ({label})" if times[name] > 1 else name for label, name in names.items()}


def _rows(
    path: Path, columns: Sequence[str], names: Mapping[str, str], folder: Path | None, report: Report
) -> dict[str, list[_Row]]:
    """The rows of each image; with a folder of masks, those of the file that lists them."""
    found: dict[str, list[_Row]] = defaultdict(list)
    sides = columns[-4:]
    for line, row in files.read_csv(path, columns):
        with noted(report, f"{path.name}: line {line}"):
            x1, x2, y1, y2 = (fields.as_number(row[side], side, 0, 1) for side in sides)
            if x2 < x1 or y2 < y1:
                raise fields.unfit("box", "XMin <= XMax and YMin <= YMax", [x1, x2, y1, y2])
            label = row["LabelName"]
            if label not in names:
                raise Unfit(f"LabelName: expected a label of the descriptions, found {label!r}", "unknown_category")
            mask = None
            if folder is not None:
                name = fields.as_text(row["MaskPath"], "MaskPath")
                mask = first_file([folder / name, folder / name[0] / name])
                if mask is None:
                    raise Unfit(f"MaskPath: expected a file {folder.name}/{name}, found none", "missing_mask")
            image_id = fields.as_text(row["ImageID"], "ImageID")
            found[image_id].append(_Row(label, (x1, y1, x2, y2), row.get("IsGroupOf") == "1", mask))
    return found


def _give(rows: list[_Row], mask: _Row, where: str, report: Report) -> None:
    """Gives a mask to the row of its box."""
    distances = [
        max(abs(a - b) for a, b in zip(row.box, mask.box, strict=True))
        if row.mask is None and row.label_name == mask.label_name
        else 1.0
        for row in rows
    ]
    best = min(range(len(rows)), key=distances.__getitem__)
    if distances[best] <= SAME_BOX:
        rows[best] = rows[best]._replace(mask=mask.mask)
    else:
        report(Problem("unmatched_mask", where, f"expected a box of {mask.label_name} at {mask.box}, found none"))
