"""Detections in COCO's results format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycocotools import mask as coco_mask

from maskx_tf.masks.paste import paste
from maskx_tf.structures import Detections


def coco_results(
    found: Detections, size: tuple[int, int], image_id: int, category_ids: Sequence[int] | None, paste_mode: str
) -> list[dict[str, Any]]:
    """COCO's results of one image.

    Args:
        found: without padding, in pixels of the image.
        size: height and width of the image.
        image_id: of the image.
        category_ids: the data set's id of each class 1..K; None writes the class numbers themselves.
        paste_mode: see `masks.paste.paste`.
    """
    height, width = size
    results = []
    for index in range(len(found.scores)):
        number = int(found.classes[index])
        x1, y1, x2, y2 = (float(edge) for edge in found.boxes[index])
        result: dict[str, Any] = {
            "image_id": image_id,
            "category_id": number if category_ids is None else int(category_ids[number - 1]),
            "bbox": [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(float(found.scores[index]), 6),
        }
        if found.masks is not None:
            one = slice(index, index + 1)
            pixels = paste(found.masks[one], found.boxes[one], height, width, mode=paste_mode)[0]
            rle = coco_mask.encode(pixels.astype("uint8", order="F"))
            result["segmentation"] = {"size": [height, width], "counts": rle["counts"].decode("ascii")}
        results.append(result)
    return results
