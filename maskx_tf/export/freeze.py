"""Functions whose weights are constants of their graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2


def as_constants(tensors: Any) -> Any:
    """Nested tensors as constants, so that a graph which reads them does not compute them again."""
    return tf.nest.map_structure(lambda tensor: tf.constant(tensor.numpy()), tensors)


class Frozen:
    """A function of tensors, traced once, with every variable that it reads turned into a constant.

    Args:
        function: a function of tensors, or of lists of tensors.
        specs: the specifications of its arguments, nested like them.
    """

    def __init__(self, function: Callable[..., Any], specs: Sequence[Any]) -> None:
        traced = tf.function(function, autograph=False).get_concrete_function(*specs)
        self.outputs = traced.structured_outputs
        # The loops stay functional: lowered ones could not be saved within another function.
        self.concrete = convert_variables_to_constants_v2(traced, lower_control_flow=False)

    def __call__(self, *arguments: Any) -> Any:
        """The function's value, nested as the function nests it."""
        flat = [tf.convert_to_tensor(value) for value in tf.nest.flatten(arguments)]
        return tf.nest.pack_sequence_as(self.outputs, self.concrete(*flat))
