"""OKS: pycocotools run by hand and the faster evaluator give the same, and truth against itself gives 1."""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskx_tf.errors import BadInput
from maskx_tf.evaluation import coco, metrics
from maskx_tf.evaluation.keypoints import sigmas_of
from maskx_tf.evaluation.table import as_text
from tests.evaluation.made_up import ellipse, encode

FIGURES = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
PERSON, BALL, SHIP = 1, 7, 9
SIDES = [
    f"{side}_{part}"
    for part in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    for side in ("left", "right")
]
COCO_NAMES = ["nose", *SIDES]
OWN_NAMES = ["bow", "stern", "mast"]
ENGINES = pytest.mark.parametrize("engine", ["pycocotools", "faster"])


def made_up(names: list[str], seed: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Truth and results: hits of all qualities, misses, crowds, objects without keypoints, over 20 in an image."""
    rng = np.random.default_rng(seed)
    annotations, results = [], []
    for image in range(12):
        for _ in range(rng.integers(0, 6)):
            side = rng.choice([20, 60, 150])
            x, y = rng.uniform(0, 200, 2)
            width, height = rng.uniform(0.5, 1, 2) * side
            labels = rng.integers(0, 3, len(names)) * (rng.random() > 0.15)
            points = np.stack(
                [*(rng.uniform(0, 1, [2, len(names)]) * [[width], [height]] + [[x], [y]]), labels], axis=1
            )
            points = np.where(labels[:, None] > 0, points.round(1), 0)
            one = {
                "id": len(annotations) + 1,
                "image_id": image,
                "category_id": int(rng.choice([PERSON, SHIP, BALL], p=[0.6, 0.3, 0.1])),
                "bbox": [x, y, width, height],
                "area": width * height * 0.6,
                "iscrowd": int(rng.random() < 0.1),
            }
            if one["category_id"] != BALL and rng.random() < 0.9:
                one |= {"keypoints": points.reshape(-1).tolist(), "num_keypoints": int((labels > 0).sum())}
            annotations.append(one)
            for _ in range(rng.integers(0, 3)):
                moved = points[:, :2] + rng.normal(0, rng.choice([0.01, 0.03, 0.1]) * side, [len(names), 2])
                results.append(result(image, one["category_id"], moved, round(rng.random(), 2)))
    results += [result(3, PERSON, rng.uniform(0, 200, [len(names), 2]), rng.random()) for _ in range(30)]
    results.append({"image_id": 1, "category_id": BALL, "score": 0.9, "bbox": [1, 1, 5, 5]})
    named = {"keypoints": names, "skeleton": []}
    categories = [
        {"id": BALL, "name": "ball"},
        {"id": PERSON, "name": "person", **named},
        {"id": SHIP, "name": "ship", **named},
    ]
    images = [{"id": image, "height": 400, "width": 400} for image in range(12)]
    return {"images": images, "annotations": annotations, "categories": categories}, results


def result(image: int, category: int, points: np.ndarray, score: float) -> dict[str, Any]:
    numbers = np.concatenate([points, np.ones([len(points), 1])], axis=1).reshape(-1).tolist()
    return {
        "image_id": image,
        "category_id": category,
        "score": float(score),
        "bbox": [0, 0, 9, 9],
        "keypoints": numbers,
    }


def by_hand(truth: Any, results: Any, sigmas: list[float], categories: list[int]) -> list[float | None]:
    """What pycocotools prints, with its own reader of results."""
    whole = copy.deepcopy(truth)
    whole["annotations"] = [
        {"keypoints": [0] * 3 * len(sigmas), "num_keypoints": 0, **one} for one in whole["annotations"]
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = whole
        gt.createIndex()
        # Of results with boxes, loadRes would take the boxes' sizes.
        kept = ("image_id", "category_id", "score", "keypoints")
        dt = gt.loadRes([{key: one[key] for key in kept} for one in copy.deepcopy(results) if "keypoints" in one])
        run = COCOeval(gt, dt, "keypoints")
        run.params.kpt_oks_sigmas = np.array(sigmas)
        run.params.catIds = categories
        run.evaluate()
        run.accumulate()
        run.summarize()
    return [None if value == -1 else value for value in run.stats.tolist()]


@ENGINES
@pytest.mark.parametrize(
    ("names", "given"),
    [(COCO_NAMES, None), (OWN_NAMES, None), (OWN_NAMES, [0.05, 0.1, 0.08])],
    ids=["coco", "own", "given"],
)
def test_keypoint_figures_equal_to_pycocotools(
    names: list[str], given: list[float] | None, engine: coco.Engine
) -> None:
    truth, results = made_up(names)
    sigmas = given or sigmas_of(names, None)
    measured = metrics.measure(
        truth, results, kinds=["keypoint"], classes_a={"ship", "ball"}, engine=engine, sigmas=given
    )
    for group, categories in (("all", [PERSON, SHIP]), ("A", [SHIP]), ("B", [PERSON])):
        expected = by_hand(truth, results, sigmas, categories)
        assert 0 < expected[0] < 1
        found = measured.groups["keypoint"][group]
        assert list(found) == list(FIGURES)
        assert list(found.values()) == pytest.approx(expected, abs=1e-12)
    assert [one.name for one in measured.classes["keypoint"]] == ["person", "ship"]
    unknown = sum(
        one["category_id"] == PERSON and not one["iscrowd"] and not one.get("num_keypoints")
        for one in truth["annotations"]
    )
    assert measured.classes["keypoint"][0].unknown == unknown > 0


def test_sigmas_of_coco() -> None:
    run = COCOeval(iouType="keypoints")
    assert sigmas_of(COCO_NAMES, None) == pytest.approx(run.params.kpt_oks_sigmas.tolist(), abs=1e-15)
    assert sigmas_of(["left_knee", "nose"], None) == [0.087, 0.026]
    assert sigmas_of(["left_knee", "tail"], None) == [0.05, 0.05]
    with pytest.raises(BadInput, match=r"evaluate.sigmas: expected 2 numbers, one a keypoint, found 1"):
        sigmas_of(["left_knee", "tail"], [0.1])


@ENGINES
def test_keypoint_truth_against_itself(engine: coco.Engine) -> None:
    truth, _ = made_up(COCO_NAMES, seed=3)
    results = [
        {"image_id": one["image_id"], "category_id": one["category_id"], "score": 1.0, "bbox": one["bbox"]}
        | {"keypoints": one["keypoints"]}
        for one in truth["annotations"]
        if one.get("num_keypoints") and not one["iscrowd"]
    ]
    measured = metrics.measure(truth, results, kinds=["keypoint"], engine=engine)
    assert list(measured.groups["keypoint"]["all"].values()) == pytest.approx([1.0] * 10, abs=1e-12)


@ENGINES
def test_data_without_keypoints(engine: coco.Engine) -> None:
    truth, results = made_up(COCO_NAMES)
    bare = {**truth, "categories": [{"id": one["id"], "name": one["name"]} for one in truth["categories"]]}
    measured = metrics.measure(bare, results, kinds=["keypoint"], engine=engine)
    assert measured.groups["keypoint"]["all"] == dict.fromkeys(FIGURES)
    assert measured.classes["keypoint"] == []


def test_boxes_masks_and_keypoints_in_one_table() -> None:
    truth, results = made_up(COCO_NAMES)
    mask = {"segmentation": encode(ellipse(2, 2, 30, 30))}
    measured = metrics.measure(truth, [{**one, **mask} for one in results], kinds=["box", "mask", "keypoint"])
    lines = as_text(measured.as_json(), per_class=True).splitlines()
    heads = [line.split() for line in lines if line.startswith(("box ", "mask ", "keypoint "))]
    assert heads[-1] == ["keypoint", "AP", "AP50", "AP75", "APm", "APl", "AR"]
    assert any("objects have no keypoint to compare with" in line for line in lines)
