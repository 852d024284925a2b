"""The page on which a person looks at made masks, the most doubtful ones first."""

from __future__ import annotations

import heapq
import json
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from maskx_tf import visualize
from maskx_tf.data.dataset import ImageRecord
from maskx_tf.data.formats.records import Unfit
from maskx_tf.data.images import load_pixels
from maskx_tf.files import Json
from maskx_tf.masks import rle
from maskx_tf.masks.paste import Crop
from maskx_tf.report import doubts
from maskx_tf.report.gallery import jpeg
from maskx_tf.structures import Detections
from maskx_tf.tasks.batch import boxes as box_ops
from maskx_tf.tasks.batch.plan import BoxFile

SURROUNDINGS = 0.3  # width around a box, as a share of its longer side
LEAST_SURROUNDINGS = 8  # pixels
QUALITY_DIGITS = 4  # decimal digits of `mask_quality` in files
SIDE_OF_A_DOUBT = 320  # pixels of a picture's longer side


class _Made(NamedTuple):
    """A box of a row, and its mask.

    Attributes:
        quality: the quality of the mask; 0 for a box that got none.
        image: the id of the image, as JSON.
        annotation: the id of the box, as JSON.
        name: the name of the class.
        box: x1, y1, x2, y2.
        mask: None for a box that got none.
    """

    quality: float
    image: str
    annotation: str
    name: str
    box: list[float]
    mask: rle.Rle | None


def page(boxes: BoxFile, rows: Iterable[Json], least: float, most: int) -> str:
    """The page of a job.

    Args:
        boxes: the boxes of the job.
        rows: the rows of all its shards.
        least: masks of a lower quality are flagged.
        most: how many masks the page shows.
    """
    shown = heapq.nsmallest(most, _made(rows), key=lambda made: made.quality)
    images = {json.dumps(image.id): image for image in box_ops.dataset_of(boxes).images}
    entries = [_doubt(images[made.image], made, least) for made in shown]
    return doubts.page(os.path.basename(boxes.annotations), entries)


def is_doubtful(quality: float, least: float, *, has_mask: bool) -> bool:
    """Whether a person should look at a box: it got no mask, or one whose quality, as it is written, is too low."""
    return not has_mask or round(quality, QUALITY_DIGITS) < least


def _made(rows: Iterable[Json]) -> Iterator[_Made]:
    for row in rows:
        values = (row[name] for name in ("scores", "annotations", "names", "boxes", "masks"))
        for quality, annotation, name, box, counts in zip(*values, strict=True):
            mask = None if counts is None else {"size": [row["height"], row["width"]], "counts": counts}
            yield _Made(quality, row["key"], annotation, name, box, mask)


def _doubt(image: ImageRecord, made: _Made, least: float) -> doubts.Doubt:
    file = str(image.file) if not isinstance(image.file, bytes) else ""
    where = f"{os.path.basename(file)}, annotation {made.annotation}"
    doubtful = is_doubtful(made.quality, least, has_mask=made.mask is not None)
    return doubts.Doubt(made.name, where, made.quality, doubtful, _picture(image, made))


def _picture(image: ImageRecord, made: _Made) -> str:
    """The surroundings of a box, with its mask; nothing where the image cannot be read."""
    try:
        pixels = load_pixels(image)
    except Unfit:
        return ""
    x1, y1, x2, y2 = made.box
    margin = max(SURROUNDINGS * max(x2 - x1, y2 - y1), LEAST_SURROUNDINGS)
    left, top = (min(max(int(low - margin), 0), side - 1) for low, side in ((x1, image.width), (y1, image.height)))
    right, bottom = max(int(x2 + margin), left + 1), max(int(y2 + margin), top + 1)
    window = slice(top, bottom), slice(left, right)
    box = np.array([[x1 - left, y1 - top, x2 - left, y2 - top]], np.float32)
    one = Detections(box, np.array([made.quality], np.float32), np.array([1]), np.array([True]))
    picture, one = visualize.resized(np.ascontiguousarray(pixels[window]), one, SIDE_OF_A_DOUBT)
    height, width = picture.shape[:2]
    mask = np.zeros([height, width], bool)
    if made.mask is not None:
        mask = np.asarray(Image.fromarray(rle.bitmap_of(made.mask)[window]).resize((width, height)))
    return jpeg(visualize.draw(picture, one, (made.name,), crops=[Crop(0, 0, mask)]))
