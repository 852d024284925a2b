"""COCO's run-length masks: checked before C code sees them, measured, and made from bitmaps, crops and maps of ids.

pycocotools does not check run lengths: if they do not add up to the image, it overwrites other memory. So every mask
from a file passes through `checked`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from maskx_tf.errors import shorten
from maskx_tf.files import Json, JsonView
from maskx_tf.masks.paste import Crop

Rle = Json  # {"size": [height, width], "counts": COCO's compressed text}, checked when it was read

MOST_LETTERS = 7  # letters of a number, of 5 bits each: 35 bits, more than any image has pixels
LONGEST_RUN = 2**31


class RleError(ValueError):
    """Run lengths that are no mask of an image.

    Attributes:
        kind: a kind of `data.problems`: malformed, rle_size or broken_mask.
    """

    def __init__(self, what: str, kind: str = "broken_mask") -> None:
        super().__init__(what)
        self.kind = kind


class Region(NamedTuple):
    """The pixels of one id in a map: its value, the box (x1, y1, x2, y2) around them, and the mask."""

    value: int
    box: tuple[float, float, float, float]
    rle: Rle


def checked(segmentation: JsonView, height: int, width: int) -> Rle:
    """A run-length mask in the compressed form.

    Args:
        segmentation: {"size": [height, width], "counts": text, bytes or list}.
        height: the height of the image.
        width: the width of the image.

    Raises:
        RleError: it is no mask of an image of this size.
    """
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) for side in size):
        raise RleError(f"size: expected [height, width], found {shorten(size)}", "malformed")
    if size != [height, width]:
        raise RleError(f"size: expected [{height}, {width}], the image's, found {shorten(size)}", "rle_size")
    if isinstance(counts, str | bytes):
        runs = run_lengths(counts)
    elif isinstance(counts, list) and all(isinstance(run, int) and abs(run) < LONGEST_RUN for run in counts):
        runs = np.array(counts, np.int64)
    else:
        raise RleError(f"counts: expected text or a list of whole numbers, found {shorten(counts)}", "malformed")
    if (runs < 0).any() or runs.sum() != height * width:
        raise RleError(f"counts: expected runs that add up to {height * width}, found {runs.sum()}")
    if isinstance(counts, list):
        return _compressed(runs, height, width)
    return {"size": [height, width], "counts": counts if isinstance(counts, str) else counts.decode("ascii")}


def run_lengths(text: str | bytes) -> NDArray[np.int64]:
    """The lengths of the runs, background first, of any sign.

    The text holds 5 bits a letter, lowest first; from the fourth number on, differences to the last but one.

    Raises:
        RleError: the text is not in COCO's form.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    letters = np.frombuffer(raw, np.uint8).astype(np.int64) - 48
    is_last = letters & 0x20 == 0
    if not letters.size or ((letters < 0) | (letters > 63)).any() or not is_last[-1]:
        raise RleError(f"counts: expected run lengths in COCO's text form, found {shorten(text)}")
    stops = np.flatnonzero(is_last)
    starts = np.concatenate([[0], stops[:-1] + 1])
    lengths = stops - starts + 1
    if lengths.max() > MOST_LETTERS:
        raise RleError("counts: expected run lengths within an image, found a number larger than any")
    place = np.arange(letters.size) - np.repeat(starts, lengths)
    runs: NDArray[np.int64] = np.add.reduceat((letters & 0x1F) << (5 * place), starts)
    runs -= np.where(letters[stops] & 0x10, 1 << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def of_any_form(segmentation: Sequence[Sequence[float]] | JsonView, height: int, width: int) -> Rle:
    """A checked segmentation in any of COCO's forms (polygons, list or text of runs), in the compressed form."""
    if isinstance(segmentation, Mapping):
        counts = segmentation["counts"]
        return _compressed(np.array(counts, np.int64), height, width) if isinstance(counts, list) else {**segmentation}
    return _as_text(coco_mask.merge(coco_mask.frPyObjects([*segmentation], height, width)))


def area(rle: Rle) -> int:
    """How many pixels a checked mask has."""
    return int(coco_mask.area(rle))


def extent(rle: Rle) -> tuple[float, float, float, float]:
    """The box (x1, y1, x2, y2) around the pixels of a checked mask."""
    x, y, width, height = (float(number) for number in coco_mask.toBbox(rle))
    return x, y, x + width, y + height


def bitmap_of(rle: Rle) -> NDArray[np.bool_]:
    """A checked mask in full, bool [height, width]."""
    return np.asarray(coco_mask.decode(rle), bool)


def places(rle: Rle) -> NDArray[np.int64]:
    """Where the pixels of a checked mask stand, counted down the columns, ascending."""
    runs = run_lengths(rle["counts"])
    lengths = runs[1::2]
    firsts = (np.cumsum(runs) - runs)[1::2]
    places_before = np.cumsum(lengths) - lengths
    return np.repeat(firsts - places_before, lengths) + np.arange(lengths.sum())


def encode(bitmap: NDArray[np.bool_]) -> Rle:
    """A bitmap [height, width] in the compressed form."""
    return _as_text(coco_mask.encode(np.asfortranarray(bitmap, np.uint8)))


def encode_crop(crop: Crop, height: int, width: int) -> Rle:
    """The compressed form of an image's mask, from the pixels of a box.

    Args:
        crop: lies inside the image.
        height: the height of the image.
        width: the width of the image.
    """
    rows, columns = crop.pixels.shape
    # COCO counts down the columns; only those that the box has are written out.
    strip = np.zeros([columns, height], bool)
    strip[:, crop.top : crop.top + rows] = crop.pixels.T
    flat = np.concatenate([[False], strip.reshape(-1), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + crop.left * height
    return _compressed(_runs_between(changes, height * width), height, width)


def regions(ids: NDArray[np.integer], least: int = 1) -> list[Region]:
    """The regions of a map of ids.

    One sort over the pixels that belong to something, however many ids there are: maps of Cityscapes have two million
    pixels, of which a tenth does.

    Args:
        ids: [height, width].
        least: smaller ids mean nothing.

    Returns:
        A region for each id from `least` on, in the order of the ids.
    """
    height, width = ids.shape
    columns = ids.T.reshape(-1)  # COCO counts down the columns
    places = np.flatnonzero(columns >= least)
    values = columns[places]
    order = np.argsort(values, kind="stable")
    firsts = np.flatnonzero(np.diff(values[order], prepend=least - 1))
    groups = np.split(places[order], firsts[1:]) if firsts.size else []
    found = []
    for first, group in zip(firsts, groups, strict=True):
        column, row = group // height, group % height
        box = (float(column[0]), float(row.min()), float(column[-1] + 1), float(row.max() + 1))
        rle = _compressed(_runs_of(group, height * width), height, width)
        found.append(Region(int(values[order[first]]), box, rle))
    return found


def _runs_of(places: NDArray[np.intp], size: int) -> NDArray[np.int64]:
    """Run lengths of a mask whose pixels stand at these ascending places."""
    gaps = np.flatnonzero(np.diff(places) != 1)
    starts = places[np.concatenate([[0], gaps + 1])]
    stops = places[np.concatenate([gaps, [-1]])] + 1
    return _runs_between(np.stack([starts, stops], axis=1).reshape(-1), size)


def _runs_between(changes: NDArray[np.intp], size: int) -> NDArray[np.int64]:
    """Run lengths of a mask whose pixels change at these ascending places."""
    runs = np.diff(changes, prepend=0, append=size).astype(np.int64)
    return runs if runs[-1] or runs.size == 1 else runs[:-1]  # as pycocotools writes a mask that ends with the image


def _compressed(runs: NDArray[np.int64], height: int, width: int) -> Rle:
    """Run lengths that add up to the image, in the compressed form."""
    return _as_text(coco_mask.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width))


def _as_text(rle: JsonView) -> Rle:
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}
