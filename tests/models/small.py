"""Small models for tests, with weights that give detections, and their inputs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.config.model import MAPS, ModelConfig
from maskx_tf.layers.applications import Application
from maskx_tf.models.build import build
from maskx_tf.models.inference import Predictor
from maskx_tf.models.rcnn import RCNN
from maskx_tf.structures import Detections, Targets

SIDE = 64
CLASSES = ("cat", "dog", "horse")
# The second image does not fill its canvas.
IMAGE_SIZES = np.array([[SIDE, SIDE], [49.0, 58.0]], np.float32)
SIZES = (8.0, 16.0, 32.0, 48.0, 64.0)

DEFAULTS: dict[str, Any] = {
    "family": "mask_x_rcnn",
    "class_names": CLASSES,
    "input": {"canvas": (SIDE, SIDE), "short_side": SIDE, "long_side": SIDE},
    "backbone": {"name": "resnet_small", "fpn_channels": 32},
    "rpn": {"pre_nms_test": 40, "post_nms_test": 20, "pre_nms_train": 40, "post_nms_train": 20, "samples": 1024},
    "box": {"width": 32, "rois": 16, "positive_fraction": 0.5},
    "mask": {"channels": 32, "convs": 2, "mlp_width": 32},
    "detections": {"limit": 7, "score": 0.05},
}


def config(**sections: Any) -> ModelConfig:
    """The defaults above, with settings replaced one by one."""
    merged = {key: dict(value) if isinstance(value, dict) else value for key, value in DEFAULTS.items()}
    for key, value in sections.items():
        merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
    maps = MAPS[merged["backbone"].get("neck", "fpn")]
    sizes = tuple((size,) for size in SIZES) if maps == 5 else (SIZES[:3],)
    merged["anchors"] = {"sizes": sizes, **merged.get("anchors", {})}
    return ModelConfig(**merged)


def small_model(settings: ModelConfig, *, portable: bool = False, seed: int = 0) -> RCNN:
    """A model whose scores, boxes and masks differ from region to region: equal ones would sort in any order."""
    keras.utils.set_random_seed(seed)
    model = build(settings, portable=portable)
    enliven(model, seed)
    return model


def images() -> np.ndarray:
    """Two canvases of blocks of colour in 0..255, zero beyond each image."""
    rng = np.random.default_rng(0)
    blocks = rng.uniform(0, 255, (2, SIDE // 8, SIDE // 8, 3)).repeat(8, axis=1).repeat(8, axis=2)
    pixels = np.clip(blocks + rng.normal(0, 20, blocks.shape), 0, 255)
    for canvas, (height, width) in zip(pixels, IMAGE_SIZES.astype(int), strict=True):
        canvas[height:] = 0
        canvas[:, width:] = 0
    return pixels.astype(np.float32)


def inputs() -> dict[str, tf.Tensor]:
    """What a model is called with."""
    return {"images": tf.constant(images()), "image_sizes": tf.constant(IMAGE_SIZES)}


def truth(*, has_mask: Any = ((True, True, False), (False, True, False))) -> Targets:
    """Two instances an image and one of padding; classes 1 and 2, then 3, which has no mask (B), and 1."""
    boxes = [[[4, 6, 30, 38], [20, 10, 62, 50], [0, 0, 0, 0]], [[2, 2, 25, 20], [10, 15, 38, 45], [0, 0, 0, 0]]]
    grid = np.indices((28, 28)).sum(axis=0)
    masks = np.stack([grid < 28, grid % 7 < 4, grid < 0] * 2).reshape(2, 3, 28, 28)
    return Targets(
        boxes=tf.constant(boxes, tf.float32),
        classes=tf.constant([[1, 2, 0], [3, 1, 0]]),
        valid=tf.constant([[True, True, False]] * 2),
        crowd=tf.zeros([2, 3], tf.bool),
        masks=tf.constant(masks, tf.float32),
        has_mask=tf.constant(has_mask),
    )


def loss_inputs(targets: Targets | None = None) -> tuple[tf.Tensor, tf.Tensor, Targets, tf.Tensor]:
    """What `losses_of` is called with."""
    asked = inputs()
    return asked["images"], asked["image_sizes"], truth() if targets is None else targets, tf.constant([3, 4])


def predict_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes predictors call their model without a graph: to trace one takes longer than a few images do."""
    monkeypatch.setattr(Predictor, "_compile", lambda self, function, specs: function)


def enliven(model: RCNN, seed: int = 0) -> None:
    """Sets the last layers' weights so that outputs over the regions of our images have mean 0 and a useful spread."""
    rng = np.random.default_rng(seed)
    asked = inputs()
    if isinstance(model.backbone, Application):
        wake(model)
    scene = model.scene(asked["images"], asked["image_sizes"])
    features = scene.features

    hidden = np.concatenate([flat(model.rpn.head.conv(level)) for level in features])
    for conv, spread in ((model.rpn.head.objectness, 2.0), (model.rpn.head.deltas, 0.2)):
        weights, bias = spread_out(rng, hidden, conv.filters, spread)
        conv.kernel.assign(weights.T[None, None])
        conv.bias.assign(bias)

    outputs = model.rpn.outputs(features)
    regions = model.rpn.test.choose(outputs, asked["image_sizes"]).boxes
    vectors = flat(model.box.vectors(features, regions))
    predictor = model.box.predictor
    for rows, bias, spread in (
        (predictor.class_rows, predictor.class_bias, 2.0),
        (predictor.box_rows, predictor.box_bias, 1.0),
    ):
        weights, offsets = spread_out(rng, vectors, int(np.prod(rows.shape[:-1])), spread)
        rows.assign(weights.reshape(rows.shape))
        bias.assign(offsets.reshape(bias.shape))
    if "masks" in model.outputs:
        last = last_mask_weights(model)
        read, classes = model.mask.read(scene, regions), tf.ones(regions.shape[:2], tf.int32)
        masks = model.mask.logits(read, classes, model.mask.prepare())
        last.assign(last / (np.std(masks) + 1e-9))


def wake(model: RCNN) -> None:
    """Keras' kernels at the start shrink what flows through fifty of them to nothing, where norms are not measured."""
    pixels = model.normaliser.apply(*inputs().values())
    kernels = [weight for weight in model.backbone.weights if "kernel" in weight.name]
    for _ in range(3):
        scale = np.std(model.backbone(pixels)[-1]) ** (-1.0 / len(kernels))
        for kernel in kernels:
            kernel.assign(kernel * scale)


def last_mask_weights(model: RCNN) -> keras.Variable:
    """The weights that the mask logits are proportional to, but for branches and biases."""
    if model.mask.filters is not None:
        return model.mask.filters.transfer.dense[-1].kernel
    return model.mask.head.predictor.rows if hasattr(model.mask.head, "predictor") else model.mask.head.rows


def flat(values: tf.Tensor) -> np.ndarray:
    """[rows, C]."""
    return np.reshape(np.asarray(values), [-1, values.shape[-1]])


def spread_out(
    rng: np.random.Generator, rows: np.ndarray, outputs: int, spread: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weights [outputs, C] and bias that give these rows outputs of mean 0 and this standard deviation."""
    weights = rng.normal(size=(outputs, rows.shape[-1]))
    results = rows @ weights.T
    scale = spread / (results.std(axis=0) + 1e-9)
    return weights * scale[:, None], -results.mean(axis=0) * scale


def assert_same_detections(
    found: Detections, expected: Detections, *, pixels: float = 1e-2, tolerance: float = 1e-3
) -> None:
    """The same objects in the same order; boxes to a share of a pixel."""
    np.testing.assert_array_equal(found.valid, expected.valid)
    np.testing.assert_array_equal(found.classes, expected.classes)
    np.testing.assert_allclose(found.scores, expected.scores, atol=tolerance)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=pixels)
    assert (found.masks is None) == (expected.masks is None)
    if found.masks is not None:
        np.testing.assert_allclose(found.masks, expected.masks, atol=tolerance)


def of_image(found: Detections, image: int) -> Detections:
    """The detections of one image, still a batch."""
    return found.mapped(lambda part: part[image : image + 1])
