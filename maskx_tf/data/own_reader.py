"""Reads a data set with the user's own function, and checks what the function returns."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maskx_tf.data.dataset import Dataset, ImageRecord, Instance, MaskFile
from maskx_tf.data.formats import records as fields
from maskx_tf.data.formats import segmentations
from maskx_tf.data.formats.records import MAX_IMAGE_SIDE, Unfit
from maskx_tf.data.problems import refuse
from maskx_tf.errors import BadInput, reason
from maskx_tf.plugins import imported


def read(name: str, images: Path, annotations: Path) -> Dataset:
    """Returns the data set that the user's function makes; it may name any file.

    Args:
        name: the name of the function, with its module.
        images: passed on to it.
        annotations: passed on to it.

    Raises:
        BadInput: there is no such function, it fails, or what it returns is no data set.
    """
    function = imported("reader", name)
    if not callable(function):
        raise BadInput(f"reader: expected a function, found {name}")
    try:
        dataset = function(images, annotations)
    except Exception as error:  # whatever the function raises
        raise BadInput(f"reader: {name} failed: {reason(error)}") from error
    if not isinstance(dataset, Dataset):
        raise BadInput(f"reader: expected a maskx_tf.data.dataset.Dataset of {name}, found {type(dataset)}")
    try:
        return _checked(dataset)
    except Unfit as problem:
        raise BadInput(f"reader: {name}: {problem}") from None
    except (TypeError, ValueError, AttributeError) as error:  # such as None in place of a tuple
        raise BadInput(f"reader: {name}: expected a Dataset as docs/data.md describes it: {reason(error)}") from error


def _checked(dataset: Dataset) -> Dataset:
    """The data set with plain numbers, and with masks as all readers give them.

    Raises:
        Unfit: something does not fit.
    """
    count = len(dataset.class_names)
    for key, values in (("class_names", dataset.class_names), ("category_ids", dataset.category_ids)):
        if len(values) != count or len(set(values)) < count:
            raise fields.unfit(key, "a different one for each class", list(values))
    ids = [image.id for image in dataset.images]
    if len(set(ids)) < len(ids):
        twice = next(one for one in ids if ids.count(one) > 1)
        raise fields.unfit("id", "another for each image", twice)
    return dataset._replace(images=tuple(_image(image, dataset) for image in dataset.images))


def _image(image: ImageRecord, dataset: Dataset) -> ImageRecord:
    where = f"image {image.id!r}"
    try:
        if not isinstance(image.file, Path | bytes):
            raise fields.unfit("file", "a pathlib.Path or bytes", image.file)
        width, height = (_whole(getattr(image, side), side, MAX_IMAGE_SIDE) for side in ("width", "height"))
        image = image._replace(width=width, height=height)
        instances = []
        for number, one in enumerate(image.instances):
            where = f"image {image.id!r}: instances[{number}]"
            instances.append(_instance(one, image, dataset))
        return image._replace(instances=tuple(instances))
    except Unfit as problem:
        raise Unfit(f"{where}: {problem}") from None


def _instance(one: Instance, image: ImageRecord, dataset: Dataset) -> Instance:
    box = [fields.as_number(edge, "box") for edge in one.box]
    if len(box) != 4 or box[0] > box[2] or box[1] > box[3]:
        raise fields.unfit("box", "x1, y1, x2, y2 with x1 <= x2 and y1 <= y2", box)
    if one.keypoints is not None and dataset.keypoints is not None:
        expected = (len(dataset.keypoints.names), 3)
        if np.shape(one.keypoints) != expected:
            raise fields.unfit("keypoints", f"an array of shape {expected}", np.shape(one.keypoints))
    if one.clicks is not None and np.shape(one.clicks)[1:] != (3,):
        raise fields.unfit("clicks", "an array of shape (Q, 3)", np.shape(one.clicks))
    mask = one.segmentation
    if not isinstance(mask, MaskFile):
        if mask is not None and not isinstance(mask, dict | tuple | list):
            expected = "polygons, run lengths (maskx_tf.masks.rle.encode makes them of a bitmap), a MaskFile or None"
            raise fields.unfit("segmentation", expected, type(mask))
        value = [list(points) for points in mask] if isinstance(mask, tuple | list) else mask
        mask = segmentations.read(value, image, "", refuse)
    label = _whole(one.label, "label", len(dataset.class_names))
    return one._replace(box=(box[0], box[1], box[2], box[3]), label=label, segmentation=mask)


def _whole(value: object, key: str, high: int) -> int:
    """A whole number from 1 on, of NumPy's types, too."""
    number = fields.as_number(value, key, 1, high)
    if number != int(number):
        raise fields.unfit(key, f"a whole number from 1 to {high}", value)
    return int(number)
