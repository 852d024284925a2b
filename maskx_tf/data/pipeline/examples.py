"""The images of a data set as tensors: decoded, with their instances, their masks cut to packed grids.

All of it happens on the host, in Python: Pillow is as fast as TensorFlow's decoder (1.0 ms to .83 for 640 x 480), lets
other threads run while it decodes, turns and scales as `predict` does, and an image that it refuses can be named.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from maskx_tf.data import keypoints
from maskx_tf.data.dataset import Dataset, ImageRecord, Instance, for_learning, loaded
from maskx_tf.data.images import load_pixels, naming
from maskx_tf.data.pipeline.sample import Sample, as_sample
from maskx_tf.errors import BadInput
from maskx_tf.masks.crops import crop_mask
from maskx_tf.structures import COMMON_FIELDS, MASK_SIDE, Field, with_flags

CACHE_MIB = 256  # packed masks that are kept from one epoch to the next
InstanceArrays = dict[str, np.ndarray]  # [n, *shape] by the names of fields


class Examples(NamedTuple):
    """Images that the pipeline can ask for in any order.

    Attributes:
        name: the name for messages.
        class_names: class k is class_names[k - 1].
        total: how many images there are.
        fields: what is said of an instance, with the fields' flags; a Sample also has VALID.
        read: takes an image's place, int64 [], and gives, in a graph, its number int64 [] and the Sample.
    """

    name: str
    class_names: tuple[str, ...]
    total: int
    fields: tuple[Field, ...]
    read: Callable[[tf.Tensor], tuple[tf.Tensor, Sample]]


def from_dataset(dataset: Dataset, cache_mib: int = CACHE_MIB) -> Examples:
    """The images of a data set, whose masks were already dropped where training may not see them.

    Args:
        dataset: the data set that `readers.for_training` or `readers.for_evaluation` returns.
        cache_mib: memory for packed masks. What is full stays as it is: a data set is read round and round, where a
            cache that makes room for the newest would hold nothing that is asked for next.
    """
    numbers, points = image_numbers(dataset), dataset.points
    crops = _Crops(dataset, points, cache_mib << 20)
    fields = fields_with(points)

    def load(index: NDArray[np.int64]) -> tuple[Any, ...]:
        place = int(index)
        found = crops(place)
        return (pixels(dataset, place), np.int64(numbers[place]), *(found[field.name] for field in fields))

    def read(index: tf.Tensor) -> tuple[tf.Tensor, Sample]:
        types = [tf.uint8, tf.int64, *(tf.as_dtype(field.dtype) for field in fields)]
        image, number, *values = tf.numpy_function(load, [index], types)
        by_name = {field.name: value for field, value in zip(fields, values, strict=True)}
        return tf.ensure_shape(number, []), as_sample(image, fields, by_name)

    return Examples(dataset.name, dataset.class_names, len(dataset.images), fields, read)


def fields_with(points: Sequence[Field]) -> tuple[Field, ...]:
    """Returns the fields of an instance of a data set whose `points` are these, with their flags."""
    return with_flags((*COMMON_FIELDS, *points))


def image_numbers(dataset: Dataset) -> list[int]:
    """A whole number for each image: its id, or its place from 1 on where not all ids are whole numbers."""
    ids = [image.id for image in dataset.images]
    numbers = [one for one in ids if isinstance(one, int)]
    return numbers if len(numbers) == len(ids) else list(range(1, len(ids) + 1))


def pixels(dataset: Dataset, place: int) -> NDArray[np.uint8]:
    """An image in RGB as its annotations see it, uint8 [height, width, 3].

    Raises:
        BadInput: it is missing, broken or of another size than recorded.
    """
    record = dataset.images[place]
    with naming(record, dataset.name):
        return load_pixels(record)


def instance_arrays(dataset: Dataset, place: int, points: Sequence[Field]) -> InstanceArrays:
    """The n instances of an image, in its own pixels, cut at its border.

    Unknown values are zero, and zeros count as unknown: if a mask covers no cell of its grid by half, its instance
    counts as known by its box alone.

    Args:
        dataset: the data set, or a part of one.
        place: the place of the image.
        points: `Dataset.points` of the whole data set, which all its images have to share.

    Raises:
        BadInput: a mask cannot be read.
    """
    record = for_learning(dataset._replace(images=(dataset.images[place],))).images[0]
    instances = record.instances
    values: dict[str, Sequence[Any]] = {
        "boxes": [one.box for one in instances],
        "classes": [one.label for one in instances],
        "crowd": [one.crowd for one in instances],
        "masks": [_packed(dataset.name, record, one) for one in instances],
        **{field.name: [_points(field, record, one) for one in instances] for field in points},
    }
    arrays: InstanceArrays = {}
    for field in (*COMMON_FIELDS, *points):
        array = np.array(values[field.name], field.dtype).reshape(-1, *field.shape)
        arrays[field.name] = array
        if field.flag:
            arrays[field.flag] = np.asarray(array.any(axis=tuple(range(1, array.ndim))))
    return arrays


def _packed(name: str, record: ImageRecord, one: Instance) -> NDArray[np.uint8]:
    """An instance's grid, eight cells a byte; zeros if it has none."""
    return np.packbits(_grid(name, record, one)) if one.has_mask else np.zeros(MASK_SIDE * MASK_SIDE // 8, np.uint8)


def _points(field: Field, record: ImageRecord, one: Instance) -> NDArray[np.float32]:
    """An instance's points of a field, those outside of the image being zero; zeros if it has none."""
    values = np.zeros(field.shape, np.float32)
    known: NDArray[np.float32] | None = getattr(one, field.name)
    if known is not None:
        kept = keypoints.inside(known, (0.0, 0.0, record.width, record.height)) & (known[:, 2] != 0)
        values[: len(known)] = np.where(kept[:, None], known, np.float32(0))
    return values


def _grid(name: str, record: ImageRecord, one: Instance) -> NDArray[np.bool_]:
    assert one.segmentation is not None
    try:
        form = loaded(one.segmentation, record.height, record.width)
        return crop_mask(form, one.box, record.height, record.width, MASK_SIDE)
    except ValueError as error:
        raise BadInput(f"{name}: image {record.id}, annotation {one.id}: expected a mask: {error}") from None


class _Crops:
    """Returns the instances of each image, and keeps them as far as memory allows."""

    def __init__(self, dataset: Dataset, points: Sequence[Field], limit: int) -> None:
        self._dataset, self._points = dataset, points
        self._left = limit
        self._kept: dict[int, InstanceArrays] = {}
        self._lock = threading.Lock()

    def __call__(self, place: int) -> InstanceArrays:
        known = self._kept.get(place)
        if known is not None:
            return known
        found = instance_arrays(self._dataset, place, self._points)
        size = sum(array.nbytes for array in found.values())
        with self._lock:
            if size <= self._left and place not in self._kept:
                self._kept[place] = found
                self._left -= size
        return found
