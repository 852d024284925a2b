"""mAP^r, the average precision of masks that papers on Pascal VOC give: at one IoU, over eleven recalls or over all.

Unlike COCO's, each detection is for the object that it overlaps most, whether or not a better one took it before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from maskx_tf.evaluation.truth import Truth, of_kind
from maskx_tf.files import Json
from maskx_tf.masks.rle import of_any_form

# Programs for VOC make them in steps of .1, so rounding puts the fourth, seventh and eighth just above .3, .6 and .7,
# and a class of ten objects needs a fourth hit for the fourth. Published figures were computed this way.
RECALLS = np.arange(0.0, 1.1, 0.1)


class _TrueObject(NamedTuple):
    rle: Json
    crowd: bool


def eleven_points(hits: NDArray[np.bool_], total: int) -> float:
    """The mean of the best precision at or beyond each of the eleven recalls, of detections best first."""
    true = np.cumsum(hits)
    precision = true / np.arange(1, len(hits) + 1)
    recall = true / total
    return float(np.mean([precision[recall >= level].max(initial=0.0) for level in RECALLS]))


def every_point(hits: NDArray[np.bool_], total: int) -> float:
    """The area under the best precision at or beyond each recall, as VOC has had it since 2010."""
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best[hits].sum() / total)  # each hit adds the same step of recall


def average_precision(
    truth: Truth,
    results: Sequence[Json],
    thresholds: Sequence[float] = (0.5, 0.7),
    areas: Sequence[Callable[[NDArray[np.bool_], int], float]] = (eleven_points,),
) -> dict[int, tuple[float | None, ...]]:
    """AP of masks at each IoU, of each category; None where it has no object.

    Detections that would be wrong, but lie in a crowd, count neither way.

    Args:
        truth: COCO's mapping.
        results: COCO's results with segmentations.
        thresholds: the IoUs.
        areas: what is made of the hits: first the first of them at every IoU, then the next.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    objects: dict[int, dict[int, list[_TrueObject]]] = defaultdict(lambda: defaultdict(list))
    for one in of_kind(truth, "mask")["annotations"]:
        rle = of_any_form(one["segmentation"], *sizes[one["image_id"]])
        objects[one["category_id"]][one["image_id"]].append(_TrueObject(rle, bool(one["iscrowd"])))
    found: dict[int, list[Json]] = defaultdict(list)
    for result in results:
        found[result["category_id"]].append(result)
    numbers = [int(category["id"]) for category in truth["categories"]]
    return {number: _of_class(objects[number], found[number], thresholds, areas) for number in numbers}


def _of_class(
    objects: dict[int, list[_TrueObject]],
    results: list[Json],
    thresholds: Sequence[float],
    areas: Sequence[Callable[[NDArray[np.bool_], int], float]],
) -> tuple[float | None, ...]:
    total = sum(not one.crowd for group in objects.values() for one in group)
    if not total:
        return (None,) * len(thresholds) * len(areas)
    results = sorted(results, key=lambda one: -one["score"])
    best = [_overlaps(one, objects.get(one["image_id"], [])) for one in results]
    every = []
    for threshold in thresholds:
        taken: set[tuple[int, int]] = set()
        hits = []
        for one, (iou, place, in_crowd) in zip(results, best, strict=True):
            key = (one["image_id"], place)
            if iou >= threshold and key not in taken:
                hits.append(True)
                taken.add(key)
            elif in_crowd < threshold:
                hits.append(False)
        every.append(np.array(hits, bool))
    return tuple(area(hits, total) for area in areas for hits in every)


def _overlaps(result: Json, objects: list[_TrueObject]) -> tuple[float, int, float]:
    """The largest IoU with an object, that object's place, and the largest share that lies in one crowd."""
    if not objects:
        return 0.0, -1, 0.0
    crowd = [one.crowd for one in objects]
    shares = coco_mask.iou([result["segmentation"]], [one.rle for one in objects], crowd)[0]
    ious = np.where(crowd, 0.0, shares)
    return float(ious.max()), int(ious.argmax()), float(np.where(crowd, shares, 0.0).max())
