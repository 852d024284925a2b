"""Images of any kind that Pillow reads as RGB of 8 bits: the same for training, prediction and a served model."""

from __future__ import annotations

import os
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from maskx_tf.errors import BadInput, reason
from maskx_tf.files import open_regular

ROTATION = 0x0112  # EXIF's tag of how the camera was held
TURNS = {  # its values, and the transposition that turns the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow warns of large images (those that would fill the memory are errors) and of odd metadata. Once for all: images
# are opened in threads, where warnings cannot be switched off for a while.
warnings.filterwarnings("ignore", module=r"PIL\.")


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """The pixels of an image file as people see them, uint8 [H, W, 3]; see `upright_rgb`.

    Raises:
        BadInput: the file is no readable image.
    """
    try:
        with open_regular(path) as file, Image.open(file) as image:
            return upright_rgb(image)
    except UnidentifiedImageError:
        raise BadInput(f"{os.fspath(path)}: expected an image, found a file of another kind") from None
    except Exception as error:  # the decoders raise errors of any type, such as struct.error
        raise BadInput(f"{os.fspath(path)}: expected an image: {reason(error)}") from None


def upright_rgb(image: Image.Image, *, turn: bool = True) -> NDArray[np.uint8]:
    """The pixels of an image, uint8 [H, W, 3], decoded to the end.

    Grey images get three equal channels, of 16 bits the upper 8 stay, transparency is dropped.

    Args:
        image: an image in any mode but F.
        turn: bring it upright by its EXIF orientation.

    Raises:
        Exception: an error of any type, from Pillow's decoders.
    """
    image.load()
    how = TURNS.get(rotation(image)) if turn else None
    return np.asarray(to_rgb(image if how is None else image.transpose(how)))


def rotation(image: Image.Image) -> int:
    """The EXIF orientation of an image, 1 for upright."""
    if image.format == "TIFF":  # Pillow turns these itself
        return 1
    try:
        return int(image.getexif().get(ROTATION, 1))
    except Exception:  # broken EXIF data, which no decoder of pixels minds
        return 1


def to_rgb(image: Image.Image) -> Image.Image:
    """An image in RGB: grey gets three equal channels, transparency is dropped, of 16 bits the upper 8 stay.

    That is what TensorFlow's decoders make of them; Pillow by itself would cut 16 bits off at 255.

    Raises:
        ValueError: its pixels are floating point numbers, whose range nobody knows.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floating point numbers, expected 8 or 16 bits")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8))
    elif image.mode == "P":
        image = image.convert("RGBA")  # converted directly to RGB, Pillow would warn of the transparency
    return image.convert("RGB")
