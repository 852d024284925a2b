"""COCO's run-length masks: checked before C code sees them, and made from bitmaps and maps of ids.

pycocotools believes what it reads: run lengths that do not add up to the image overwrite memory that is not theirs. So
every mask from a file passes through `checked`, and the rest of the program never sees another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from maskx_tf.data.dataset import Box, Rle
from maskx_tf.data.formats.records import Unfit, show, unfit
from maskx_tf.masks.rle import run_lengths


class Region(NamedTuple):
    """The pixels of one id in a map: its value, the box around them, and the mask."""

    value: int
    box: Box
    rle: Rle


def checked(segmentation: Mapping[str, Any], height: int, width: int) -> Rle:
    """A run-length mask as a file has it, list or text, in the compressed form.

    Raises:
        Unfit: it is no mask of an image of this size.
    """
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) for side in size):
        raise unfit("segmentation.size", "[height, width]", size)
    if size != [height, width]:
        raise Unfit(f"segmentation.size: expected [{height}, {width}], the image's, found {show(size)}", "rle_size")
    runs = _runs(counts)
    if (runs < 0).any() or runs.sum() != height * width:
        raise Unfit(
            f"segmentation.counts: expected runs that add up to {height * width}, found {runs.sum()}", "broken_mask"
        )
    if isinstance(counts, str):
        return {"size": [height, width], "counts": counts}
    return compress(runs, height, width)


def _runs(counts: object) -> NDArray[np.int64]:
    """The lengths of the runs, of any sign."""
    if isinstance(counts, str):
        return _decompressed(counts)
    if not isinstance(counts, list) or not all(isinstance(run, int) and abs(run) < 2**31 for run in counts):
        raise unfit("segmentation.counts", "text or a list of whole numbers", counts)
    return np.array(counts, np.int64)


def _decompressed(text: str) -> NDArray[np.int64]:
    try:
        return run_lengths(text)
    except ValueError:
        raise Unfit(
            f"segmentation.counts: expected run lengths in COCO's text form, found {show(text)}", "broken_mask"
        ) from None


def compress(runs: NDArray[np.int64], height: int, width: int) -> Rle:
    """Run lengths that add up to the image, in the compressed form."""
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


def area(rle: Rle) -> int:
    """How many pixels a checked mask has."""
    return int(coco_mask.area(rle))


def extent(rle: Rle) -> Box:
    """The box around the pixels of a checked mask."""
    x, y, width, height = (float(number) for number in coco_mask.toBbox(rle))
    return x, y, x + width, y + height


def encode(bitmap: NDArray[np.bool_]) -> Rle:
    """A bitmap in the compressed form."""
    rle = coco_mask.encode(np.asfortranarray(bitmap, np.uint8))
    return {"size": list(bitmap.shape), "counts": rle["counts"].decode("ascii")}


def regions(ids: NDArray[np.integer], least: int = 1) -> list[Region]:
    """What a map of ids holds.

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
        rle = compress(_runs_of(group, height * width), height, width)
        found.append(Region(int(values[order[first]]), box, rle))
    return found


def _runs_of(places: NDArray[np.intp], size: int) -> NDArray[np.int64]:
    """Run lengths of a mask whose pixels stand at these rising places."""
    gaps = np.flatnonzero(np.diff(places) != 1)
    starts = places[np.concatenate([[0], gaps + 1])]
    stops = places[np.concatenate([gaps, [-1]])] + 1
    edges = np.stack([starts, stops], axis=1).reshape(-1)
    runs = np.diff(edges, prepend=0, append=size).astype(np.int64)
    return runs if runs[-1] else runs[:-1]  # as pycocotools writes a mask that ends with the image
