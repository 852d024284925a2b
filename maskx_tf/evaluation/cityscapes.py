"""Cityscapes' average precision of masks, equal to the official evaluator's.

It differs from COCO's: the truth is a map of ids, an IoU has to be greater than its threshold, of several detections of
an object all but the best are wrong, and precision is integrated over the recalls at which it was measured. Regions
that nobody annotated (void), groups and objects under 100 pixels count neither way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskx_tf.evaluation.metrics import ClassFigures, Figures, Metrics
from maskx_tf.evaluation.truth import Truth
from maskx_tf.files import Json
from maskx_tf.masks import rle
from maskx_tf.names import CITYSCAPES_IDS

IdMap = NDArray[np.integer]  # [height, width], as *_instanceIds.png has it
# As the official evaluator computes them: some lie a rounding above the decimal number.
OVERLAPS = np.arange(0.5, 1.0, 0.05)
LEAST_PIXELS = 100  # the least pixels of an object that counts
FIRST_NUMBERED = 1000  # ids of objects are label x 1000 + number; smaller ones are labels, of stuff or of a group
# Labels whose pixels are ignored, as plain values: a single caravan (29000) is background, a group of them (29) is not.
VOID_LABELS = (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)


class LabelledMask(NamedTuple):
    """One detection: Cityscapes' id of its class, its score, and its mask."""

    label: int
    score: float
    mask: rle.Rle


class _Candidate(NamedTuple):
    """A detection next to the truth of its image: IoU with each region of its class, and the share that is ignored."""

    score: float
    ious: dict[int, float]
    ignored: float


class _Scene(NamedTuple):
    """One class in one image: the ids of the objects that count, and the detections."""

    objects: list[int]
    candidates: list[_Candidate]


def scenes_of(ids: IdMap, found: Sequence[LabelledMask]) -> dict[int, _Scene]:
    """An image's objects and detections, by the label of their class."""
    columns = ids.T.reshape(-1)  # COCO counts down the columns
    sizes = dict(zip(*(array.tolist() for array in np.unique(columns, return_counts=True)), strict=True))
    scenes = {label: _Scene([], []) for label in CITYSCAPES_IDS}
    for number, size in sizes.items():
        if number >= FIRST_NUMBERED and size >= LEAST_PIXELS and number // FIRST_NUMBERED in scenes:
            scenes[number // FIRST_NUMBERED].objects.append(number)
    for one in found:
        values = columns[rle.places(one.mask)]
        if one.label in scenes and values.size:
            scenes[one.label].candidates.append(_candidate(one, values, sizes))
    return scenes


def _candidate(one: LabelledMask, values: NDArray[np.integer], sizes: dict[int, int]) -> _Candidate:
    """A detection of which these are the pixels in the map."""
    shared = dict(zip(*(array.tolist() for array in np.unique(values, return_counts=True)), strict=True))
    own = {number: count for number, count in shared.items() if one.label in (number, number // FIRST_NUMBERED)}
    ignored = sum(shared.get(label, 0) for label in VOID_LABELS)
    # A group under the least size counts twice, as it does in the official evaluator.
    ignored += sum(count for number, count in own.items() if number < FIRST_NUMBERED)
    ignored += sum(count for number, count in own.items() if sizes[number] < LEAST_PIXELS)
    ious = {number: count / (sizes[number] + values.size - count) for number, count in own.items()}
    return _Candidate(one.score, ious, ignored / values.size)


def precision_matrix(images: Sequence[dict[int, _Scene]]) -> NDArray[np.float64]:
    """AP of each class at each overlap, [8, 10] in the order of CITYSCAPES_IDS; nan where a class has no object.

    Args:
        images: what `scenes_of` makes of each.
    """
    every = [[scenes[label] for scenes in images] for label in CITYSCAPES_IDS]
    return np.array([[_precision(scenes, overlap) for overlap in OVERLAPS.tolist()] for scenes in every])


def _precision(scenes: Sequence[_Scene], overlap: float) -> float:
    """AP of a class at an overlap."""
    objects = sum(len(scene.objects) for scene in scenes)
    outcomes = [outcome for scene in scenes for outcome in _outcomes(scene, overlap)]
    if not objects:
        return np.nan
    if not outcomes:
        return 0.0
    scores, hits = (np.array(column) for column in zip(*sorted(outcomes), strict=True))
    _, firsts = np.unique(scores, return_index=True)  # a detection counts from its score on, with all of this score
    hits_before = np.concatenate([[0], np.cumsum(hits)])
    true = hits_before[-1] - hits_before[firsts]
    precision = np.append(true / (len(scores) - firsts), 1.0)
    recall = np.append(true / objects, 0.0)
    widths = np.convolve(np.concatenate([recall[:1], recall, [0.0]]), [-0.5, 0.0, 0.5], "valid")
    return float(precision @ widths)


def _outcomes(scene: _Scene, overlap: float) -> list[tuple[float, bool]]:
    """Score and whether it is right, of each detection that counts."""
    outcomes = []
    for number in scene.objects:
        scores = [one.score for one in scene.candidates if one.ious.get(number, 0.0) > overlap]
        if scores:
            best = scores.pop(scores.index(max(scores)))
            outcomes += [(best, True), *((score, False) for score in scores)]
    for one in scene.candidates:
        is_matched = any(iou > overlap for iou in one.ious.values())
        if not is_matched and one.ignored <= overlap:
            outcomes.append((one.score, False))
    return outcomes


def measure(
    truth: Truth,
    results: Iterable[Json],
    map_of: Callable[[int], IdMap],
    *,
    classes_a: Collection[str] | None = None,
    boxes: str = "detected",
) -> Metrics:
    """The figures of COCO's results by Cityscapes' rules: AP and AP50 of masks.

    Args:
        truth: COCO's mapping, for the images and the names of the categories.
        results: COCO's results with segmentations; categories that are none of Cityscapes' are dropped.
        map_of: gives the map of an image, by its id.
        classes_a: names of the classes with masks, all others are B; None does not divide them.
        boxes: whose they are, for the record.
    """
    labels = {name: label for label, name in CITYSCAPES_IDS.items()}
    label_of = {one["id"]: labels[one["name"]] for one in truth["categories"] if one["name"] in labels}
    found: dict[int, list[LabelledMask]] = defaultdict(list)
    for one in results:
        if one["category_id"] in label_of:
            mask = LabelledMask(label_of[one["category_id"]], one["score"], one["segmentation"])
            found[one["image_id"]].append(mask)
    images = [scenes_of(map_of(one["id"]), found[one["id"]]) for one in truth["images"]]
    matrix = precision_matrix(images)
    names = list(labels)
    groups = {"all": names}
    if classes_a is not None:
        groups |= {"A": [name for name in names if name in classes_a]}
        groups |= {"B": [name for name in names if name not in classes_a]}
    rows = dict(zip(names, matrix, strict=True))
    classes = [
        ClassFigures(
            name=name,
            set="" if classes_a is None else "A" if name in classes_a else "B",
            instances=sum(len(scenes[label].objects) for scenes in images),
            unknown=0,
            figures=_figures([rows[name]]),
        )
        for name, label in labels.items()
    ]
    figures = {group: _figures([rows[name] for name in members]) for group, members in groups.items()}
    return Metrics(len(images), boxes, {"mask": figures}, {"mask": classes}, {"mask": {}})


def _figures(rows: Sequence[NDArray[np.float64]]) -> Figures:
    """The mean over classes that have an object; None where none has."""
    known = [row for row in rows if not np.isnan(row[0])]
    if not known:
        return {"AP": None, "AP50": None}
    return {"AP": float(np.mean(known)), "AP50": float(np.mean([row[0] for row in known]))}
