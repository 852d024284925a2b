"""Results for an image: as the model returns them, and as a row of a table."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskx_tf.masks.paste import paste_crops
from maskx_tf.masks.results import keypoints_of
from maskx_tf.masks.rle import Rle, encode_crop
from maskx_tf.structures import Detections

OK = "ok"


class ImageRow(NamedTuple):
    """The results for an image, as a row of a table.

    Attributes:
        key: the name that the caller gave the image.
        status: "ok", or a word, a colon and the reason why the image could not be read; then nothing was found.
        height: the height of the image as people see it; 0 if it could not be read.
        width: like height.
        boxes: float32 [D, 4], x1, y1, x2, y2 in pixels of the image; best first.
        scores: float32 [D].
        classes: int64 [D], the data set's ids, or 1..K for a model that does not know them.
        names: the names of the classes, D of them.
        masks: D run-length masks of the whole image, in COCO's compressed form; None if there are none.
        keypoints: float32 [D, P, 3], x and y in pixels of the image, and a score; None for a model without.
    """

    key: str
    status: str
    height: int
    width: int
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    names: tuple[str, ...]
    masks: list[Rle] | None = None
    keypoints: NDArray[np.float32] | None = None


class EngineAnswer(NamedTuple):
    """A model's answer for an image.

    Attributes:
        key: see `ImageRow`.
        status: see `ImageRow`.
        size: height and width of the image.
        found: without padding, in pixels of the image; None for an image that could not be read.
        names: the names of the detected classes.
        paste: see `masks.paste.paste_crop`.
    """

    key: str
    status: str
    size: tuple[int, int] = (0, 0)
    found: Detections | None = None
    names: tuple[str, ...] = ()
    paste: str = "continuous"

    def row(self, score: float) -> ImageRow:
        """Returns the row of this answer, with the detections of at least this score."""
        if self.found is None:
            nothing = np.zeros([0], np.float32)
            return ImageRow(self.key, self.status, 0, 0, nothing.reshape(0, 4), nothing, nothing.astype(np.int64), ())
        kept = self.found.scores >= score
        found = self.found.mapped(lambda array: array[kept])
        names = tuple(itertools.compress(self.names, kept))
        crops = paste_crops(found.masks, found.boxes, self.size, self.paste)
        masks = None if crops is None else [encode_crop(crop, *self.size) for crop in crops]
        points = keypoints_of(found)
        return ImageRow(self.key, OK, *self.size, found.boxes, found.scores, found.classes, names, masks, points)
