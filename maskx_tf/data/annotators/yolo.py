"""Reads and writes what YOLO learns segmentation from: data.yaml, and a text file of polygons for each image.

    data.yaml            names: {0: cat, 1: dog}
    labels/a/b.txt       for images/a/b.jpg, a line an object: the number of its class, and x1 y1 x2 y2 ... of a
                         polygon, or centre x, centre y, width and height of a box; as shares of the image's sides

`labels` lies next to data.yaml, or next to the folder `images`: train/labels/b.txt is for train/images/b.jpg.

A line has one polygon. The parts of a mask are joined by bridges without width; holes are covered.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from maskx_tf import files
from maskx_tf.data.dataset import Box, Dataset, ImageRecord, Instance, bitmap
from maskx_tf.data.formats import records as fields
from maskx_tf.data.formats import segmentations
from maskx_tf.data.formats.coco_write import relative_name
from maskx_tf.data.formats.records import Unfit
from maskx_tf.data.images import IMAGE_SUFFIXES, size_of
from maskx_tf.data.paths import first_file, list_files
from maskx_tf.data.problems import Problem, Report, noted, refuse
from maskx_tf.data.threads import read_records
from maskx_tf.errors import BadInput, reason
from maskx_tf.masks.polygons import Points, outlines

SETTINGS_FILE, IMAGES_FOLDER, LABELS_FOLDER = "data.yaml", "images", "labels"
NAMES_FILE = "classes.txt"  # some tools write it next to the text files
DIGITS = 7  # decimal digits of a share: a hundredth of a pixel in the largest image


def read(images: Path, annotations: Path, report: Report = refuse) -> Dataset:
    """Reads a data set; images without a text file have no objects.

    Args:
        images: the folder of the images.
        annotations: data.yaml, or its folder.
        report: receives every problem.

    Raises:
        BadInput: there is no text file for any of the images.
    """
    settings = annotations / SETTINGS_FILE if annotations.is_dir() else annotations
    names = _names(settings)
    labels = settings.parent / LABELS_FOLDER
    paths: dict[Path, Path] = {}
    for path in list_files(images, "*", "images"):
        if path.suffix in IMAGE_SUFFIXES and paths.setdefault(path.with_suffix(""), path) != path:
            report(Problem("duplicate", path.name, "expected one image of this name, found another suffix"))
    if not paths:
        raise BadInput(f"{images}: expected images, found none")
    renamed = {path: _renamed(path) for path in paths.values()}
    texts = {
        path: first_file([*place, (labels / path.relative_to(images)).with_suffix(".txt")])
        for path, place in renamed.items()
    }
    used = {text for text in texts.values() if text is not None}
    if not used:
        raise BadInput(f"{labels}: expected a text file for an image of {images}, found none")
    # Only these folders belong to one folder of images; a folder next to data.yaml may serve several.
    own = {text.parent for place in renamed.values() for text in used.intersection(place)}
    for text in sorted({text for folder in own for text in folder.glob("*.txt")} - used):
        if text.name != NAMES_FILE and not text.name.startswith("."):
            report(Problem("unknown_image", str(text), "expected an image of this name, found none"))

    def read_one(path: Path, tell: Report) -> ImageRecord:
        image = ImageRecord(path.relative_to(images).with_suffix("").as_posix(), path, *size_of(path))
        text = texts[path]
        lines = [] if text is None else files.read_text(text).splitlines()
        instances = []
        for number, line in enumerate(lines, 1):
            where = f"{text}: line {number}"
            with noted(tell, where):
                if line.split():
                    instances.append(_instance(line.split(), image, len(names), number, where, tell))
        return image._replace(instances=tuple(instances))

    records = read_records(list(paths.values()), lambda path: path.relative_to(images).as_posix(), read_one, report)
    return Dataset(settings.parent.name, tuple(names), tuple(range(len(names))), records)


def _renamed(path: Path) -> list[Path]:
    """The place of an image's text file if the last folder `images` is renamed; nothing without such a folder."""
    *folders, _ = path.parts
    if IMAGES_FOLDER not in folders:
        return []
    last = len(folders) - 1 - folders[::-1].index(IMAGES_FOLDER)
    return [Path(*folders[:last], LABELS_FOLDER, *path.parts[last + 1 :]).with_suffix(".txt")]


def _names(path: Path) -> list[str]:
    try:
        data = fields.mapping(yaml.safe_load(files.read_text(path)), "file")
        named = data.get("names")
        pairs = list(enumerate(named)) if isinstance(named, list) else list(fields.mapping(named, "names").items())
        if [str(number) for number, _ in pairs] != [str(number) for number in range(len(pairs))]:
            raise fields.unfit("names", "a list, or numbers 0, 1, 2, ... with names", named)
        names = [fields.as_text(name, f"names[{number}]") for number, name in pairs]
    except Unfit as problem:
        raise BadInput(f"{path}: {problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that is none
        raise BadInput(f"{path}: expected YAML: {reason(error)}") from None
    if not names or len(set(names)) < len(names):
        raise BadInput(f"{path}: names: expected names, each once")
    return names


def _instance(
    words: Sequence[str], image: ImageRecord, classes: int, number: int, where: str, report: Report
) -> Instance:
    label = fields.as_number(words[0], "class", 0, classes - 1)
    if label != int(label):
        raise fields.unfit("class", "a whole number", words[0])
    sides = np.array([image.width, image.height], float)
    shares = [fields.as_number(word, "number", -1, 2) for word in words[1:]]
    if len(shares) == 4:
        centre, size = np.array(shares[:2]) * sides, np.array(shares[2:]) * sides
        low, high = centre - size / 2, centre + size / 2
        return Instance(_box(low, high), int(label) + 1, id=number)
    if len(shares) < 6 or len(shares) % 2:
        raise Unfit(f"expected a box of 4 numbers, or a polygon of 6 or more, found {len(shares)}", "short_polygon")
    points = np.reshape(shares, [-1, 2]) * sides
    polygon = segmentations.polygon(points.ravel().tolist(), image)
    if not segmentations.encloses(polygon):
        report(Problem("short_polygon", where, "expected a polygon with an area, found points on a line"))
    mask = (polygon,) if segmentations.encloses(polygon) else None
    return Instance(_box(points.min(axis=0), points.max(axis=0)), int(label) + 1, segmentation=mask, id=number)


def _box(low: Points, high: Points) -> Box:
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def write(dataset: Dataset, out: Path, images: Path) -> None:
    """Writes a data set into a new folder; crowds are left out, and images stay where they are.

    Args:
        dataset: what to write.
        out: the folder; YOLO looks for the images in `images` there.
        images: the folder to which the names of files are relative.

    Raises:
        BadInput: an image lies outside of the folder, or two images would have one text file.
    """
    texts = [Path(relative_name(image, images)).with_suffix(".txt") for image in dataset.images]
    for text in texts:
        if ".." in text.parts:
            raise BadInput(f"{text.with_suffix('')}: expected images in {images}, because the labels lie as they do")
    if len(set(texts)) < len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise BadInput(f"{twice.with_suffix('')}: expected one image of this name, found another suffix")
    with files.new_folder(out) as unfinished:
        names = "".join(f"  {number}: {files.as_json(name)}" for number, name in enumerate(dataset.class_names))
        (unfinished / SETTINGS_FILE).write_text(
            f"path: .\ntrain: images\nval: images\nnames:\n{names}", encoding="utf-8"
        )
        for image, text in zip(dataset.images, texts, strict=True):
            path = unfinished / LABELS_FOLDER / text
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [_line(one, image) for one in image.instances if not one.crowd]
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _line(one: Instance, image: ImageRecord) -> str:
    sides = np.array([image.width, image.height], float)
    parts = []
    if one.segmentation is not None:
        parts = outlines(bitmap(one.segmentation, image.height, image.width))
    if parts:
        numbers = joined(parts) / sides
    else:
        low, high = np.array(one.box[:2]), np.array(one.box[2:])
        numbers = np.stack([(low + high) / 2, high - low]) / sides
    return " ".join([str(one.label - 1), *(f"{number:.{DIGITS}f}" for number in numbers.ravel())])


def joined(parts: Sequence[Points]) -> Points:
    """Joins polygons into one, by bridges without width between nearest points."""
    whole = parts[0]
    for part in parts[1:]:
        distances = ((whole[:, None] - part[None]) ** 2).sum(axis=2)
        at, first = (int(index) for index in np.unravel_index(distances.argmin(), distances.shape))
        around = np.roll(part, -first, axis=0)
        whole = np.concatenate([whole[: at + 1], around, around[:1], whole[at:]])
    return whole
