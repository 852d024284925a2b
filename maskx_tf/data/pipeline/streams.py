"""Training batches of images that a `tf.data.Dataset` of the user's own yields."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from maskx_tf.config.data import DataConfig
from maskx_tf.config.detector import InputConfig
from maskx_tf.data import splits
from maskx_tf.data.dataset import Dataset, ImageRecord, Instance
from maskx_tf.data.pipeline import batches
from maskx_tf.data.pipeline.examples import Examples, fields_with, instance_arrays
from maskx_tf.data.pipeline.sample import as_sample
from maskx_tf.errors import BadInput
from maskx_tf.masks import rle

ELEMENT_KEYS = {"image", "boxes", "classes"}
STREAM = "the images of the tf.data.Dataset"  # in messages


def check(images: tf.data.Dataset) -> None:
    """Raises BadInput unless the elements are dicts of what `training` needs."""
    spec = images.element_spec
    names = set(spec) if isinstance(spec, dict) else set()
    if not ELEMENT_KEYS <= names <= ELEMENT_KEYS | {"masks"}:
        found = ", ".join(sorted(names)) or type(spec).__name__
        raise BadInput(f"{STREAM}: expected dicts of image, boxes, classes and, optionally, masks; found {found}")


def training(
    images: tf.data.Dataset,
    data: DataConfig,
    model_input: InputConfig,
    class_names: tuple[str, ...],
    policy: splits.Policy,
    *,
    batch: int,
    start: int = 0,
    devices: int = 1,
) -> tf.data.Dataset:
    """Returns endless batches of a data set of images; docs/pipeline.md lists their fields.

    Args:
        images: in their order, again and again. An element is a dict: `image` uint8 [h, w, 3], `boxes` [n, 4] as
            x1, y1, x2, y2 in pixels, `classes` [n] from 1 on, and optionally `masks` bool [n, h, w], of which one
            without a pixel is unknown.
        data: how images are varied.
        model_input: the canvas.
        class_names: class k is class_names[k - 1].
        policy: which classes keep their masks.
        batch: images a step.
        start: the step of the first batch; the images before it are read and dropped.
        devices: a batch comes in as many pieces, one after the other.

    Raises:
        BadInput: the elements are something else, or the devices cannot share a batch.
    """
    check(images)
    share = batches.share_of(batch, 0, devices, "devices")
    empty = Dataset(STREAM, class_names, tuple(range(1, len(class_names) + 1)), ())
    fields = fields_with(())

    def arrays(number: np.int64, image: NDArray[Any], *values: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        record = _record(int(number), image, values, len(class_names))
        found = instance_arrays(splits.apply(empty._replace(images=(record,)), policy), 0, ())
        return tuple(found[field.name] for field in fields)

    def one(number: tf.Tensor, element: dict[str, tf.Tensor]) -> batches.Batch:
        given = [element[name] for name in ("image", "boxes", "classes", "masks") if name in element]
        found = tf.numpy_function(arrays, [number, *given], [tf.as_dtype(field.dtype) for field in fields])
        by_name = {field.name: value for field, value in zip(fields, found, strict=True)}
        sample = as_sample(tf.cast(element["image"], tf.uint8), fields, by_name)
        single = Examples(STREAM, class_names, 1, fields, lambda _: (number, sample))
        return batches.varied_entry(single, data, model_input, number)

    numbered = images.repeat().enumerate().skip(start * batch)
    return batches.batched(numbered, one, share, data.workers)


def _record(number: int, image: NDArray[Any], values: tuple[NDArray[Any], ...], classes: int) -> ImageRecord:
    """The element as a record without pixels.

    Raises:
        BadInput: its arrays do not fit each other.
    """
    where = f"{STREAM}: number {number}"
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise BadInput(f"{where}: expected an image uint8 [h, w, 3], found {image.dtype} {list(image.shape)}")
    boxes, labels, *masks = values
    height, width = image.shape[:2]
    expected = [(len(labels), 4), (len(labels),), (len(labels), height, width)]
    for name, value, shape in zip(("boxes", "classes", "masks"), values, expected, strict=False):
        if value.shape != shape:
            raise BadInput(f"{where}: {name}: expected {list(shape)}, found {list(value.shape)}")
    if not np.isfinite(boxes).all() or not ((labels >= 1) & (labels <= classes)).all():
        raise BadInput(f"{where}: expected finite boxes, and classes from 1 to {classes}")
    forms = [rle.encode(mask) if mask.any() else None for mask in masks[0]] if masks else [None] * len(labels)
    rows = zip(boxes.tolist(), labels.tolist(), forms, strict=True)
    return ImageRecord(
        number, b"", width, height, tuple(Instance(tuple(box), label, False, form) for box, label, form in rows)
    )
