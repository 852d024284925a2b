"""Reads and writes Label Studio's JSON: a list of tasks, one an image.

Polygons, ellipses and brushes are masks, rectangles are boxes only. Coordinates are per cent of the image. A brush is a
list of bytes in Label Studio's own coding (`unpacked`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from maskx_tf import files
from maskx_tf.data.dataset import Dataset, ImageRecord, Instance, bitmap
from maskx_tf.data.formats import records as fields
from maskx_tf.data.formats import shapes
from maskx_tf.data.formats.coco_write import relative_name
from maskx_tf.data.formats.records import MAX_IMAGE_SIDE, Unfit
from maskx_tf.data.images import size_of
from maskx_tf.data.paths import first_file
from maskx_tf.data.problems import Report, each_noted, refuse
from maskx_tf.errors import BadInput, shorten
from maskx_tf.files import Json, JsonView

CHANNELS = 4  # channels of a brush: red, green, blue, and alpha, which is the mask
COUNT_BITS, WORD_BITS, SIZE_BITS, CHOICE_BITS = 32, 5, 4, 2
RUN_SIZES = (4, 8, 13, 16)  # bits of the lengths of runs that we write
BYTE = 8
SHAPES = ("rectanglelabels", "polygonlabels", "ellipselabels", "brushlabels")


def read(images: Path, annotations: Path, report: Report = refuse) -> Dataset:
    """Reads a data set; of several annotations of a task, the last that was not cancelled.

    Args:
        images: the folder of the images.
        annotations: the JSON file that Label Studio exports.
        report: receives every problem.
    """
    tasks = files.read_json(annotations)
    if not isinstance(tasks, list):
        raise BadInput(f"{annotations}: expected a list of tasks of Label Studio, found {shorten(tasks)}")
    places = ((f"{annotations.name}: task {number}", task) for number, task in enumerate(tasks))
    drawings = each_noted(places, lambda task, where: _drawing(fields.mapping(task), images, where, report), report)
    return shapes.dataset(annotations.name, drawings, report)


def _drawing(task: JsonView, images: Path, where: str, report: Report) -> shapes.Drawing:
    file = _file(images, fields.text(fields.mapping(task.get("data"), "data"), "image"))
    results = _results(task)
    sized = [one for one in results if one.get("original_width") is not None]
    if sized:
        width, height = (fields.whole(sized[0], f"original_{side}", 1, MAX_IMAGE_SIDE) for side in ("width", "height"))
    else:
        width, height = size_of(file)
    name = file.relative_to(images) if file.is_relative_to(images) else Path(file.name)
    image = ImageRecord(name.with_suffix("").as_posix(), file, width, height)
    places = ((f"{where}: result {number}", result) for number, result in enumerate(results))
    return shapes.Drawing(where, image, each_noted(places, lambda result, _: _shape(result, image), report))


def _results(task: JsonView) -> list[JsonView]:
    given = [fields.mapping(entry) for _, entry in fields.entries(task, "annotations")]
    done = [one for one in given if not one.get("was_cancelled")]
    return [fields.mapping(entry) for _, entry in fields.entries(done[-1], "result")] if done else []


def _file(images: Path, address: str) -> Path:
    """The image of a task: its address is a path, or a URL that ends in one, or has one as `?d=`."""
    try:
        parts = urlsplit(address)
    except ValueError:  # such as a bracket that is not closed
        raise fields.unfit("data.image", "an image", address) from None
    path = parse_qs(parts.query).get("d", [unquote(parts.path)])[0].lstrip("/")
    if not path or "\0" in path:
        raise fields.unfit("data.image", "an image", address)
    steps = Path(path).parts
    places = [images.joinpath(*steps[index:]) for index in range(len(steps))]
    return first_file(places) or places[-1]


def _shape(result: JsonView, image: ImageRecord) -> shapes.DrawnShape:
    kind = result.get("type")
    if kind not in SHAPES:
        raise shapes.skipped(shorten(kind))
    value = fields.mapping(result.get("value"), "value")
    names = value.get(kind)
    if not isinstance(names, list) or len(names) != 1:
        raise fields.unfit(kind, "one label", names)
    name = fields.as_text(names[0], kind)
    if kind == "brushlabels":
        pixels = unpacked(value.get("rle"), image)
        rows, columns = (np.flatnonzero(pixels.any(axis=axis)) for axis in (1, 0))
        if not rows.size:
            raise Unfit("rle: expected a mask, found no pixel", "broken_mask")
        box = shapes.rectangle(name, int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        return box._replace(mask=shapes.painted(pixels, 0, 0, image))
    across, down = image.width / 100, image.height / 100
    if kind == "polygonlabels":
        pairs = [point for _, point in fields.entries(value, "points")]
        if any(not isinstance(point, list) or len(point) != 2 for point in pairs):
            raise fields.unfit("points", "[[x, y], ...]", pairs)
        numbers = [(fields.as_number(x, "x") * across, fields.as_number(y, "y") * down) for x, y in pairs]
        return shapes.outlined(name, numbers)
    x, y = fields.number(value, "x") * across, fields.number(value, "y") * down
    turn = math.radians(fields.as_number(value.get("rotation", 0), "rotation"))
    if kind == "ellipselabels":
        rx, ry = fields.number(value, "radiusX") * across, fields.number(value, "radiusY") * down
        return shapes.ellipse(name, x, y, rx, ry, turn)
    width, height = fields.number(value, "width") * across, fields.number(value, "height") * down
    corners = [(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)]  # turned around the first one
    xs = [x + right * math.cos(turn) - below * math.sin(turn) for right, below in corners]
    ys = [y + right * math.sin(turn) + below * math.cos(turn) for right, below in corners]
    return shapes.rectangle(name, min(xs), min(ys), max(xs), max(ys))


def unpacked(data: Any, image: ImageRecord) -> NDArray[np.bool_]:
    """The mask in a brush, bool [height, width].

    A stream of bits: how many values there are (32 bits), bits of a value less 1 (5), bits of a length less 1 in each
    of four sizes (4 each). Then blocks: whether it is a run (1), which size its length has (2), its length less 1, and
    one value for a run, or as many values as it is long.

    Raises:
        Unfit: it is no brush of this image.
    """
    if not isinstance(data, list) or not all(isinstance(one, int) and 0 <= one < 256 for one in data):
        raise fields.unfit("rle", "a list of bytes", data)
    bits = np.unpackbits(np.array(data, np.uint8))
    at = 0

    def take(width: int, count: int = 1) -> NDArray[np.int64]:
        """Returns the next numbers, of so many bits each."""
        nonlocal at
        stop = at + width * count
        if stop > len(bits):
            raise Unfit("rle: expected a brush, found one that ends early", "broken_mask")
        numbers = bits[at:stop].reshape(count, width) @ (1 << np.arange(width)[::-1])
        at = stop
        return numbers

    total = take(COUNT_BITS).item()
    if total != image.height * image.width * CHANNELS:
        expected = f"{CHANNELS} values for each of {image.width} x {image.height} pixels"
        raise Unfit(f"rle: expected {expected}, found {total}", "rle_size")
    word = take(WORD_BITS).item() + 1
    sizes = (take(SIZE_BITS, 4) + 1).tolist()
    values, done = np.zeros(total, np.uint32), 0
    while done < total:
        is_run = take(1).item()
        length = take(sizes[take(CHOICE_BITS).item()]).item() + 1
        if done + length > total:
            raise Unfit("rle: expected a brush, found one that is longer than its image", "broken_mask")
        values[done : done + length] = take(word, 1 if is_run else length)
        done += length
    return values.reshape(image.height, image.width, CHANNELS)[..., -1] > 0


def packed(mask: NDArray[np.bool_]) -> list[int]:
    """Returns a mask as a brush that consists of runs only; see `unpacked`."""
    flat = np.repeat(mask.ravel(), CHANNELS)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = [0, *changes.tolist(), flat.size]
    pieces = [
        f"{flat.size:0{COUNT_BITS}b}{BYTE - 1:0{WORD_BITS}b}",
        *(f"{size - 1:0{SIZE_BITS}b}" for size in RUN_SIZES),
    ]
    for start, stop in itertools.pairwise(edges):
        value = f"{255 * int(flat[start]):0{BYTE}b}"
        for length in _lengths(stop - start):
            choice = next(index for index, size in enumerate(RUN_SIZES) if length <= 2**size)
            pieces.append(f"1{choice:0{CHOICE_BITS}b}{length - 1:0{RUN_SIZES[choice]}b}{value}")
    text = "".join(pieces)
    text += "0" * (-len(text) % BYTE)
    return [int(text[index : index + BYTE], 2) for index in range(0, len(text), BYTE)]


def _lengths(length: int) -> Iterator[int]:
    """A length in parts that the largest size can hold."""
    most = 2 ** RUN_SIZES[-1]
    while length > 0:
        yield min(length, most)
        length -= most


def write(dataset: Dataset, out: Path, images: Path) -> None:
    """Writes a data set. Objects with a mask are brushes, others rectangles; crowds are left out.

    Args:
        dataset: what to write.
        out: the JSON file.
        images: the folder to which the names of files are relative.
    """
    tasks = []
    for image in dataset.images:
        results = [_result(dataset, image, one) for one in image.instances if not one.crowd]
        data = {"image": quote(relative_name(image, images))}
        tasks.append({"data": data, "annotations": [{"result": results}]})
    files.write_json(out, tasks, indent=None)


def _result(dataset: Dataset, image: ImageRecord, one: Instance) -> Json:
    name = dataset.class_names[one.label - 1]
    result: Json = {
        "id": str(one.id),
        "from_name": "label",
        "to_name": "image",
        "original_width": image.width,
        "original_height": image.height,
    }
    if one.mask_quality is not None:
        result["score"] = one.mask_quality
    if one.segmentation is not None:
        rle = packed(bitmap(one.segmentation, image.height, image.width))
        return result | {"type": "brushlabels", "value": {"format": "rle", "rle": rle, "brushlabels": [name]}}
    x1, y1, x2, y2 = one.box
    place = {"x": x1 / image.width, "width": (x2 - x1) / image.width}
    place |= {"y": y1 / image.height, "height": (y2 - y1) / image.height}
    value = {key: 100 * share for key, share in place.items()} | {"rotation": 0, "rectanglelabels": [name]}
    return result | {"type": "rectanglelabels", "value": value}
