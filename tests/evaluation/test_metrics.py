"""Average precision against pycocotools run by hand, on made-up detections and on the oracle's."""

from __future__ import annotations

import contextlib
import copy
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskx_tf.errors import BadInput
from maskx_tf.evaluation import coco, metrics
from maskx_tf.evaluation.table import as_text, gap_text
from maskx_tf.evaluation.truth import category_of
from tests import oracle
from tests.evaluation import made_up

IOU_TYPES = {"box": "bbox", "mask": "segm"}
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def by_hand(truth, results, kind: str, categories=None) -> dict[str, float]:
    """What pycocotools prints, with its own reader of results."""
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = copy.deepcopy(truth)
        gt.createIndex()
        kept = ("image_id", "category_id", "score", "bbox" if kind == "box" else "segmentation")
        dt = gt.loadRes([{key: one[key] for key in kept} for one in copy.deepcopy(results)])
        run = COCOeval(gt, dt, IOU_TYPES[kind])
        if categories is not None:
            run.params.catIds = categories
        run.evaluate()
        run.accumulate()
        run.summarize()
    return dict(zip(NAMES, run.stats.tolist(), strict=True))


def assert_equal(ours: dict[str, float | None], theirs: dict[str, float]) -> None:
    for name, value in theirs.items():
        assert (ours[name] is None) == (value == -1)
        assert ours[name] is None or ours[name] == pytest.approx(value, abs=1e-12)


@pytest.fixture(scope="module")
def made() -> tuple[dict, list]:
    truth = made_up.truth()
    return truth, made_up.results(truth)


@pytest.fixture(scope="module")
def measured(made) -> metrics.Metrics:
    return metrics.measure(*made, kinds=("box", "mask"), classes_a=made_up.A)


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_equal_to_pycocotools_with_filtered_categories(made, measured, kind) -> None:
    groups = measured.groups[kind]
    assert 0.2 < groups["all"]["AP"] < 0.9
    assert groups["A"]["AP"] != pytest.approx(groups["B"]["AP"], abs=1e-3)
    assert_equal(groups["all"], by_hand(*made, kind))
    assert_equal(groups["A"], by_hand(*made, kind, made_up.A_IDS))
    assert_equal(groups["B"], by_hand(*made, kind, made_up.B_IDS))
    for number, one in zip(made_up.CATEGORIES, measured.classes[kind], strict=True):
        assert_equal(one.figures, by_hand(*made, kind, [number]))


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_faster_evaluator_is_equal(made, measured, kind) -> None:
    pytest.importorskip("faster_coco_eval", reason="the extra eval is not installed")
    faster = metrics.measure(*made, kinds=(kind,), classes_a=made_up.A, engine="faster")
    for group, figures in measured.groups[kind].items():
        assert faster.groups[kind][group] == pytest.approx(figures, abs=1e-12)
    assert faster.curves[kind] == measured.curves[kind]


def test_classes_are_counted_and_divided(made, measured) -> None:
    ghost = measured.classes["mask"][-1]
    assert (ghost.name, ghost.set, ghost.instances) == ("ghost", "B", 0)
    assert set(ghost.figures.values()) == {None}
    objects = [one for one in made[0]["annotations"] if not one["iscrowd"]]
    assert sum(one.instances for one in measured.classes["box"]) == len(objects) < len(made[0]["annotations"])
    undivided = metrics.measure(*made, kinds=("box",))
    assert set(undivided.groups["box"]) == {"all"}
    assert {one.set for one in undivided.classes["box"]} == {""}


def test_truth_against_itself_is_perfect(made) -> None:
    truth, _ = made
    results = [{**one, "score": 0.5} for one in truth["annotations"] if not one["iscrowd"]]
    measured = metrics.measure(truth, results, kinds=("box", "mask"), classes_a=made_up.A)
    for groups in measured.groups.values():
        for figures in groups.values():
            assert {name: value for name, value in figures.items() if name not in ("AR1", "AR10")} == {
                name: 1.0 for name in figures if name not in ("AR1", "AR10")
            }
    own = [{**one, "annotation_id": one["id"]} for one in results]
    assert metrics.measure(truth, own, kinds=("mask",), boxes="truth").groups["mask"]["all"]["IoU"] == 1.0


def test_no_detections_and_no_objects(made) -> None:
    truth, results = made
    nothing = metrics.measure(truth, [], kinds=("box", "mask"))
    assert nothing.groups["mask"]["all"]["AP"] == nothing.groups["mask"]["all"]["APr50"] == 0.0
    empty = metrics.measure({**truth, "annotations": []}, results, kinds=("box", "mask"), classes_a=made_up.A)
    assert {value for groups in empty.groups.values() for of in groups.values() for value in of.values()} == {None}
    assert empty.flat() == {}
    assert "mask" in as_text(empty.as_json(), per_class=True)


def test_objects_without_masks_count_neither_way(made) -> None:
    truth, _ = made
    annotations = [dict(one) for one in truth["annotations"]]
    for one in annotations[::2]:
        del one["segmentation"]
    partial = {**truth, "annotations": annotations}
    results = [{**one, "score": 0.5} for one in truth["annotations"]]
    measured = metrics.measure(partial, results, kinds=("box", "mask"))
    assert measured.groups["mask"]["all"]["AP"] == 1.0
    # An object without a mask that lies on one with a mask may take its place.
    assert measured.groups["mask"]["all"]["APr50"] > 0.97
    objects = [one for one in annotations if not one["iscrowd"]]
    assert sum(one.unknown for one in measured.classes["mask"]) == sum("segmentation" not in one for one in objects)
    assert "objects have no mask to compare with" in as_text(measured.as_json())


def test_curves_have_the_area_of_ap(measured) -> None:
    for group, curves in measured.curves["mask"].items():
        figures = measured.groups["mask"][group]
        for name, key in (("50", "AP50"), ("75", "AP75"), ("mean", "AP")):
            assert len(curves[name]) == 101
            assert np.mean(curves[name]) == pytest.approx(figures[key], abs=1e-4)


def test_the_size_of_a_found_mask_is_its_own(made) -> None:
    truth, results = made
    wrong = [{**one, "bbox": [0, 0, made_up.WIDTH, made_up.HEIGHT]} for one in results]
    same = metrics.measure(truth, wrong, kinds=("mask",)).groups["mask"]["all"]
    assert same == metrics.measure(truth, results, kinds=("mask",)).groups["mask"]["all"]


def test_mean_iou_of_the_truths_boxes(made) -> None:
    truth, _ = made
    objects = [one for one in truth["annotations"] if not one["iscrowd"]]
    full = made_up.encode(np.ones([made_up.HEIGHT, made_up.WIDTH]))
    results = [{**one, "annotation_id": one["id"], "segmentation": full} for one in objects if one["category_id"] != 7]
    ious = metrics.mean_ious(truth, results)
    for category in (3, 8, 20):
        areas = [one["area"] for one in objects if one["category_id"] == category]
        assert ious[category] == pytest.approx(np.mean(areas) / (made_up.HEIGHT * made_up.WIDTH))
    assert ious[7] == 0.0


def test_gap_to_the_oracle(made, measured) -> None:
    truth, results = made
    best = metrics.measure(truth, results + [{**one, "score": 1.0} for one in truth["annotations"]], kinds=("mask",))
    ours, theirs = measured.as_json(), best.as_json()
    found = metrics.gap(ours, theirs, "all")
    entry = found["mask"]["AP"]
    assert set(found) == {"mask"}
    assert entry["difference"] == pytest.approx(entry["oracle"] - entry["method"])
    assert entry["share"] == pytest.approx(entry["method"] / entry["oracle"])
    assert metrics.gap(ours, theirs) == {}
    with pytest.raises(BadInput, match="oracle: expected figures over B"):
        gap_text(ours, theirs)
    assert "100.0" in gap_text(ours, ours)


def test_logged_figures(measured) -> None:
    flat = measured.flat(["AP"])
    assert set(flat) == {f"{kind}/{group}/AP" for kind in ("box", "mask") for group in ("all", "A", "B")}
    assert flat["mask/B/AP"] == measured.groups["mask"]["B"]["AP"]


def test_classes_are_matched_by_name(made) -> None:
    assert category_of(made[0], ("hat", "unknown", "cat")) == {1: 8, 3: 3}
    with pytest.raises(BadInput, match="expected classes of the model, such as bird; found others, such as cat"):
        category_of(made[0], ("bird",))


@oracle.needs_oracle
@pytest.mark.parametrize("engine", ["pycocotools", "faster"])
def test_equal_on_the_oracles_detections(engine) -> None:
    if engine == "faster":
        pytest.importorskip("faster_coco_eval", reason="the extra eval is not installed")
    outputs = oracle.outputs()
    results, annotations, images = [], [], []
    rng = np.random.default_rng(0)
    for number, name in enumerate("ab", 1):
        height, width = outputs[f"{name}/image_uint8"].shape[:2]
        images.append({"id": number, "height": height, "width": width})
        packed = outputs[f"{name}/masks_pasted_ge_half_packed"]
        masks = np.unpackbits(packed, axis=-1)[..., :width].reshape(-1, height, width)
        for index, (x1, y1, x2, y2) in enumerate(outputs[f"{name}/boxes"].tolist()):
            label, score = int(outputs[f"{name}/labels"][index]), float(outputs[f"{name}/scores"][index])
            bbox, rle = [x1, y1, x2 - x1, y2 - y1], made_up.encode(masks[index])
            place = {"image_id": number, "category_id": label, "bbox": bbox}
            results.append({**place, "score": score, "segmentation": rle})
            if index % 3 == 0:  # a third is true, but for some pixels
                pixels = masks[index] & (rng.uniform(size=masks[index].shape) < 0.9)
                own = {"id": len(annotations) + 1, "iscrowd": 0, "area": int(pixels.sum())}
                annotations.append({**place, **own, "segmentation": made_up.encode(pixels)})
    truth = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": label, "name": str(label)} for label in range(1, 8)],
    }
    for kind in ("box", "mask"):
        ours = coco.summary(coco.score(truth, results, kind, engine), kind)
        assert 0 < ours["AP"] < 1
        assert_equal(ours, by_hand(truth, results, kind))
