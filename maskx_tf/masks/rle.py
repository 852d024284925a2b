"""COCO's run lengths in their text form, read with care, for pycocotools believes anything, and made of crops."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from maskx_tf.masks.paste import Crop

# A number is at most so many letters of 5 bits: 35 bits, more than any image has pixels.
MOST_LETTERS = 7


def run_lengths(text: str | bytes) -> NDArray[np.int64]:
    """The lengths of the runs, background first, of any sign.

    The text holds 5 bits a letter, lowest first; from the fourth number on, differences to the last but one.

    Raises:
        ValueError: the text is none of COCO's.
    """
    try:
        raw = text.encode("ascii") if isinstance(text, str) else text
    except UnicodeEncodeError:
        raise ValueError("the run lengths have a letter that COCO's text form has not") from None
    letters = np.frombuffer(raw, np.uint8).astype(np.int64) - 48
    is_last = letters & 0x20 == 0
    if not letters.size or ((letters < 0) | (letters > 63)).any() or not is_last[-1]:
        raise ValueError("the run lengths are not in COCO's text form")
    stops = np.flatnonzero(is_last)
    starts = np.concatenate([[0], stops[:-1] + 1])
    lengths = stops - starts + 1
    if lengths.max() > MOST_LETTERS:
        raise ValueError("the run lengths hold a number larger than any image")
    place = np.arange(letters.size) - np.repeat(starts, lengths)
    runs: NDArray[np.int64] = np.add.reduceat((letters & 0x1F) << (5 * place), starts)
    runs -= np.where(letters[stops] & 0x10, 1 << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def encode_crop(crop: Crop, height: int, width: int) -> dict[str, Any]:
    """The run lengths {"size", "counts": text} of an image's mask of which only a box's pixels are at hand.

    Args:
        crop: lies inside the image.
        height: of the image.
        width: of the image.
    """
    rows, columns = crop.pixels.shape
    # COCO counts down the columns; only those that the box has are written out.
    strip = np.zeros([columns, height], bool)
    strip[:, crop.top : crop.top + rows] = crop.pixels.T
    flat = np.concatenate([[False], strip.reshape(-1), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + crop.left * height
    runs = np.diff(changes, prepend=0, append=height * width)
    if not runs[-1] and runs.size > 1:  # as pycocotools writes a mask that ends with the image
        runs = runs[:-1]
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}
