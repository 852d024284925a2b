"""A model's variables by name, and arrays put into them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np


def named(model: keras.Model) -> dict[str, Any]:
    """Every weight under its name, which the names of its layers make: box_predictor/class_rows; metrics have none."""
    variables = {variable.path: variable for variable in model.weights}
    if len(variables) != len(model.weights):
        raise ValueError("two variables of the model have one name")
    return variables


def arrays(model: keras.Model) -> Iterator[tuple[str, np.ndarray]]:
    """Name and value of every variable, one at a time: a model may take most of the memory."""
    return ((name, variable.numpy()) for name, variable in named(model).items())
