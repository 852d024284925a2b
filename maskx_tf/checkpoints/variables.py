"""A model's variables by name, and arrays put into them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import keras
import numpy as np

from maskx_tf.checkpoints.npz import Archive
from maskx_tf.errors import BadInput
from maskx_tf.files import Json, JsonView


def named(model: keras.Model) -> Json:
    """Every weight under its name, which the names of its layers make: box_predictor/class_rows; metrics have none."""
    variables = {variable.path: variable for variable in model.weights}
    if len(variables) != len(model.weights):
        raise ValueError("two variables of the model have one name")
    return variables


def arrays(model: keras.Model) -> Iterator[tuple[str, np.ndarray]]:
    """Name and value of every variable, one at a time: a model may take most of the memory."""
    return ((name, variable.numpy()) for name, variable in named(model).items())


def assign(variables: JsonView, archive: Archive, names: Iterable[str], *, finite: bool = True) -> None:
    """Sets variables to the arrays of their names; every header is checked before any array is read.

    Args:
        variables: the variables by name.
        archive: has an array of each name.
        names: which variables are set.
        finite: refuse NaN and infinity.

    Raises:
        BadInput: an array has another shape or type, is damaged, or is not finite.
    """
    names = list(names)
    for name in names:
        found, where = archive.header(name), f"{archive.path}: {name}"
        shape, dtype = tuple(variables[name].shape), np.dtype(variables[name].dtype)
        if found.shape != shape:
            raise BadInput(f"{where}: expected shape {list(shape)}, found {list(found.shape)}")
        if found.dtype != dtype:
            raise BadInput(f"{where}: expected {dtype} numbers, found {found.dtype}")
    for name in names:
        array = archive.read(name)
        if finite and not np.isfinite(array).all():
            raise BadInput(f"{archive.path}: {name}: expected finite numbers, found {array[~np.isfinite(array)][0]}")
        variables[name].assign(array)
