"""LVIS' measure against a slow one, written from its description; and its files through the reader and the command."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskx_tf.config import Config
from maskx_tf.data.formats import coco
from maskx_tf.errors import BadInput
from maskx_tf.evaluation import lvis
from maskx_tf.tasks import evaluation_data

SIDE = 200
FREQUENCY = {1: "r", 2: "c", 3: "f", 4: "f", 5: "r"}
SIZES = {"": (0, 1e10), "s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, 1e10)}


def made_up(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]], lvis.FederatedRules]:
    """Images with objects of some categories, and detections of all, many of them near an object."""
    generator = np.random.default_rng(seed)
    images = [{"id": number, "width": SIDE, "height": SIDE} for number in range(1, 9)]
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    absent, partial = {}, {}
    for image in images:
        here = generator.choice([1, 2, 3, 4], 2, replace=False)
        others = [number for number in range(1, 6) if number not in here]
        absent[image["id"]] = generator.choice(others, 1).tolist()
        partial[image["id"]] = [int(here[0])] if generator.random() < 0.6 else []
        for _ in range(6):
            x, y = generator.uniform(0, 80, 2)
            width, height = generator.choice([20.0, 60.0, 110.0]) * generator.uniform(0.8, 1.2, 2)
            box = [float(x), float(y), min(float(width), SIDE - x), min(float(height), SIDE - y)]
            category = int(generator.choice(here))
            common = {"image_id": image["id"], "category_id": category}
            annotations.append(
                common | {"id": len(annotations) + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            )
            for _ in range(3):
                moved = (np.array(box) + generator.normal(0, 4, 4)).clip(1, SIDE).tolist()
                other = int(generator.integers(1, 6)) if generator.random() < 0.4 else category
                results.append(common | {"category_id": other, "bbox": moved, "score": float(generator.random())})
    categories = [{"id": number, "name": f"c{number}"} for number in FREQUENCY]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    return truth, results, lvis.FederatedRules(absent, partial, FREQUENCY)


def overlap(one: list[float], other: list[float]) -> float:
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


def slow_average_precision(
    truth: dict[str, Any], results: list[dict[str, Any]], rules: lvis.FederatedRules, category: int, size: str
) -> float | None:
    """Of one category: the mean over IoU .5 to .95 of the precision at 101 recalls, by loops."""
    low, high = SIZES[size]
    objects = defaultdict(list)
    for one in truth["annotations"]:
        objects[one["image_id"], one["category_id"]].append(one)
    every = []
    for threshold in np.linspace(0.5, 0.95, 10):
        marks, total = [], 0
        for image in (one["id"] for one in truth["images"]):
            own = objects[image, category]
            total += sum(low <= one["area"] <= high for one in own)
            if not own and category not in rules.absent[image]:
                continue
            best = sorted((one for one in results if one["image_id"] == image), key=lambda one: -one["score"])[:300]
            taken: set[int] = set()
            for one in (one for one in best if one["category_id"] == category):
                pick, most = None, min(threshold, 1 - 1e-10)
                # Objects of the size come first; only what finds none of them may take another.
                for fits in (True, False):
                    for index, other in enumerate(own):
                        if (low <= other["area"] <= high) != fits or index in taken:
                            continue
                        if overlap(one["bbox"], other["bbox"]) >= most:
                            pick, most = index, overlap(one["bbox"], other["bbox"])
                    if pick is not None:
                        break
                if pick is not None:
                    taken.add(pick)
                    if low <= own[pick]["area"] <= high:
                        marks.append((one["score"], True))
                elif low <= one["bbox"][2] * one["bbox"][3] <= high and category not in rules.partial[image]:
                    marks.append((one["score"], False))
        if not total:
            return None
        marks.sort(key=lambda one: -one[0])
        hits = np.cumsum([hit for _, hit in marks])
        precision = hits / np.arange(1, len(marks) + 1)
        recall = hits / total
        levels = np.linspace(0, 1, 101)
        every += [precision[recall >= level].max(initial=0.0) for level in levels]
    return float(np.mean(every))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_boxes_are_measured_as_lvis_describes(seed) -> None:
    truth, results, rules = made_up(seed)
    found = lvis.measure(truth, results, rules, kinds=["box"], classes_a=["c1", "c2"])
    by_class = {}
    for one in found.classes["box"]:
        category = int(one.name[1:])
        for size in SIZES:
            expected = slow_average_precision(truth, results, rules, category, size)
            assert one.figures[f"AP{size}"] == (None if expected is None else pytest.approx(expected, abs=1e-9))
        by_class[category] = one.figures["AP"]
    groups = found.groups["box"]
    assert groups["all"]["APf"] == pytest.approx(np.mean([by_class[3], by_class[4]]))
    assert groups["all"]["APr"] == by_class[1]  # c5 has no object
    assert (groups["A"]["APc"], groups["A"]["APf"]) == (by_class[2], None)
    plain = lvis.measure(truth, results, rules._replace(partial={}), kinds=["box"])
    assert plain.groups["box"]["all"]["AP"] < groups["all"]["AP"]


def test_masks_and_boxes_agree_where_masks_are_boxes() -> None:
    truth, results, rules = made_up(3)

    def whole(box: list[float]) -> list[float]:
        return [float(round(value)) for value in box]

    def corners(box: list[float]) -> list[list[float]]:
        x, y, width, height = box
        return [[x, y, x + width, y, x + width, y + height, x, y + height]]

    for one in [*truth["annotations"], *results]:
        x, y, width, height = whole(one["bbox"])
        box = [min(x, SIDE - 2), min(y, SIDE - 2), width, height]
        one["bbox"] = [box[0], box[1], min(width, SIDE - box[0]), min(height, SIDE - box[1])]
        one["segmentation"] = corners(one["bbox"])
    from pycocotools import mask

    for one in results:
        one["segmentation"] = mask.frPyObjects(one["segmentation"], SIDE, SIDE)[0]
    for one in truth["annotations"]:
        one["area"] = one["bbox"][2] * one["bbox"][3]
    found = lvis.measure(truth, results, rules, kinds=["box", "mask"]).groups
    for name in ("AP", "AP50", "APr", "APc", "APf", "AR300"):
        assert found["mask"]["all"][name] == pytest.approx(found["box"]["all"][name], abs=1e-9)


def test_the_three_hundred_best_of_an_image_count() -> None:
    image = {"id": 1, "width": SIDE, "height": SIDE}
    box = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 50, 50]}
    truth = {
        "images": [image],
        "annotations": [box | {"id": 1, "area": 2500, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "c1"}, {"id": 2, "name": "c2"}],
    }
    rules = lvis.FederatedRules({}, {}, {1: "r", 2: "r"})
    better = [{"image_id": 1, "category_id": 2, "bbox": [0, 0, 9, 9], "score": 0.9}]
    for count, expected in ((299, 1.0), (300, 0.0)):
        found = lvis.measure(truth, [box | {"score": 0.5}, *better * count], rules, kinds=["box"])
        assert found.groups["box"]["all"]["AP"] == pytest.approx(expected)


def test_files_name_their_images_by_address(tmp_path: Path) -> None:
    """And say what an image does not have, and what is annotated in part."""
    (tmp_path / "val2017").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "val2017" / "000000000009.jpg")
    data: dict[str, Any] = {
        "images": [
            {
                "id": 9,
                "coco_url": "http://images.cocodataset.org/val2017/000000000009.jpg",
                "width": 60,
                "height": 40,
                "neg_category_ids": [2],
                "not_exhaustive_category_ids": [1],
            }
        ],
        "annotations": [{"id": 1, "image_id": 9, "category_id": 1, "bbox": [1, 2, 30, 20], "area": 600.0}],
        "categories": [
            {"id": 1, "name": "cup", "frequency": "f"},
            {"id": 2, "name": "aerosol_can", "frequency": "c"},
        ],
    }
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps(data))
    assert coco.read(tmp_path, path).images[0].file == tmp_path / "val2017" / "000000000009.jpg"
    val = [{"images": str(tmp_path), "annotations": str(path)}]
    opened = evaluation_data.open_data(Config.model_validate({"data": {"val": val}}).data)
    assert evaluation_data.lvis_rules(opened) == lvis.FederatedRules(
        {9: frozenset([2])}, {9: frozenset([1])}, {1: "f", 2: "c"}
    )
    del data["images"][0]["neg_category_ids"]
    path.write_text(json.dumps(data))
    with pytest.raises(BadInput, match=r"lvis.json: expected LVIS' annotations: neg_category_ids"):
        evaluation_data.lvis_rules(opened)
