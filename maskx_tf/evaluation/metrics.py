"""The figures of an evaluation: average precision over A, B and all, of each class, and the gap to an oracle."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from maskx_tf.evaluation import coco, voc
from maskx_tf.evaluation.coco import Engine
from maskx_tf.evaluation.truth import IouKind, Truth, counts
from maskx_tf.files import Json, JsonView
from maskx_tf.masks.rle import of_any_form

Figures = dict[str, float | None]
# Over eleven recalls, and over all.
VOC_NAMES = ("APr50", "APr70", "APr50_every", "APr70_every")


class ClassFigures(NamedTuple):
    """The figures of one class.

    Attributes:
        name: the name of the class.
        set: A, B, or nothing where classes are not divided.
        instances: how many objects it has, without crowds.
        unknown: how many of them count neither way, because they have no mask, or keypoint, to compare with.
        figures: AP and the others, 0..1; None where there is no object.
    """

    name: str
    set: str
    instances: int
    unknown: int
    figures: Figures


class Metrics(NamedTuple):
    """All figures of an evaluation, in 0..1; None where a set has no object.

    Attributes:
        images: how many were evaluated.
        boxes: detected or truth.
        groups: kind -> all, and A and B where classes are divided -> figures.
        classes: kind -> the classes, in the truth's order.
        curves: kind -> group -> 50, 75 or mean -> precision at recall 0, .01, ..., 1.
    """

    images: int
    boxes: str
    groups: dict[str, dict[str, Figures]]
    classes: dict[str, list[ClassFigures]]
    curves: dict[str, dict[str, dict[str, list[float]]]]

    def as_json(self) -> Json:
        """All of it as plain data."""
        classes = {kind: [one._asdict() for one in of_kind] for kind, of_kind in self.classes.items()}
        return {**self._asdict(), "classes": classes}

    def flat(self, names: Collection[str] = ("AP", "AP50", "AP75")) -> dict[str, float]:
        """Returns the known figures with flat names for a log, such as {"mask/B/AP": .21}."""
        return {
            f"{kind}/{group}/{name}": value
            for kind, groups in self.groups.items()
            for group, figures in groups.items()
            for name, value in figures.items()
            if name in names and value is not None
        }


def measure(
    truth: Truth,
    results: Iterable[Json],
    *,
    kinds: Sequence[IouKind],
    classes_a: Collection[str] | None = None,
    engine: Engine = "pycocotools",
    boxes: str = "detected",
    sigmas: Sequence[float] | None = None,
    limit: int = coco.LIMITS[-1],
) -> Metrics:
    """The figures of COCO's results.

    Args:
        truth: COCO's mapping.
        results: COCO's results; with annotation_id where boxes are the truth's, which adds the mean IoU.
        kinds: box, mask, keypoint.
        classes_a: names of the classes with masks, all others are B; None does not divide them.
        engine: the evaluator to use.
        boxes: whose they are, for the record.
        sigmas: see `coco.score`.
        limit: see `coco.score`.
    """
    found = list(results)
    groups: dict[str, dict[str, Figures]] = {}
    classes: dict[str, list[ClassFigures]] = {}
    curves: dict[str, dict[str, dict[str, list[float]]]] = {}
    names = {int(one["id"]): str(one["name"]) for one in truth["categories"]}
    sets = {number: "" if classes_a is None else "A" if name in classes_a else "B" for number, name in names.items()}
    members = {"all": list(names)}
    if classes_a is not None:
        members |= {group: [number for number, of in sets.items() if of == group] for group in "AB"}
    for kind in kinds:
        total, unknown = counts(truth, kind)
        scores = coco.score(truth, found, kind, engine, sigmas, limit)
        extra = _mask_figures(truth, found, boxes) if kind == "mask" else {number: {} for number in names}
        groups[kind] = {
            group: coco.summary(scores, kind, numbers) | _means([extra[number] for number in numbers])
            for group, numbers in members.items()
        }
        classes[kind] = [
            ClassFigures(
                name=name,
                set=sets[number],
                instances=total[number],
                unknown=unknown[number],
                figures=coco.summary(scores, kind, [number]) | extra[number],
            )
            for number, name in names.items()
            if number in scores.categories
        ]
        curves[kind] = {group: coco.curves(scores, numbers) for group, numbers in members.items()}
    return Metrics(len(truth["images"]), boxes, groups, classes, curves)


def _mask_figures(truth: Truth, results: list[Json], boxes: str) -> dict[int, Figures]:
    """Returns figures that only masks have, by category: mAP^r, and the mean IoU for given boxes."""
    precision = voc.average_precision(truth, results, areas=(voc.eleven_points, voc.every_point))
    figures: dict[int, Figures] = {
        number: dict(zip(VOC_NAMES, values, strict=True)) for number, values in precision.items()
    }
    if boxes == "truth":
        ious = mean_ious(truth, results)
        for number, of_class in figures.items():
            of_class["IoU"] = ious.get(number)
    return figures


def mean_ious(truth: Truth, results: Iterable[Json]) -> dict[int, float]:
    """Returns, for each category, the mean IoU between masks predicted for annotated boxes and the annotations' masks.

    An object whose class the model does not know, and which therefore has no result, counts as an IoU of zero.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    given = {(one["image_id"], one["annotation_id"]): one["segmentation"] for one in results}
    ious: dict[int, list[float]] = defaultdict(list)
    for one in truth["annotations"]:
        if one.get("iscrowd") or not one.get("segmentation"):
            continue
        own = of_any_form(one["segmentation"], *sizes[one["image_id"]])
        mask = given.get((one["image_id"], one["id"]))
        ious[one["category_id"]].append(0.0 if mask is None else float(coco_mask.iou([mask], [own], [0])[0, 0]))
    return {category: float(np.mean(values)) for category, values in ious.items()}


def _means(figures: Sequence[Figures]) -> Figures:
    """The mean of each figure over the classes that have it."""
    names = dict.fromkeys(name for of_class in figures for name in of_class)
    known = {name: [value for one in figures if (value := one.get(name)) is not None] for name in names}
    return {name: float(np.mean(values)) if values else None for name, values in known.items()}


def gap(method: JsonView, oracle: JsonView, group: str = "B") -> dict[str, dict[str, Figures]]:
    """How far a model is from one that was trained with all masks.

    Args:
        method: the model's `Metrics.as_json()`.
        oracle: the oracle's, on the same truth.
        group: the set of classes.

    Returns:
        For each kind and figure that both have: both values, their difference, and the model's share of the oracle's.
    """
    answer: dict[str, dict[str, Figures]] = {}
    for kind, groups in method["groups"].items():
        ours, theirs = groups.get(group, {}), oracle["groups"].get(kind, {}).get(group, {})
        for name in ours:
            mine, best = ours[name], theirs.get(name)
            if mine is not None and best is not None:
                share = mine / best if best else None
                entry = {"method": mine, "oracle": best, "difference": best - mine, "share": share}
                answer.setdefault(kind, {})[name] = entry
    return answer
