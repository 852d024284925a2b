"""LVIS' average precision (Gupta, Dollár and Girshick 2019), for truth that is known for some categories of an image.

A detection counts if the image has an object of its category, or is known to have none. If not every object of the
category was annotated, a detection that matches none is ignored. 300 detections of an image count. All other rules are
COCO's, so COCO's evaluator is used, with crowds as large as the image that ignore unmatched detections.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from maskx_tf.evaluation import metrics
from maskx_tf.evaluation.metrics import Figures, Metrics
from maskx_tf.evaluation.truth import IouKind, Truth
from maskx_tf.files import Json

LIMIT = 300  # detections of an image that count
# Categories in at most 10 training images, at most 100, and more, by the letter that LVIS' files have.
FREQUENCIES = {"r": "APr", "c": "APc", "f": "APf"}


class FederatedRules(NamedTuple):
    """The fields of LVIS' files that COCO's do not have.

    Attributes:
        absent: the ids of the categories that each image, by its id, is known not to have.
        partial: those of which not every object of the image was annotated.
        frequency: r, c or f of each category, by its id.
    """

    absent: Mapping[int, Collection[int]]
    partial: Mapping[int, Collection[int]]
    frequency: Mapping[int, str]


def measure(
    truth: Truth,
    results: Iterable[Json],
    rules: FederatedRules,
    *,
    kinds: Sequence[IouKind],
    classes_a: Collection[str] | None = None,
    boxes: str = "detected",
) -> Metrics:
    """The figures of COCO's results by LVIS' rules: COCO's figures, and AP of rare, common and frequent categories.

    Args:
        truth: COCO's mapping.
        results: COCO's results.
        rules: see `FederatedRules`.
        kinds: box, mask.
        classes_a: names of the classes with masks, all others are B; None does not divide them.
        boxes: whose they are, for the record.
    """
    present: dict[int, set[int]] = defaultdict(set)
    for one in truth["annotations"]:
        present[one["image_id"]].add(one["category_id"])
    crowds = [
        _crowd(image, category)
        for image in truth["images"]
        for category in present[image["id"]] & {*rules.partial.get(image["id"], ())}
    ]
    found = [
        one
        for one in _best(results)
        if one["category_id"] in present[one["image_id"]] or one["category_id"] in rules.absent.get(one["image_id"], ())
    ]
    complete = {**truth, "annotations": [*truth["annotations"], *_numbered(crowds, truth)]}
    figures = metrics.measure(complete, found, kinds=kinds, classes_a=classes_a, boxes=boxes, limit=LIMIT)
    frequency = {str(one["name"]): rules.frequency[one["id"]] for one in truth["categories"]}
    for kind, groups in figures.groups.items():
        for group, of_group in groups.items():
            members = [one for one in figures.classes[kind] if group in ("all", one.set)]
            of_group.update(_by_frequency(members, frequency))
    return figures


def _best(results: Iterable[Json]) -> list[Json]:
    """The best detections of each image, in their order."""
    found: dict[int, list[Json]] = defaultdict(list)
    for one in results:
        found[one["image_id"]].append(one)
    return [one for group in found.values() for one in sorted(group, key=lambda one: -one["score"])[:LIMIT]]


def _crowd(image: Json, category: int) -> Json:
    """A crowd in which every detection of the image lies whole."""
    width, height = image["width"], image["height"]
    corners = [0, 0, width, 0, width, height, 0, height]
    return {
        "image_id": image["id"],
        "category_id": category,
        "bbox": [-width, -height, 3 * width, 3 * height],
        "area": width * height,
        "segmentation": [corners],
        "iscrowd": 1,
    }


def _numbered(crowds: Sequence[Json], truth: Truth) -> list[Json]:
    """Crowds with ids that no annotation has."""
    first = 1 + max((one["id"] for one in truth["annotations"]), default=0)
    return [{**one, "id": number} for number, one in enumerate(crowds, first)]


def _by_frequency(classes: Sequence[metrics.ClassFigures], frequency: Mapping[str, str]) -> Figures:
    """The mean AP of the classes of each frequency that have an object."""
    found: Figures = {}
    for letter, name in FREQUENCIES.items():
        known = [one.figures["AP"] for one in classes if frequency[one.name] == letter]
        values = [value for value in known if value is not None]
        found[name] = float(np.mean(values)) if values else None
    return found
