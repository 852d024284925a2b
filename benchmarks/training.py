"""What a training step costs: `python -m benchmarks.training [step|vocabulary|replicas|fcis]`.

Mask R-CNN, ResNet-50-FPN, 512x512, 2 images, 10 instances each, 512 RoIs an image of which up to 128 go through the
mask head, as many as the foreground needs; stem and res2 frozen. Beside it the train step of the backbone and its
pyramid alone, with the same freezing and optimizer, whose loss is the mean square of its maps. Each row runs in a
new process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from benchmarks.measure import Cost, machine, measure, show
from maskx_tf.config import Config
from maskx_tf.models.rcnn import RCNN
from maskx_tf.training import distribute, dry
from maskx_tf.training.fit import compiled
from maskx_tf.training.optimizer import SGD

REPEAT = 5
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}
ALONE = "R50-FPN alone"


def step() -> None:
    """Prints the whole step next to its backbone's."""
    for precision in PRECISIONS:
        costs: dict[str, Cost] = {ALONE: measure(_alone, precision, repeat=REPEAT)}
        for family in ("faster_rcnn", "mask_rcnn", "mask_x_rcnn"):
            costs[family] = measure(whole_step, family, 80, precision, 1, repeat=REPEAT)
        costs["fcis, hard examples"] = measure(whole_step, "fcis", 80, precision, 1, repeat=REPEAT)
        show(f"A training step, {precision}", costs, base=ALONE)


def vocabulary() -> None:
    """Prints Mask^X R-CNN's step with more and more classes."""
    costs = {
        f"{count} classes": measure(whole_step, "mask_x_rcnn", count, "fp32", 1, repeat=REPEAT) for count in (80, 3000)
    }
    show("A training step of Mask^X R-CNN, fp32", costs, base="80 classes")


def replicas() -> None:
    """Prints the step of one device, and of two that share this machine's cores: what mirroring itself costs."""
    costs = {
        f"{count} replica(s)": measure(whole_step, "mask_rcnn", 80, "fp32", count, repeat=REPEAT) for count in (1, 2)
    }
    show("A training step of Mask R-CNN, the same 2 images, fp32", costs, base="1 replica(s)")


def fcis() -> None:
    """Prints the step of FCIS next to that of its maps alone, with all that they are computed from."""
    costs = {
        "up to the maps": measure(_maps_of_fcis, repeat=REPEAT),
        "fcis, hard examples": measure(whole_step, "fcis", 80, "fp32", 1, repeat=REPEAT),
    }
    show("A training step of FCIS, fp32", costs, base="up to the maps")


# On one map of stride 16, with 300 proposals and the truth, all of which are pooled, and 128 of them learn.
FCIS: dict[str, Any] = {
    "backbone": {"neck": "dc5", "stride_in_1x1": True, "stem_pool": "ceil"},
    "anchors": {"sizes": [[64, 128, 256, 512]], "rounding": "detectron"},
    "rpn": {"pre_nms_train": 6000, "post_nms_train": 300, "min_size": 2},
    "box": {"rois": 128},
    "fcis": {"ohem": True},
}


def _config(family: str, classes: int, precision: str) -> Config:
    return Config.model_validate(
        {
            "model": {
                "family": family,
                "class_names": [f"class {number}" for number in range(classes)],
                "input": {"canvas": (512, 512), "short_side": 512, "long_side": 512},
                **(FCIS if family == "fcis" else {}),
            },
            "data": {"max_instances": 10},
            "train": {"batch": 2, "precision": PRECISIONS[precision], "strategy": "one"},
        }
    )


def whole_step(family: str, classes: int, precision: str, count: int) -> Callable[[], Any]:
    """A training step on so many devices."""
    if count > 1:
        device = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * count)
    strategy = distribute.choose("mirrored" if count > 1 else "one")
    config = _config(family, classes, precision)
    with strategy.scope():
        model = compiled(config)
    batch = dry.made_up(config, config.train.batch // count)
    data = distribute.spread(lambda *place: tf.data.Dataset.from_tensors(batch).repeat(), strategy)
    iterator = iter(data)
    model.make_train_function()
    return lambda: {name: float(value) for name, value in model.train_function(iterator).items()}


def _alone(precision: str) -> Callable[[], Any]:
    model = compiled(_config("faster_rcnn", 80, precision))
    return _step_of(model, [model.backbone, model.neck], lambda features: features)


def _maps_of_fcis() -> Callable[[], Any]:
    model = compiled(_config("fcis", 80, "fp32"))
    heads = [model.rpn.head, *model.box.layers()]

    def maps(features: list[tf.Tensor]) -> list[tf.Tensor]:
        return tf.nest.flatten([model.rpn.head(features), model.box.layers()[0](features[-1])])

    return _step_of(model, [model.backbone, model.neck, *heads], maps)


def _step_of(
    model: RCNN, layers: list[keras.layers.Layer], outputs: Callable[[list[tf.Tensor]], list[tf.Tensor]]
) -> Callable[[], Any]:
    """A step of some layers, whose loss is the mean square of what is computed from the features."""
    batch = dry.made_up(_config("faster_rcnn", 80, "fp32"), 2)
    images, sizes = tf.constant(batch["images"]), tf.constant(batch["image_sizes"])
    variables = [variable for layer in layers for variable in layer.trainable_variables]
    optimizer = SGD(1e-4, momentum=0.9, weight_decay=1e-4)
    optimizer.build(variables)

    @tf.function
    def train() -> tf.Tensor:
        with tf.GradientTape() as tape:
            parts = outputs(model.features(images, sizes, training=True))
            loss = tf.add_n([tf.reduce_mean(tf.square(tf.cast(part, tf.float32))) for part in parts])
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    return lambda: float(train())


PARTS = {"step": step, "vocabulary": vocabulary, "replicas": replicas, "fcis": fcis}

if __name__ == "__main__":
    chosen = sys.argv[1:] or list(PARTS)
    if set(chosen) - set(PARTS):
        sys.exit(f"expected {', '.join(PARTS)}, found {' '.join(sys.argv[1:])}")
    print(machine(), f"TensorFlow {tf.__version__}", f"Keras {keras.__version__}", sep=", ")
    for name in chosen:
        PARTS[name]()
