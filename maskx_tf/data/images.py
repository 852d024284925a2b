"""Opens the images of a data set and the maps of ids; what cannot be opened is `Unfit`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from maskx_tf import files
from maskx_tf.data.dataset import ImageRecord
from maskx_tf.data.formats.records import MAX_IMAGE_SIDE, Unfit
from maskx_tf.data.paths import first_file
from maskx_tf.errors import BadInput, reason
from maskx_tf.masks.rgb import rotation, upright_rgb

# The types of images, by content; MPO is Pillow's name for the JPEG files of some cameras.
IMAGE_TYPES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
OPENED = [kind for kind in IMAGE_TYPES if kind != "MPO"]  # JPEG's reader makes it
TYPE_NAMES = "JPEG, PNG, BMP, TIFF or WebP"
IMAGE_SUFFIXES = tuple(
    written
    for suffix in (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
    for written in (suffix, suffix.upper())
)
QUARTER_TURNS = (5, 6, 7, 8)  # those that exchange width and height


def find_image(folder: Path, stem: str) -> Path | None:
    """The image of this name without suffix, or None."""
    return first_file([folder / f"{stem}{suffix}" for suffix in IMAGE_SUFFIXES])


@contextmanager
def open_image(file: Path | bytes) -> Iterator[Image.Image]:
    """Yields an image of one of IMAGE_TYPES, of which only the header is read.

    Raises:
        Unfit: the problem is of kind missing_image or broken_image.
    """
    with ExitStack() as stack:
        try:
            stream = io.BytesIO(file) if isinstance(file, bytes) else stack.enter_context(files.open_regular(file))
            image = stack.enter_context(Image.open(stream, formats=OPENED))
        except FileNotFoundError:
            raise Unfit("expected an image, found no such file", "missing_image") from None
        except UnidentifiedImageError:  # whose text names the file, as the message already does
            raise Unfit(f"expected an image: it is no {TYPE_NAMES}", "broken_image") from None
        except Exception as error:  # the decoders raise errors of any type, such as struct.error
            raise Unfit(f"expected an image: {reason(error)}", "broken_image") from None
        yield image


def size_of(file: Path | bytes) -> tuple[int, int]:
    """Width and height of an image as people see it, after EXIF turned it, from its header."""
    with open_image(file) as image:
        turned = rotation(image) in QUARTER_TURNS
        width, height = image.size[::-1] if turned else image.size
        if max(width, height) > MAX_IMAGE_SIDE:
            raise Unfit(f"expected at most {MAX_IMAGE_SIDE} pixels a side, found {width} x {height}", "broken_image")
        return width, height


def is_annotated_unturned(image: Image.Image, width: int, height: int) -> bool:
    """Whether an image with these recorded sizes was annotated without the quarter turn that EXIF asks for."""
    return rotation(image) in QUARTER_TURNS and image.size == (width, height) and width != height


def load_pixels(record: ImageRecord) -> NDArray[np.uint8]:
    """The image in RGB as its annotations see it, uint8 [height, width, 3], decoded to the end.

    Raises:
        Unfit: the problem is of kind missing_image, broken_image or image_size.
    """
    with open_image(record.file) as image:
        try:
            pixels = upright_rgb(image, turn=not is_annotated_unturned(image, record.width, record.height))
        except Exception as error:
            raise Unfit(f"expected a whole image: {reason(error)}", "broken_image") from None
    height, width = pixels.shape[:2]
    if (width, height) != (record.width, record.height):
        found = f"{width} x {height}"
        raise Unfit(f"expected {record.width} x {record.height} pixels, as recorded, found {found}", "image_size")
    return pixels


@contextmanager
def naming(record: ImageRecord, dataset: str) -> Iterator[None]:
    """Makes a BadInput that names the image and its data set of an `Unfit` in the block."""
    try:
        yield
    except Unfit as problem:
        file = "" if isinstance(record.file, bytes) else f"{record.file}: "
        raise BadInput(f"{file}image {record.id} of {dataset}: {problem}") from None


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
            raise Unfit(f"expected a whole image: {reason(error)}", "broken_image") from None
    if image.mode in ("RGB", "RGBA") and (values == values[..., :1]).all():
        values = values[..., 0]  # grey, saved in colour
    if values.ndim != 2 or values.dtype.kind not in "uib":
        raise Unfit(f"expected one id a pixel, found pixels of mode {image.mode}", "broken_mask")
    return values.astype(np.int32)
