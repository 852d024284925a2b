"""What the operations cost: `python -m benchmarks.ops [roi_align|nms|paste]`.

RoIAlign's forms are compared with the same mathematics written bare, NMS at 80, 1000 and 3000 classes with
TensorFlow's own kernel, and pasting with resizing every mask to the whole image.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.measure import Cost, machine, measure, show
from maskx_tf.masks import paste as paste_ops
from maskx_tf.ops import detections as detection_ops
from maskx_tf.ops import masks as mask_ops
from maskx_tf.ops import roi_align as align_ops

HEIGHT, WIDTH = 800, 1216
STRIDES = (4, 8, 16, 32)


def roi_align() -> None:
    """Prints what RoIAlign costs: 7x7 of 1000 boxes with 256 channels over P2-P5 of 800x1216."""
    title = "RoIAlign 7x7, 1000 boxes, 256 channels, "
    costs = {name: measure(_align_forward, name) for name in ALIGN_FORMS}
    show(title + "forward", costs, base="bare gather, XLA")
    costs = {name: measure(_align_both, name, repeat=5) for name in ALIGN_FORMS if "no XLA" not in name}
    show(title + "forward and backward", costs, base="bare partition")


def _align_inputs() -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
    generator = np.random.default_rng(0)
    shapes = [(-(-HEIGHT // stride), WIDTH // stride) for stride in STRIDES]
    features = [tf.constant(generator.standard_normal((1, h, w, 256), np.float32)) for h, w in shapes]
    boxes = tf.constant(_boxes(generator, 1000)[None])
    return features, boxes, align_ops.assign_levels(boxes)


def _align_forward(name: str) -> Callable[[], Any]:
    form, jit = ALIGN_FORMS[name]
    features, boxes, levels = _align_inputs()
    compiled = tf.function(lambda *maps: form(maps, boxes, levels, strides=STRIDES, size=7), jit_compile=jit)
    return lambda: compiled(*features)[0, 0, 0, 0, 0].numpy()


def _align_both(name: str) -> Callable[[], Any]:
    form, jit = ALIGN_FORMS[name]
    features, boxes, levels = _align_inputs()

    @tf.function(jit_compile=jit)
    def compiled(*maps: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(maps)
            total = tf.reduce_sum(tf.square(form(maps, boxes, levels, strides=STRIDES, size=7)))
        gradients: list[tf.Tensor] = tape.gradient(total, maps)
        return gradients

    return lambda: compiled(*features)[0][0, 0, 0, 0].numpy()


def nms() -> None:
    """Prints what it costs to get from class scores of 1000 regions to 100 detections."""
    costs: dict[str, Cost] = {}
    for classes in (80, 1000, 3000):
        costs[f"ours, {classes} classes"] = measure(_nms_ours, classes)
        costs[f"combined_non_max_suppression, {classes}"] = measure(_nms_kernel, classes)
    show("Candidates and class-wise NMS, 1000 regions to 100 detections", costs, base="ours, 80 classes")


def _nms_inputs(classes: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Boxes and scores; about two classes a region are above the threshold, as in a trained detector."""
    generator = np.random.default_rng(0)
    boxes = tf.constant(_boxes(generator, 1000)[None])
    logits = generator.standard_normal((1, 1000, classes + 1), np.float32)
    for _ in range(2):
        np.put_along_axis(logits, generator.integers(0, classes + 1, (1, 1000, 1)), 9.0, axis=2)
    return boxes, tf.nn.softmax(logits)[..., 1:]


def _nms_ours(classes: int) -> Callable[[], Any]:
    boxes, scores = _nms_inputs(classes)

    @tf.function
    def run(scores: tf.Tensor) -> tf.Tensor:
        chosen = detection_ops.candidates(scores, tf.ones([1, 1000], tf.bool), threshold=0.05, limit=2000)
        own = tf.gather(boxes, chosen.regions, batch_dims=1)
        sizes = tf.constant([[float(HEIGHT), float(WIDTH)]])
        return detection_ops.detections(own, chosen, image_sizes=sizes, iou_threshold=0.5, limit=100).scores

    return lambda: run(scores).numpy()


def _nms_kernel(classes: int) -> Callable[[], Any]:
    boxes, scores = _nms_inputs(classes)
    run = tf.function(lambda s: tf.image.combined_non_max_suppression(boxes[:, :, None], s, 100, 100, 0.5, 0.05)[1])
    return lambda: run(scores).numpy()


def paste() -> None:
    """Prints what 100 masks of 28x28 on boxes of 100x100 px in 800x1216 cost."""
    costs = {
        "resize each mask to the image": measure(_paste_resize, False, repeat=5),
        "resize all at once": measure(_paste_resize, True, repeat=5),
        "ops.masks.paste (TensorFlow)": measure(_paste_tensorflow),
        "ops.paste.paste (NumPy)": measure(_paste_numpy),
        "ops.paste.paste_crop (NumPy)": measure(_paste_crops),
    }
    show("Pasting 100 masks of 100x100 px onto 800x1216", costs, base="resize each mask to the image")


def _paste_inputs() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    corner = generator.random((100, 2), np.float32) * [WIDTH - 101, HEIGHT - 101]
    return generator.random((100, 28, 28), np.float32), np.concatenate([corner, corner + 100], axis=1, dtype=np.float32)


def _paste_resize(at_once: bool) -> Callable[[], Any]:
    masks = tf.constant(_paste_inputs()[0])

    def resize(masks: tf.Tensor) -> tf.Tensor:
        return tf.image.resize(masks[..., None], [HEIGHT, WIDTH])[..., 0] >= 0.5

    def resize_each(masks: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(resize, masks, fn_output_signature=tf.bool)

    run = tf.function(resize if at_once else resize_each)
    return lambda: run(masks)[0, 0, 0].numpy()


def _paste_tensorflow() -> Callable[[], Any]:
    masks, boxes = (tf.constant(values) for values in _paste_inputs())
    run = tf.function(lambda masks, boxes: mask_ops.paste(masks, boxes, HEIGHT, WIDTH))
    return lambda: run(masks, boxes)[0, 0, 0].numpy()


def _paste_numpy() -> Callable[[], Any]:
    masks, boxes = _paste_inputs()
    return lambda: paste_ops.paste(masks, boxes, HEIGHT, WIDTH)


def _paste_crops() -> Callable[[], Any]:
    masks, boxes = _paste_inputs()
    return lambda: [paste_ops.paste_crop(mask, box, HEIGHT, WIDTH) for mask, box in zip(masks, boxes, strict=True)]


def _boxes(generator: np.random.Generator, count: int) -> np.ndarray:
    """Boxes from 16 to 500 px, spread over the levels of the pyramid."""
    side = np.exp(generator.uniform(np.log(16), np.log(500), count))
    shape = np.exp(generator.uniform(-0.7, 0.7, count))
    size = np.stack([np.minimum(side * shape, WIDTH - 1), np.minimum(side / shape, HEIGHT - 1)], axis=1)
    corner = generator.random((count, 2)) * ([WIDTH, HEIGHT] - size)
    return np.concatenate([corner, corner + size], axis=1).astype(np.float32)


def _bare_partition(
    features: list[tf.Tensor], boxes: tf.Tensor, levels: tf.Tensor, strides: tuple[int, ...], size: int
) -> tf.Tensor:
    """crop_and_resize a level, one image, two samples, aligned; nothing else."""
    boxes, levels, points = boxes[0], levels[0], 2 * size
    rows = tf.dynamic_partition(tf.range(len(boxes)), levels, 4)
    pooled = []
    for level, row, stride in zip(features, rows, strides, strict=True):
        padded = tf.pad(level, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
        edges = tf.gather(boxes, row)[:, ::1] / stride + 0.5
        low, high = edges[:, 1::-1], edges[:, :1:-1]
        inset = 0.5 * (high - low) / points
        last = tf.constant([padded.shape[1] - 1, padded.shape[2] - 1], tf.float32)
        normal = tf.concat([(low + inset) / last, (high - inset) / last], axis=1)
        crops = tf.image.crop_and_resize(padded, normal, tf.zeros_like(row), [points, points])
        pooled.append(tf.nn.avg_pool2d(crops, 2, 2, "VALID"))
    return tf.dynamic_stitch(rows, pooled)[None]


def _bare_gather(
    features: list[tf.Tensor], boxes: tf.Tensor, levels: tf.Tensor, strides: tuple[int, ...], size: int
) -> tf.Tensor:
    """Four corners of four samples gathered from all levels in one table, one image, aligned; nothing else."""
    boxes, levels = boxes[0], levels[0]
    shapes = np.array([level.shape[1:3] for level in features])
    table = tf.concat([tf.reshape(level, [-1, level.shape[-1]]) for level in features], axis=0)
    start = tf.gather(tf.constant(np.cumsum([0, *shapes.prod(1)])[:4], tf.int32), levels)
    cells = tf.gather(tf.constant(shapes, tf.int32), levels)
    edges = boxes / tf.gather(tf.constant(strides, tf.float32), levels)[:, None] - 0.5
    fraction = (tf.range(2 * size, dtype=tf.float32) + 0.5) / (2 * size)

    def axis(low: tf.Tensor, high: tf.Tensor, count: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor]]:
        at = low[:, None] + (high - low)[:, None] * fraction
        limit = tf.cast(count, tf.float32)[:, None]
        inside = tf.cast((at >= -1.0) & (at <= limit), tf.float32)
        at = tf.clip_by_value(at, 0.0, limit - 1.0)
        lower = tf.floor(at)
        upper = tf.minimum(lower + 1.0, limit - 1.0)
        pairs = [(lower, (1.0 - at + lower) * inside), (upper, (at - lower) * inside)]
        return [(tf.reshape(tf.cast(i, tf.int32), [-1, size, 2]), tf.reshape(w, [-1, size, 2])) for i, w in pairs]

    rows, columns = axis(edges[:, 1], edges[:, 3], cells[:, 0]), axis(edges[:, 0], edges[:, 2], cells[:, 1])
    result: Any = 0.0
    for row, row_weight in rows:
        for column, column_weight in columns:
            for i in range(2):
                for j in range(2):
                    index = row[:, :, None, i] * cells[:, 1, None, None] + column[:, None, :, j] + start[:, None, None]
                    weight = 0.25 * row_weight[:, :, None, i] * column_weight[:, None, :, j]
                    result += tf.gather(table, index) * weight[..., None]
    return result[None]


ALIGN_FORMS: dict[str, tuple[Callable[..., tf.Tensor], bool]] = {
    "bare gather, XLA": (_bare_gather, True),
    "bare partition": (_bare_partition, False),
    "roi_align_gather, XLA": (align_ops.roi_align_gather, True),
    "roi_align": (align_ops.roi_align, False),
    "roi_align_gather, no XLA": (align_ops.roi_align_gather, False),
}
PARTS = {"roi_align": roi_align, "nms": nms, "paste": paste}

if __name__ == "__main__":
    print(machine())
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()
