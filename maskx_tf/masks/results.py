"""Detections in COCO's results format."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from maskx_tf.files import Json
from maskx_tf.masks.paste import Crop
from maskx_tf.masks.rle import Rle, encode_crop
from maskx_tf.structures import Detections


def coco_result(
    category_id: int, box: NDArray[np.floating], score: float, crop: Crop | None, height: int, width: int
) -> Json:
    """One detection as COCO has it, but for the image's id.

    Args:
        category_id: the data set's id of its class.
        box: x1, y1, x2, y2 in pixels of the image.
        score: 0..1.
        crop: its mask; None for a detection that is known by its box alone.
        height: of the image.
        width: of the image.
    """
    return coco_entry(category_id, box, score, None if crop is None else encode_crop(crop, height, width))


def coco_entry(category_id: int, box: NDArray[np.floating] | Sequence[float], score: float, mask: Rle | None) -> Json:
    """See `coco_result`; the mask is there in its final form."""
    x1, y1, x2, y2 = (float(edge) for edge in box)
    result: Json = {
        "category_id": category_id,
        "bbox": [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)],
        "score": round(float(score), 6),
    }
    if mask is not None:
        result["segmentation"] = mask
    return result


def coco_results(
    found: Detections,
    size: tuple[int, int],
    image_id: int,
    category_ids: Sequence[int] | None,
    crops: Sequence[Crop] | None,
) -> list[Json]:
    """COCO's results of one image.

    Args:
        found: without padding, in pixels of the image.
        size: height and width of the image.
        image_id: of the image.
        category_ids: the data set's id of each class 1..K; None writes the class numbers themselves.
        crops: the masks of the detections, in pixels of the image; None for detections without masks.
    """
    results = []
    for index, number in enumerate(found.classes):
        category = int(number) if category_ids is None else int(category_ids[int(number) - 1])
        box = found.boxes[index]
        crop = None if crops is None else crops[index]
        results.append({"image_id": image_id, **coco_result(category, box, found.scores[index], crop, *size)})
    return results
