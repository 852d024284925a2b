"""What a model costs to ask: `python -m benchmarks.inference [vocabulary|exported|stages|keypoints|fcis] [fp32|bf16]`.

Mask^X R-CNN, ResNet-50-FPN, one image of 800x1216, 100 detections, random weights; the work does not depend on them,
because every step has a fixed size. FCIS, ResNet-50, 608x1024, 300 proposals and 600 regions: its vote depends on what
is found, and with random weights it finds 100 objects for which many regions vote. Each row runs in a process
of its own.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from benchmarks.measure import Cost, machine, measure, show
from benchmarks.serving import export
from maskx_tf.config import ModelConfig
from maskx_tf.export.freeze import as_constants
from maskx_tf.masks import paste as paste_ops
from maskx_tf.models.branch import Scene
from maskx_tf.models.build import build
from maskx_tf.models.fcis.head import PositionDetector
from maskx_tf.models.inference import Predictor
from maskx_tf.models.rcnn import RCNN
from maskx_tf.names import COCO_KEYPOINTS
from maskx_tf.ops import images as image_ops
from maskx_tf.structures import Detections, Proposals
from serving import load_test

CANVAS = (800, 1216)
FCIS_CANVAS = (608, 1024)
POLICIES = {"fp32": "float32", "bf16": "mixed_bfloat16"}
VOCABULARIES = (80, 1000, 3000, 10000)
REPEAT = 5


def vocabulary() -> None:
    """Prints the whole model at several numbers of classes next to its backbone and pyramid alone."""
    for precision in POLICIES:
        costs = {"R50-FPN alone": measure(stage_of, "features", precision, repeat=REPEAT)}
        for classes in VOCABULARIES:
            costs[f"whole, {classes} classes, frozen"] = measure(whole, classes, precision, True, repeat=REPEAT)
        for classes in VOCABULARIES:
            costs[f"whole, {classes} classes, not frozen"] = measure(whole, classes, precision, False, repeat=REPEAT)
        show(f"From canvas to detections with masks, {precision}", costs, base="R50-FPN alone")


def exported() -> None:
    """Prints exported SavedModels, which also decode an image of 640x480, next to what Python has."""
    for precision in POLICIES:
        costs = {
            "R50-FPN alone": measure(stage_of, "features", precision, repeat=REPEAT),
            "R50-FPN alone, not frozen": measure(stage_of, "features", precision, False, repeat=REPEAT),
            "whole, 80 classes, not frozen": measure(whole, 80, precision, False, repeat=REPEAT),
        }
        for classes in (VOCABULARIES[0], VOCABULARIES[-1]):
            with tempfile.TemporaryDirectory(prefix="maskx-") as scratch:
                folder = export(Path(scratch), classes, precision == "bf16")
                costs[f"SavedModel, {classes} classes"] = measure(_loaded, folder, repeat=REPEAT)
        show(f"From image to detections with masks, {precision}", costs, base="R50-FPN alone")


def _loaded(folder: Path) -> Callable[[], Any]:
    ask = tf.saved_model.load(str(folder / "1")).signatures["serving_default"]
    image = tf.constant([load_test.example()])
    return lambda: [value.numpy() for value in ask(image_bytes=image).values()]


def stages() -> None:
    """Prints the parts of the whole, each a frozen graph of its own, at 80 classes."""
    for precision in POLICIES:
        costs: dict[str, Cost] = {"letterbox (640x480)": measure(_letterbox, repeat=REPEAT)}
        for stage in ("features", "proposals", "boxes", "masks"):
            costs[stage] = measure(stage_of, stage, precision, repeat=REPEAT)
        costs["paste 100 masks (NumPy)"] = measure(_paste, repeat=REPEAT)
        show(f"Parts, {precision}", costs, base="features")


def keypoints() -> None:
    """Prints the cost of the keypoint branch and of its convolutions, for 100 detections of a class with keypoints."""
    for precision in POLICIES:
        costs = {
            "convolutions of the head": measure(_keypoints, "convolutions", precision, repeat=REPEAT),
            "keypoint branch": measure(_keypoints, "branch", precision, repeat=REPEAT),
            "keypoint branch, every second one": measure(_keypoints, "half", precision, repeat=REPEAT),
        }
        show(f"Keypoints of 100 detections, {precision}", costs, base="convolutions of the head")


def fcis() -> None:
    """Prints FCIS up to its maps, and what comes after them, at 80 classes."""
    costs = {part: measure(_fcis, part, repeat=REPEAT) for part in ("up to the maps", "proposals", "regions and votes")}
    show("FCIS, fp32", costs, base="up to the maps")


def _fcis(part: str) -> Callable[[], Any]:
    config = ModelConfig.model_validate(
        {
            "family": "fcis",
            "class_names": [f"class {number}" for number in range(80)],
            "input": {"canvas": FCIS_CANVAS, "short_side": 608, "long_side": 1024},
            "backbone": {"neck": "dc5", "stride_in_1x1": True, "stem_pool": "ceil"},
            "anchors": {"sizes": [[64, 128, 256, 512]], "rounding": "detectron"},
            "rpn": {"pre_nms_test": 6000, "post_nms_test": 300, "min_size": 2},
            "box": {"delta_weights": (5, 5, 2, 2)},
            "detections": {"score": 0.001, "nms_iou": 0.3, "paste": "replicate"},
        }
    )
    model = build(config)
    pixels = np.random.default_rng(0).integers(0, 256, (1, *FCIS_CANVAS, 3), np.uint8)
    images, sizes = tf.constant(pixels), tf.constant([FCIS_CANVAS], tf.float32)

    detector = model.box
    assert isinstance(detector, PositionDetector)

    def maps(images: tf.Tensor) -> Any:
        features = model.features(images, sizes)
        return model.rpn.head(features), detector.maps(features[-1])

    if part == "up to the maps":
        return _frozen(maps, images)
    features = model.features(images, sizes)
    outputs = model.rpn.outputs(features)
    if part == "proposals":

        def propose(logits: tf.Tensor, deltas: tf.Tensor) -> Any:
            return model.rpn.test.choose(outputs._replace(logits=[logits], deltas=[deltas]), sizes)

        return _frozen(propose, *outputs.logits, *outputs.deltas)
    proposals = model.rpn.test.choose(outputs, sizes)

    def detect(scores: tf.Tensor, deltas: tf.Tensor) -> Any:
        found = detector.detect_on((scores, deltas), Scene(images, sizes, features), proposals)
        return found.boxes, found.masks

    return _frozen(detect, *detector.maps(features[-1]))


def _model(classes: int, precision: str, portable: bool = False) -> RCNN:
    keras.config.set_dtype_policy(POLICIES[precision])
    config = ModelConfig.model_validate(
        {
            "family": "mask_x_rcnn",
            "class_names": [f"class {number}" for number in range(classes)],
            "input": {"canvas": CANVAS, "short_side": 800, "long_side": 1216},
        }
    )
    return build(config, portable=portable)


def _inputs() -> tuple[tf.Tensor, tf.Tensor]:
    pixels = np.random.default_rng(0).integers(0, 256, (1, *CANVAS, 3), np.uint8)
    return tf.constant(pixels), tf.constant([CANVAS], tf.float32)


def whole(classes: int, precision: str, freeze: bool, jit: bool = False) -> Callable[[], Any]:
    """From canvas to detections with masks."""
    predictor = Predictor(_model(classes, precision, portable=jit), CANVAS, freeze=freeze, jit=jit)
    images, sizes = _inputs()
    return lambda: [part.numpy() for part in predictor.detect(images, sizes) if part is not None]


def stage_of(stage: str, precision: str, freeze: bool = True) -> Callable[[], Any]:
    """One part, with what the parts before it give as its input; without freezing, the features alone."""
    model = _model(80, precision)
    images, sizes = _inputs()
    if stage == "features" and not freeze:
        run = tf.function(lambda images: model.features(images, sizes), autograph=False)
        return lambda: [part.numpy() for part in run(images)]
    if stage == "features":
        return _frozen(lambda images: model.features(images, sizes), images)
    features = model.features(images, sizes)
    if stage == "proposals":

        def propose(*features: tf.Tensor) -> Any:
            return model.rpn.test.choose(model.rpn.outputs(list(features)), sizes)

        return _frozen(propose, *features)
    generator = np.random.default_rng(0)
    corners = np.sort(generator.random((1, 1000, 2, 2), np.float32) * [CANVAS[1], CANVAS[0]], axis=2)
    boxes = tf.constant(corners.reshape(1, 1000, 4), tf.float32)
    if stage == "boxes":

        def detect(boxes: tf.Tensor, *features: tf.Tensor) -> Any:
            proposals = Proposals(boxes, tf.ones([1, 1000]), tf.ones([1, 1000], tf.bool))
            return model.box.detect(Scene(images, sizes, list(features)), proposals).boxes

        return _frozen(detect, boxes, *features)
    prepared = as_constants(model.mask.prepare())
    classes = tf.constant(generator.integers(1, 81, (1, 100)), tf.int32)
    return _frozen(
        lambda boxes, *features: model.mask.probabilities(
            Scene(images, sizes, list(features)), boxes, classes, prepared
        ),
        boxes[:, :100],
        *features,
    )


def _keypoints(stage: str, precision: str) -> Callable[[], Any]:
    """The keypoint branch on random maps and boxes, or the eight convolutions of its head on random regions."""
    keras.config.set_dtype_policy(POLICIES[precision])
    settings = {
        "family": "faster_rcnn",
        "class_names": ["person", "dog"],
        "input": {"canvas": CANVAS, "short_side": 800, "long_side": 1216},
        "keypoint": {"use": True, "names": COCO_KEYPOINTS, "classes": ["person"]},
    }
    model = build(ModelConfig.model_validate(settings))
    branch = model.branch("keypoint")
    generator = np.random.default_rng(0)
    if stage == "convolutions":
        (head,) = branch.layers()

        def convolve(regions: tf.Tensor) -> tf.Tensor:
            for conv in head.convs:
                regions = conv(regions)
            return regions

        return _frozen(convolve, tf.constant(generator.normal(size=(100, 14, 14, 256)), head.compute_dtype))
    maps = [
        tf.constant(generator.normal(size=(1, CANVAS[0] // stride, CANVAS[1] // stride, 256)), tf.float32)
        for stride in (4, 8, 16, 32)
    ]
    corners = np.sort(generator.random((1, 100, 2, 2), np.float32) * [CANVAS[1], CANVAS[0]], axis=2)
    boxes = tf.constant(corners.reshape(1, 100, 4), tf.float32)
    classes = tf.constant(np.where(np.arange(100) % 2 == 1, 2 if stage == "half" else 1, 1)[None], tf.int32)
    images, sizes = _inputs()

    def find(boxes: tf.Tensor, *features: tf.Tensor) -> Any:
        found = branch.predict(Scene(images, sizes, list(features)), Detections(boxes, None, classes, None), ())
        return found.keypoints, found.keypoint_scores

    return _frozen(find, boxes, *maps)


def _frozen(function: Callable[..., Any], *inputs: tf.Tensor) -> Callable[[], Any]:
    traced = tf.function(function).get_concrete_function(*[tf.TensorSpec(each.shape, each.dtype) for each in inputs])
    frozen = convert_variables_to_constants_v2(traced, lower_control_flow=False)
    return lambda: [part.numpy() for part in tf.nest.flatten(frozen(*inputs))]


def _letterbox() -> Callable[[], Any]:
    image = tf.constant(np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8))
    run = tf.function(lambda image: image_ops.letterbox(image, canvas=CANVAS, short_side=800, long_side=1216)[0])
    return lambda: run(image).numpy()


def _paste() -> Callable[[], Any]:
    generator = np.random.default_rng(0)
    corner = generator.random((100, 2)) * [CANVAS[1] - 101, CANVAS[0] - 101]
    boxes = np.concatenate([corner, corner + 100], axis=1).astype(np.float32)
    masks = generator.random((100, 28, 28), np.float32)
    return lambda: paste_ops.paste(masks, boxes, *CANVAS)


PARTS = {"vocabulary": vocabulary, "exported": exported, "stages": stages, "keypoints": keypoints, "fcis": fcis}

if __name__ == "__main__":
    print(machine())
    if wanted := [text for text in sys.argv[1:] if text in POLICIES]:
        POLICIES = {name: POLICIES[name] for name in wanted}
    for part in [text for text in sys.argv[1:] if text not in wanted] or PARTS:
        PARTS[part]()
