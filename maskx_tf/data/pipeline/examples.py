"""The images of a data set as tensors: decoded, with their instances, their masks cut to packed grids.

All of it happens on the host, in Python: Pillow is as fast as TensorFlow's decoder (1.0 ms to .83 for 640 x 480), lets
other threads run while it decodes, turns and scales as `predict` does, and an image that it refuses can be named.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from maskx_tf.data.dataset import Dataset, ImageRecord, Instance, for_learning, loaded
from maskx_tf.data.formats.records import Unfit
from maskx_tf.data.images import load_pixels
from maskx_tf.data.pipeline.sample import PACKED, SIDE, Sample
from maskx_tf.errors import BadInput
from maskx_tf.masks.crops import crop_mask

CACHE_MIB = 256  # of packed masks, kept from one epoch to the next


class Arrays(NamedTuple):
    """What is known about the n instances of an image, in its own pixels.

    Attributes:
        boxes: float32 [n, 4].
        classes: int32 [n].
        crowd: uint8 [n].
        has_mask: uint8 [n].
        masks: uint8 [n, PACKED], zeros where there is none.
    """

    boxes: NDArray[np.float32]
    classes: NDArray[np.int32]
    crowd: NDArray[np.uint8]
    has_mask: NDArray[np.uint8]
    masks: NDArray[np.uint8]


class Examples(NamedTuple):
    """Images that the pipeline can ask for in any order.

    Attributes:
        name: for messages.
        class_names: class k is class_names[k - 1].
        total: how many images there are.
        read: takes an image's place, int64 [], and gives, in a graph, its number int64 [] and the Sample.
    """

    name: str
    class_names: tuple[str, ...]
    total: int
    read: Callable[[tf.Tensor], tuple[tf.Tensor, Sample]]


def from_dataset(dataset: Dataset, cache_mib: int = CACHE_MIB) -> Examples:
    """The images of a data set, whose masks were already dropped where training may not see them.

    Args:
        dataset: as `readers.for_training` or `readers.for_evaluation` gives it.
        cache_mib: memory for packed masks. What is full stays as it is: a data set is read round and round, where a
            cache that makes room for the newest would hold nothing that is asked for next.
    """
    numbers = image_numbers(dataset)
    crops = _Crops(dataset, cache_mib << 20)

    def load(index: NDArray[np.int64]) -> tuple[Any, ...]:
        place = int(index)
        return (pixels(dataset, place), *crops(place), np.int64(numbers[place]))

    def read(index: tf.Tensor) -> tuple[tf.Tensor, Sample]:
        types = [tf.uint8, tf.float32, tf.int32, tf.uint8, tf.uint8, tf.uint8, tf.int64]
        image, boxes, classes, crowd, has_mask, masks, number = tf.numpy_function(load, [index], types)
        return tf.ensure_shape(number, []), as_sample(image, boxes, classes, crowd, has_mask, masks)

    return Examples(dataset.name, dataset.class_names, len(dataset.images), read)


def image_numbers(dataset: Dataset) -> list[int]:
    """A whole number for each image: its id, or its place from 1 on where not all ids are whole numbers."""
    ids = [image.id for image in dataset.images]
    numbers = [one for one in ids if isinstance(one, int)]
    return numbers if len(numbers) == len(ids) else list(range(1, len(ids) + 1))


def as_sample(
    image: tf.Tensor, boxes: tf.Tensor, classes: tf.Tensor, crowd: tf.Tensor, has_mask: tf.Tensor, masks: tf.Tensor
) -> Sample:
    """Tensors of unknown shape as a Sample whose instances are all valid."""
    boxes, classes = tf.ensure_shape(boxes, [None, 4]), tf.ensure_shape(classes, [None])
    return Sample(
        image=tf.ensure_shape(image, [None, None, 3]),
        boxes=boxes,
        classes=classes,
        valid=tf.ones_like(classes, tf.bool),
        crowd=tf.ensure_shape(crowd, [None]) > 0,
        has_mask=tf.ensure_shape(has_mask, [None]) > 0,
        masks=tf.ensure_shape(masks, [None, PACKED]),
    )


def pixels(dataset: Dataset, place: int) -> NDArray[np.uint8]:
    """An image in RGB as its annotations see it, uint8 [height, width, 3].

    Raises:
        BadInput: it is missing, broken or of another size than recorded.
    """
    record = dataset.images[place]
    try:
        return load_pixels(record)
    except Unfit as problem:
        file = "" if isinstance(record.file, bytes) else f"{record.file}: "
        raise BadInput(f"{file}image {record.id} of {dataset.name}: {problem}") from None


def arrays(dataset: Dataset, place: int) -> Arrays:
    """The instances of an image, cut at its border.

    A mask that leaves no cell of its grid half covered says nothing: its instance counts as known by its box alone.

    Raises:
        BadInput: a mask cannot be read.
    """
    record = for_learning(dataset._replace(images=(dataset.images[place],))).images[0]
    instances = record.instances
    masks = np.zeros([len(instances), PACKED], np.uint8)
    for row, one in zip(masks, instances, strict=True):
        if one.has_mask:
            row[:] = np.packbits(_grid(dataset.name, record, one))
    return Arrays(
        boxes=np.array([one.box for one in instances], np.float32).reshape(-1, 4),
        classes=np.array([one.label for one in instances], np.int32),
        crowd=np.array([one.crowd for one in instances], np.uint8),
        has_mask=np.asarray(masks.any(axis=1), np.uint8),
        masks=masks,
    )


def _grid(name: str, record: ImageRecord, one: Instance) -> NDArray[np.bool_]:
    assert one.segmentation is not None
    try:
        form = loaded(one.segmentation, record.height, record.width)
        return crop_mask(form, one.box, record.height, record.width, SIDE)
    except ValueError as error:
        raise BadInput(f"{name}: image {record.id}, annotation {one.id}: expected a mask: {error}") from None


class _Crops:
    """The instances of each image, worked out once as far as the memory goes."""

    def __init__(self, dataset: Dataset, limit: int) -> None:
        self._dataset = dataset
        self._left = limit
        self._kept: dict[int, Arrays] = {}
        self._lock = threading.Lock()

    def __call__(self, place: int) -> Arrays:
        known = self._kept.get(place)
        if known is not None:
            return known
        found = arrays(self._dataset, place)
        size = sum(part.nbytes for part in found)
        with self._lock:
            if size <= self._left and place not in self._kept:
                self._kept[place] = found
                self._left -= size
        return found
