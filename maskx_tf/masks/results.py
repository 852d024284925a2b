"""Detections and keypoints in COCO's format.

A keypoint's x and y count pixels in COCO's files, as indices. Here they are continuous, as boxes are: the centre of
pixel 0 is at .5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from maskx_tf.files import Json
from maskx_tf.masks.paste import Crop
from maskx_tf.masks.rle import Rle, encode_crop
from maskx_tf.structures import Detections

# Of x, y and label: what turns the index of a pixel into the place of its centre.
HALF_PIXEL = np.array([0.5, 0.5, 0.0])


def keypoint_numbers(points: NDArray[np.floating]) -> list[float]:
    """Keypoints [P, 3] as COCO's list x1, y1, v1, x2, ..., whose x and y are indices of pixels."""
    shifted = points.astype(np.float64) - HALF_PIXEL
    return [round(value, digits) for row in shifted.tolist() for value, digits in zip(row, (3, 3, 6), strict=True)]


def keypoint_places(numbers: Sequence[float]) -> NDArray[np.float32]:
    """Keypoints [P, 3] from COCO's list; three zeros, which stand for none, stay zeros."""
    points = np.array(numbers, np.float64).reshape(-1, 3)
    return np.where(points.any(axis=1, keepdims=True), points + HALF_PIXEL, 0.0).astype(np.float32)


def keypoints_of(found: Detections) -> NDArray[np.floating] | None:
    """The keypoints of detections [D, P, 3], with their scores; None for a model without keypoints."""
    if found.keypoints is None:
        return None
    return np.concatenate([found.keypoints, found.keypoint_scores[..., None]], axis=-1)


def coco_result(
    category_id: int,
    box: NDArray[np.floating],
    score: float,
    crop: Crop | None,
    height: int,
    width: int,
    points: NDArray[np.floating] | None = None,
) -> Json:
    """One detection as COCO has it, but for the image's id.

    Args:
        category_id: the data set's id of its class.
        box: x1, y1, x2, y2 in pixels of the image.
        score: 0..1.
        crop: its mask; None for a detection that is known by its box alone.
        height: the height of the image.
        width: the width of the image.
        points: its keypoints [P, 3], with their scores; those of a class that has none are at 0, 0.
    """
    return coco_entry(category_id, box, score, None if crop is None else encode_crop(crop, height, width), points)


def coco_entry(
    category_id: int,
    box: NDArray[np.floating] | Sequence[float],
    score: float,
    mask: Rle | None,
    points: NDArray[np.floating] | None,
) -> Json:
    """See `coco_result`; the mask is there in its final form."""
    x1, y1, x2, y2 = (float(edge) for edge in box)
    result: Json = {
        "category_id": category_id,
        "bbox": [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)],
        "score": round(float(score), 6),
    }
    if mask is not None:
        result["segmentation"] = mask
    if points is not None and points[:, :2].any():
        result["keypoints"] = keypoint_numbers(points)
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
        image_id: the id of the image.
        category_ids: the data set's id of each class 1..K; None writes the class numbers themselves.
        crops: the masks of the detections, in pixels of the image; None for detections without masks.
    """
    results = []
    points = keypoints_of(found)
    for index, number in enumerate(found.classes):
        category = int(number) if category_ids is None else int(category_ids[int(number) - 1])
        box = found.boxes[index]
        crop = None if crops is None else crops[index]
        own = None if points is None else points[index]
        results.append({"image_id": image_id, **coco_result(category, box, found.scores[index], crop, *size, own)})
    return results
