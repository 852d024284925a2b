"""Cityscapes' average precision: against the official evaluator's numbers, and rule by rule on small maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maskx_tf.evaluation import cityscapes
from maskx_tf.evaluation.cityscapes import LabelledMask, scenes_of
from maskx_tf.masks import rle
from maskx_tf.names import CITYSCAPES_IDS
from tests.oracle import each_file

CAR, PERSON = 26, 24


def image_of(stored: dict[str, np.ndarray], place: int) -> tuple[np.ndarray, list[LabelledMask]]:
    """The map and the detections of an image of an oracle file."""
    ids = stored["gt_instance_ids"][place]
    found = [
        LabelledMask(
            int(stored["pred_label_id"][number]),
            float(stored["pred_score"][number]),
            rle.encode(np.unpackbits(stored["pred_masks_packed"][number], axis=-1, count=ids.shape[1]).astype(bool)),
        )
        for number in np.flatnonzero(stored["pred_image"] == place)
    ]
    return ids, found


@each_file("cityscapes*.npz")
def test_cityscapes_oracle(file: Path) -> None:
    with np.load(file) as data:
        stored = {key: data[key] for key in data.files}
    every, names = list(CITYSCAPES_IDS.values()), stored["class_names"].tolist()
    rows = [every.index(name) for name in names]
    columns = [int(np.abs(cityscapes.OVERLAPS - overlap).argmin()) for overlap in stored["overlaps"]]
    np.testing.assert_array_equal(cityscapes.OVERLAPS[columns], stored["overlaps"])
    images = [image_of(stored, place) for place in range(len(stored["gt_instance_ids"]))]

    def matrix(*chosen: tuple[np.ndarray, list[LabelledMask]]) -> np.ndarray:
        return cityscapes.precision_matrix([scenes_of(*one) for one in chosen])[np.ix_(rows, columns)]

    np.testing.assert_allclose(matrix(*images), stored["ap_matrix"], atol=1e-6)
    for one, expected in zip(images, stored["ap_matrix_of_each_image"], strict=True):
        # -1: the official program died of a class all of whose detections are ignored.
        np.testing.assert_allclose(matrix(one), np.maximum(expected, 0.0), atol=1e-6)

    categories = [{"id": 100 + label, "name": name} for label, name in CITYSCAPES_IDS.items()]
    truth = {"images": [{"id": place} for place in range(len(images))], "categories": categories, "annotations": []}
    results = [
        {"image_id": place, "category_id": 100 + one.label, "score": one.score, "segmentation": one.mask}
        for place, (_, found) in enumerate(images)
        for one in found
    ]
    maps = stored["gt_instance_ids"]
    measured = cityscapes.measure(truth, results, lambda place: maps[place], classes_a=set(names))
    figures = measured.groups["mask"]["A"]  # the classes of the file
    assert figures["AP"] == pytest.approx(float(stored["ap"]), abs=1e-6)
    assert figures["AP50"] == pytest.approx(float(stored["ap50"]), abs=1e-6)
    of_class = {one.name: one.figures for one in measured.classes["mask"]}
    for name, ap, ap50 in zip(names, stored["class_ap"], stored["class_ap50"], strict=True):
        expected = [None if np.isnan(value) else pytest.approx(float(value), abs=1e-6) for value in (ap, ap50)]
        assert [of_class[name]["AP"], of_class[name]["AP50"]] == expected


def test_cityscapes_groups_of_classes() -> None:
    ids = canvas(car=OBJECT, person=(24000, WRONG_BOX))
    categories = [{"id": label, "name": name} for label, name in CITYSCAPES_IDS.items()]
    results = [{"image_id": 1, "category_id": CAR, "score": HIT.score, "segmentation": HIT.mask}]
    truth = {"images": [{"id": 1}], "categories": categories, "annotations": []}
    measured = cityscapes.measure(truth, results, lambda _: ids, classes_a={"car", "bus"})
    assert {group: figures["AP"] for group, figures in measured.groups["mask"].items()} == {
        "all": 0.5,
        "A": 1.0,
        "B": 0.0,
    }
    assert [one.instances for one in measured.classes["mask"]] == [1, 0, 1, 0, 0, 0, 0, 0]
    assert [one.set for one in measured.classes["mask"]].count("A") == 2


def canvas(**regions: tuple[int, tuple[int, int, int, int]]) -> np.ndarray:
    """A map of 40 x 60 pixels of road (7) with rectangles: value and x1, y1, x2, y2 of each."""
    ids = np.full([40, 60], 7, np.int32)
    for value, (x1, y1, x2, y2) in regions.values():
        ids[y1:y2, x1:x2] = value
    return ids


def detection(box: tuple[int, int, int, int], score: float = 0.5, label: int = CAR) -> LabelledMask:
    x1, y1, x2, y2 = box
    mask = np.zeros([40, 60], bool)
    mask[y1:y2, x1:x2] = True
    return LabelledMask(label, score, rle.encode(mask))


def car_precision(ids: np.ndarray, *found: LabelledMask) -> list[float]:
    """AP of cars at .5 and at .95."""
    row = cityscapes.precision_matrix([scenes_of(ids, found)])[list(CITYSCAPES_IDS).index(CAR)]
    return [float(row[0]), float(row[-1])]


OBJECT = (26000, (0, 0, 20, 10))  # 200 pixels
HIT = detection(OBJECT[1], 0.9)


def test_cityscapes_iou_has_to_be_greater_than_the_threshold() -> None:
    ids = canvas(car=OBJECT)
    assert car_precision(ids, detection((0, 0, 10, 10))) == [0.0, 0.0]  # exactly .5
    assert car_precision(ids, detection((0, 0, 11, 10))) == [1.0, 0.0]


def test_cityscapes_best_of_several_detections_is_right() -> None:
    ids = canvas(car=OBJECT)
    smaller = (0, 0, 20, 9)  # IoU .9
    # The worse one is wrong, but at a recall that is already reached, which costs nothing.
    assert car_precision(ids, HIT, detection(smaller, 0.3)) == [1.0, 1.0]
    # At .95, the better one is wrong before the other is right: half a step of precision 1/2.
    assert car_precision(ids, detection(OBJECT[1], 0.3), detection(smaller, 0.8)) == [1.0, 0.25]


WRONG_BOX = (30, 20, 50, 30)
WRONG = detection(WRONG_BOX, 0.95)


@pytest.mark.parametrize(
    ("under", "is_ignored"),
    [
        ((7, WRONG_BOX), False),  # road
        ((0, WRONG_BOX), True),  # void
        ((29, WRONG_BOX), True),  # a group of caravans
        ((29001, WRONG_BOX), False),  # one caravan
        ((26, WRONG_BOX), True),  # a group of cars
        ((24, WRONG_BOX), False),  # a group of persons
        ((24000, WRONG_BOX), False),  # a person
        ((26001, (30, 20, 39, 31)), False),  # 99 pixels: too small to count, and under half of the detection
        ((26, (30, 20, 39, 31)), True),  # a small group, whose pixels count twice
        ((0, (30, 20, 40, 30)), False),  # exactly half: ignored from more than the threshold on
        ((0, (30, 20, 41, 30)), True),
    ],
)
def test_cityscapes_detections_that_count_neither_way(
    under: tuple[int, tuple[int, int, int, int]], is_ignored: bool
) -> None:
    found = car_precision(canvas(car=OBJECT, under=under), HIT, WRONG)
    assert (found[0] == 1.0) == is_ignored
    assert car_precision(canvas(car=OBJECT, under=under), HIT)[0] == 1.0


def test_cityscapes_detection_of_a_small_object_is_ignored() -> None:
    ids = canvas(car=OBJECT, small=(26001, (30, 20, 39, 31)))
    assert car_precision(ids, HIT, detection((30, 20, 39, 31), 0.95)) == [1.0, 1.0]
    # It is no object to find, either.
    assert car_precision(ids, HIT) == [1.0, 1.0]


def test_cityscapes_classes_without_objects_or_detections() -> None:
    ids = canvas(car=OBJECT)
    matrix = cityscapes.precision_matrix([scenes_of(ids, [detection(OBJECT[1], label=PERSON)])])
    assert np.isnan(matrix[0]).all()
    assert (matrix[2] == 0).all()
    # The official program dies of this: nothing is right or wrong, and one object is missed.
    assert car_precision(canvas(car=OBJECT, void=(0, WRONG_BOX)), WRONG) == [0.0, 0.0]
    empty = LabelledMask(CAR, 1.0, rle.encode(np.zeros([40, 60], bool)))
    assert car_precision(ids, HIT, empty, detection(OBJECT[1], 1.0, label=30)) == [1.0, 1.0]


def test_cityscapes_measure_without_any_object() -> None:
    truth = {"images": [{"id": 1}], "categories": [{"id": 26, "name": "car"}], "annotations": []}
    assert cityscapes.measure(truth, [], lambda _: canvas()).groups == {"mask": {"all": {"AP": None, "AP50": None}}}
