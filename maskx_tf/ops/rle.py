"""COCO's run lengths in their text form, read with care: pycocotools believes whatever it is given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
