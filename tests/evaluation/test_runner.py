"""Evaluation batch by batch: original pixels, blank images, true boxes, resuming, and memory."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from pycocotools import mask as coco_mask

from maskx_tf.errors import BadInput
from maskx_tf.evaluation import runner, store
from maskx_tf.evaluation.evaluate import evaluate
from maskx_tf.evaluation.store import Store
from maskx_tf.masks import grabcut
from maskx_tf.masks.paste import Crop, paste
from maskx_tf.masks.rle import encode_crop
from maskx_tf.masks.steps import MaskSteps
from maskx_tf.models.inference import Predictor
from maskx_tf.structures import Detections
from tests import disk
from tests.models.small import CLASSES, IMAGE_SIZES, SIDE, config, images, small_model

# The truth's categories in another order than the model's classes (cat, dog, horse), and one that the model has not.
CATEGORIES = [(40, "horse"), (5, "ghost"), (10, "cat")]
ORIGINAL = np.array([[128.0, 128.0], [98.0, 116.0]], np.float32)


class Canvas(np.ndarray):
    """An array that can be watched as it goes."""


def truth() -> dict:
    square = [[20.0, 30.0, 80.0, 30.0, 80.0, 90.0, 20.0, 90.0]]
    annotations = [
        {"id": 1, "image_id": 11, "category_id": 40, "bbox": [20.0, 30.0, 60.0, 60.0], "segmentation": square},
        {"id": 2, "image_id": 11, "category_id": 5, "bbox": [2.0, 3.0, 30.0, 20.0], "segmentation": square},
        {"id": 3, "image_id": 11, "category_id": 10, "bbox": [2.0, 3.0, 30.0, 20.0], "iscrowd": 1},
        {"id": 4, "image_id": 12, "category_id": 10, "bbox": [8.0, 4.0, 50.0, 70.0]},
    ]
    sizes = [{"id": 11 + row, "height": int(h), "width": int(w)} for row, (h, w) in enumerate(ORIGINAL)]
    return {
        "images": sizes,
        "categories": [{"id": number, "name": name} for number, name in CATEGORIES],
        "annotations": [{"area": 1000, "iscrowd": 0, **one} for one in annotations],
    }


def batches():
    """Two images, and a blank one."""
    pixels = np.concatenate([images(), np.zeros([1, SIDE, SIDE, 3], np.float32)])
    yield {
        "images": tf.constant(pixels),
        "image_sizes": tf.constant(np.concatenate([IMAGE_SIZES, [[SIDE, SIDE]]]), tf.float32),
        "original_sizes": tf.constant(np.concatenate([ORIGINAL, [[SIDE, SIDE]]]), tf.float32),
        "image_ids": tf.constant([11, 12, -1], tf.int64),
        "image_valid": tf.constant([1, 1, 0], tf.uint8),
    }


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    settings = config(backbone={"name": "resnet_small", "norm": "group", "frozen_stages": 0})
    return Predictor(small_model(settings), (SIDE, SIDE))


def ran(predictor, path: Path, **options) -> list[dict]:
    held = Store(path / "detections.jsonl", "")
    runner.run(predictor, batches(), truth(), held, class_names=CLASSES, **options)
    return list(store.read(path / "detections.jsonl"))


def test_detections_are_those_of_the_model_in_original_pixels(predictor, tmp_path) -> None:
    results = ran(predictor, tmp_path)
    found = predictor.detect(tf.constant(images()), tf.constant(IMAGE_SIZES))
    ids = {1: 10, 3: 40}  # the truth knows no dog
    expected = [
        (11 + row, ids[int(found.classes[row, index])], row, index)
        for row in range(2)
        for index in range(found.valid.shape[1])
        if found.valid[row, index] and int(found.classes[row, index]) in ids
    ]
    assert 0 < len(expected) < int(np.sum(found.valid))
    assert [(one["image_id"], one["category_id"]) for one in results] == [one[:2] for one in expected]
    for one, (_, _, row, index) in zip(results, expected, strict=True):
        box = found.boxes[row, index].numpy() * 2.0
        np.testing.assert_allclose(one["bbox"], [*box[:2], *(box[2:] - box[:2])], atol=1e-3)
        assert one["score"] == pytest.approx(float(found.scores[row, index]), abs=1e-6)
        height, width = ORIGINAL[row].astype(int).tolist()
        pixels = paste(found.masks[row, index].numpy()[None], box[None], height, width)[0]
        np.testing.assert_array_equal(coco_mask.decode(one["segmentation"]).astype(bool), pixels)


def test_masks_of_true_boxes(predictor, tmp_path) -> None:
    results = ran(predictor, tmp_path, boxes="truth")
    # Neither the crowd nor the class that the model does not know.
    kept = [(one["image_id"], one["annotation_id"], one["category_id"], one["score"]) for one in results]
    assert kept == [(11, 1, 40, 1.0), (12, 4, 10, 1.0)]
    assert [one["bbox"] for one in results] == [[20.0, 30.0, 60.0, 60.0], [8.0, 4.0, 50.0, 70.0]]
    boxes = np.array([[[10, 15, 40, 45]], [[4, 2, 29, 37]]], np.float32)
    classes = tf.constant([[3], [1]])
    expected = predictor.segment(tf.constant(images()), tf.constant(IMAGE_SIZES), tf.constant(boxes), classes)
    for row, one in enumerate(results):
        height, width = ORIGINAL[row].astype(int).tolist()
        pixels = paste(expected.masks[row].numpy(), 2 * boxes[row], height, width)[0]
        differ = coco_mask.decode(one["segmentation"]).astype(bool) != pixels
        assert differ.mean() < 1e-3  # a probability of one half may fall to either side
    metrics = evaluate(predictor, batches(), truth(), class_names=CLASSES, boxes="truth")
    assert list(metrics.groups) == ["mask"]
    assert 0 <= metrics.groups["mask"]["all"]["IoU"] <= 1


def test_finished_images_are_not_asked_again(predictor, tmp_path) -> None:
    path = tmp_path / "detections.jsonl"
    everything = ran(predictor, tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    asked = []

    def detect(canvas, sizes):
        asked.append(np.asarray(sizes).tolist())
        return predictor.detect(canvas, sizes)

    spy = SimpleNamespace(detect=detect, model=predictor.model)
    for count, left in ((3, []), (2, [IMAGE_SIZES[1:].tolist()]), (1, [IMAGE_SIZES.tolist()])):
        asked.clear()
        path.write_bytes(b"".join(lines[:count]) + b'{"image_id": 12, "det'[: 10 * (count < 3)])
        ticks = []
        again = ran(spy, tmp_path, on_image=lambda ticks=ticks: ticks.append(1))
        assert [one["image_id"] for one in again] == [one["image_id"] for one in everything]
        # Another size of batch may change the last digits.
        assert [one["score"] for one in again] == pytest.approx([one["score"] for one in everything], abs=1e-5)
        assert asked == left
        assert len(ticks) == 2


def test_evaluate_writes_and_scores(predictor, tmp_path) -> None:
    said: list[str] = []
    first = evaluate(predictor, batches(), truth(), class_names=CLASSES, classes_a={"cat"}, out=tmp_path)
    again = evaluate(
        predictor, iter(()), truth(), class_names=CLASSES, classes_a={"cat"}, out=tmp_path, say=said.append
    )
    assert first == again
    assert said == [f"{tmp_path / 'detections.jsonl'}: going on with 2 images done"]
    assert set(first.groups) == {"box", "mask"}
    assert [one.set for one in first.classes["mask"]] == ["B", "B", "A"]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results == list(store.read(tmp_path / "detections.jsonl"))
    assert json.loads(json.dumps(first.as_json()))["groups"] == first.groups


def test_two_evaluations_do_not_share_a_folder(predictor, tmp_path) -> None:
    with store.in_use(tmp_path / "new"), pytest.raises(BadInput, match="folder that is not in use"):
        evaluate(predictor, iter(()), truth(), class_names=CLASSES, out=tmp_path / "new")
    assert disk.names_in(tmp_path) == ["new"]


def test_detections_made_otherwise_are_not_used(predictor, tmp_path) -> None:
    def done(**options) -> bool:
        """Whether all images of an evaluation without batches were done before."""
        said: list[str] = []
        evaluate(predictor, iter(()), truth(), class_names=CLASSES, out=tmp_path, say=said.append, **options)
        return said[-1].endswith("going on with 2 images done")

    evaluate(predictor, batches(), truth(), class_names=CLASSES, out=tmp_path, facts={"score": 0.05})
    assert done(facts={"score": 0.05})
    for options in (
        {"facts": {"score": 0.1}},
        {"boxes": "truth", "facts": {"score": 0.05}},
        {"paste": "integer"},
        {"steps": MaskSteps(disjoint=True), "facts": {"score": 0.05}},
    ):
        evaluate(predictor, batches(), truth(), class_names=CLASSES, out=tmp_path, facts={"score": 0.05})
        assert not done(**options)


def test_a_model_without_masks_has_boxes_alone_unless_something_else_makes_masks(monkeypatch) -> None:
    boxes = np.array([[[10, 15, 40, 45], [0, 0, 5, 5]]] * 2, np.float32)
    found = Detections(boxes, np.full([2, 2], 0.5), np.array([[3, 0]] * 2), np.array([[True, False]] * 2))
    fake = SimpleNamespace(detect=lambda canvas, sizes: found, model=SimpleNamespace(outputs=frozenset({"boxes"})))
    batch = {key: value[:2] for key, value in next(batches()).items()}
    assert list(evaluate(fake, [batch], truth(), class_names=CLASSES).groups) == ["box"]

    def segment(image_id: int, boxes: np.ndarray) -> list[Crop]:
        assert image_id in (11, 12)
        return [Crop(20, 30, np.ones([60, 60], bool)) for _ in boxes]

    monkeypatch.setattr(grabcut, "segment", segment)
    metrics = evaluate(
        fake, [batch], truth(), class_names=CLASSES, steps=MaskSteps(grabcut=True), pixels=lambda number: number
    )
    assert metrics.classes["mask"][0].figures["AP50"] == metrics.classes["box"][0].figures["AP50"] > 0


def test_memory_holds_one_batch_at_a_time(tmp_path) -> None:
    boxes = np.tile(np.array([0, 0, 8, 8], np.float32), [1, 50, 1])
    masks = np.random.default_rng(0).uniform(size=[1, 50, 28, 28]).astype(np.float32)
    found = Detections(boxes, np.full([1, 50], 0.5), np.ones([1, 50], int), np.ones([1, 50], bool), masks)
    fake = SimpleNamespace(detect=lambda canvas, sizes: found)
    seen: list[weakref.ref] = []
    most = 0

    def stream():
        nonlocal most
        for number in range(20):
            canvas = np.zeros([1, 8, 8, 3], np.uint8).view(Canvas)
            seen.append(weakref.ref(canvas))
            most = max(most, sum(one() is not None for one in seen))
            yield {
                "images": canvas,
                "image_sizes": np.full([1, 2], 8.0),
                "original_sizes": np.full([1, 2], 80.0),
                "image_ids": np.array([number]),
                "image_valid": np.array([1]),
            }

    held = Store(tmp_path / "detections.jsonl", "")
    runner.run(fake, stream(), truth(), held, class_names=CLASSES)
    kept = sum(len(json.dumps(value, default=list)) for value in vars(held).values() if isinstance(value, set))
    assert most <= 2  # the one that is asked about, and the next
    assert kept < 200  # the numbers of the images, and none of the thousand masks
    assert len(list(store.read(tmp_path / "detections.jsonl"))) == 1000


@pytest.mark.parametrize("case", ["inside", "top left", "bottom right", "all", "none", "no rows", "random"])
def test_run_lengths_of_a_box(case) -> None:
    height, width = 13, 17
    left, top, pixels = {
        "inside": (3, 4, np.eye(5, 6)),
        "top left": (0, 0, np.ones([3, 2])),
        "bottom right": (15, 10, np.ones([3, 2])),
        "all": (0, 0, np.ones([13, 17])),
        "none": (2, 2, np.zeros([4, 4])),
        "no rows": (17, 13, np.zeros([0, 0])),
        "random": (1, 2, np.random.default_rng(0).integers(0, 2, [10, 15])),
    }[case]
    whole = np.zeros([height, width], np.uint8)
    whole[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    expected = coco_mask.encode(np.asfortranarray(whole))
    found = encode_crop(Crop(left, top, pixels.astype(bool)), height, width)
    assert found == {"size": [height, width], "counts": expected["counts"].decode()}


def test_fingerprint_changes_with_weights_truth_and_facts(predictor) -> None:
    marks = [runner.fingerprint(predictor, truth()), runner.fingerprint(predictor, truth())]
    assert marks[0] == marks[1]
    marks.append(runner.fingerprint(predictor, {**truth(), "annotations": []}))
    marks.append(runner.fingerprint(predictor, truth(), score=0.1))
    weight = predictor.model.box.predictor.class_bias
    before = weight.numpy()
    weight.assign(before + 1e-3)
    marks.append(runner.fingerprint(predictor, truth()))
    weight.assign(before)
    assert len(set(marks)) == 4
