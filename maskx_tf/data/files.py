"""Opens what a data set consists of: text, JSON, CSV, images and maps of ids. What cannot be opened is `BadInput`."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from maskx_tf.data.dataset import ImageRecord
from maskx_tf.data.formats.records import MAX_SIDE, Unfit, show
from maskx_tf.data.problems import Problem, Report
from maskx_tf.errors import BadInput
from maskx_tf.masks.rgb import to_rgb

# What is taken for an image, by what it holds; MPO is how Pillow calls the JPEG files of some cameras.
IMAGE_TYPES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
OPENED = [kind for kind in IMAGE_TYPES if kind != "MPO"]  # JPEG's reader makes it
TYPES = "JPEG, PNG, BMP, TIFF or WebP"
IMAGE_SUFFIXES = tuple(
    written
    for suffix in (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
    for written in (suffix, suffix.upper())
)
ROTATION = 0x0112  # EXIF's tag of how the camera was held
TURNS = {  # its values, and what brings the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
QUARTER_TURNS = (5, 6, 7, 8)  # those that exchange width and height

# Pillow warns of large images (those that would fill the memory are errors) and of odd metadata. Once for all: images
# are opened in threads, where warnings cannot be switched off for a while.
warnings.filterwarnings("ignore", module=r"PIL\.")

T = TypeVar("T")
U = TypeVar("U")


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(function: Callable[[T, Report], U], items: Sequence[T], report: Report) -> Iterator[U]:
    """What a function makes of each item, in order, and so are the problems that it reports.

    Threads, because decoding an image lets other threads run.
    """

    def run(item: T) -> tuple[U, list[Problem]]:
        problems: list[Problem] = []
        return function(item, problems.append), problems

    pool = ThreadPoolExecutor(cores())
    try:
        for result, problems in pool.map(run, items):
            for problem in problems:
                report(problem)
            yield result
    finally:  # neither an interrupt nor a problem waits for a hundred thousand images
        pool.shutdown(cancel_futures=True)


def read_text(path: Path) -> str:
    """A text file in UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: expected UTF-8 text, found byte 0x{error.object[error.start]:02x}") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise BadInput(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def read_json(path: Path) -> Any:
    """The data in a JSON file."""
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}: expected JSON: line {error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # a number of 5000 digits; brackets in brackets in brackets
        raise BadInput(f"{path}: expected JSON: {error}") from None


def read_csv(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with a header, beside their line numbers; each has all of these columns."""
    text = read_text(path)
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise BadInput(f"{path}: line 1: expected a column {missing[0]}, found {show(reader.fieldnames)}")
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise BadInput(f"{path}: expected CSV: {error}") from None


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file beside its place and renames it, so that nobody ever sees half of it."""
    try:
        if path.is_dir():  # such as "" and "/", which have no name to write beside
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            beside.write_bytes(data)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from None


def listed(folder: Path, pattern: str, expected: str) -> list[Path]:
    """The files of a folder and its subfolders that match, sorted; one at least."""
    if not folder.is_dir():
        raise BadInput(f"{folder}: expected a folder with {expected}")
    found = sorted(path for path in folder.rglob(pattern) if not path.name.startswith("."))
    if not found:
        raise BadInput(f"{folder}: expected {expected}, found no {pattern}")
    check_names(found)
    return found


def check_names(paths: Sequence[Path]) -> None:
    """Raises BadInput for a name that is no text, which a disk can hold, but neither a screen nor JSON."""
    for path in paths:
        try:
            path.as_posix().encode()
        except UnicodeEncodeError:
            raise BadInput(f"{path.parent.as_posix()!r}: expected names in UTF-8, found {path.name!r}") from None


def find_image(folder: Path, stem: str) -> Path | None:
    """The image of this name without suffix."""
    return first([folder / f"{stem}{suffix}" for suffix in IMAGE_SUFFIXES])


def first(paths: Sequence[Path]) -> Path | None:
    """The first of these files that is there; a name that no file can have is not."""
    return next((path for path in paths if os.path.isfile(path)), None)  # Path.is_file raises for such names


def open_image(file: Path | bytes) -> Image.Image:
    """An image of one of IMAGE_TYPES, of which the header alone is read.

    Raises:
        Unfit: of the kinds missing_image and broken_image.
    """
    try:
        return Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=OPENED)
    except FileNotFoundError:
        raise Unfit("expected an image, found no such file", "missing_image") from None
    except Exception as error:  # the decoders raise whatever occurs to them, struct.error for one
        raise Unfit(f"expected an image: {_reason(error)}", "broken_image") from None


def size_of(file: Path | bytes) -> tuple[int, int]:
    """Width and height of an image as people see it, after EXIF turned it, from its header."""
    with open_image(file) as image:
        turned = _rotation(image) in QUARTER_TURNS
        width, height = image.size[::-1] if turned else image.size
        if max(width, height) > MAX_SIDE:
            raise Unfit(f"expected at most {MAX_SIDE} pixels a side, found {width} x {height}", "broken_image")
        return width, height


def _rotation(image: Image.Image) -> int:
    if image.format == "TIFF":  # which Pillow turns itself
        return 1
    try:
        return int(image.getexif().get(ROTATION, 1))
    except Exception:  # broken EXIF data, which no decoder of pixels minds
        return 1


def is_annotated_unturned(image: Image.Image, width: int, height: int) -> bool:
    """Whether the annotator of an image of these sizes saw it as it is stored, though EXIF gives it a quarter turn."""
    return _rotation(image) in QUARTER_TURNS and image.size == (width, height) and width != height


def pixels(record: ImageRecord) -> NDArray[np.uint8]:
    """The image in RGB as its annotations see it, uint8 [height, width, 3], decoded to the end.

    Raises:
        Unfit: of the kinds missing_image, broken_image and image_size.
    """
    with open_image(record.file) as image:
        try:
            as_stored = is_annotated_unturned(image, record.width, record.height)
            image.load()
            turn = None if as_stored else TURNS.get(_rotation(image))
            upright = image if turn is None else image.transpose(turn)
            colour = to_rgb(upright)
        except Exception as error:
            raise Unfit(f"expected a whole image: {_reason(error)}", "broken_image") from None
    if colour.size != (record.width, record.height):
        found = f"{colour.width} x {colour.height}"
        raise Unfit(f"expected {record.width} x {record.height} pixels, as recorded, found {found}", "image_size")
    return np.asarray(colour)


def id_map(file: Path | bytes) -> NDArray[np.int32]:
    """An image whose pixels are ids, [height, width]: grey of 8 or 16 bits, or with a palette.

    Raises:
        Unfit: it cannot be read, or its pixels are no ids.
    """
    with open_image(file) as image:
        if image.format == "JPEG":
            raise Unfit("expected a PNG file of ids, found a JPEG file, which blurs them", "broken_mask")
        try:
            values = np.asarray(image.convert({"RGBA": "RGB", "LA": "L"}.get(image.mode, image.mode)))
        except Exception as error:
            raise Unfit(f"expected a whole image: {_reason(error)}", "broken_image") from None
    if image.mode in ("RGB", "RGBA") and (values == values[..., :1]).all():
        values = values[..., 0]  # grey, saved in colour
    if values.ndim != 2 or values.dtype.kind not in "uib":
        raise Unfit(f"expected one id a pixel, found pixels of mode {image.mode}", "broken_mask")
    return values.astype(np.int32)


def _reason(error: Exception) -> str:
    """What a decoder says, in one line."""
    if isinstance(error, UnidentifiedImageError):  # which names the file, as the message already does
        return f"it is no {TYPES}"
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
