"""Checks of an operation: equal results when eager, traced or compiled, and the gradient of a sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf


def assert_forms_agree(
    function: Callable[..., Any], *inputs: Any, compiled: bool = True, tolerance: float = 1e-5
) -> None:
    """Eager = graph (= XLA, if it is claimed), static shapes in the graph, and one trace for inputs of one shape.

    Args:
        function: takes tensors, gives tensors in any structure.
        inputs: arrays, or structures of them; None in a structure stays.
        compiled: whether XLA is to compile it.
        tolerance: of floats, absolute and relative; anything else has to be equal.
    """
    inputs = tf.nest.map_structure(lambda value: value if value is None else tf.constant(value), inputs)
    others = tf.nest.map_structure(lambda tensor: tensor if tensor is None else tensor[::-1], inputs)
    expected = tf.nest.flatten(function(*inputs))
    for jit in (False, True) if compiled else (False,):
        traced = tf.function(function, autograph=False, jit_compile=jit)
        for ours, plain in zip(tf.nest.flatten(traced(*inputs)), expected, strict=True):
            assert ours.dtype == plain.dtype
            if plain.dtype.is_floating:
                np.testing.assert_allclose(ours, plain, rtol=tolerance, atol=tolerance)
            else:
                np.testing.assert_array_equal(ours, plain)
        traced(*others)
        assert traced.experimental_get_tracing_count() == 1
        shapes = tf.nest.flatten(traced.get_concrete_function(*inputs).structured_outputs)
        assert [tensor.shape for tensor in shapes] == [tensor.shape for tensor in expected]


def gradients(function: Callable[..., tf.Tensor], upstream: np.ndarray, *values: np.ndarray) -> list[np.ndarray]:
    """Gradients of sum(upstream * function(*values)) towards each of the values; zeros where there is none."""
    tensors = [tf.constant(value, tf.float32) for value in values]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        total = tf.reduce_sum(function(*tensors) * tf.constant(upstream, tf.float32))
    found = tape.gradient(total, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return [gradient.numpy() for gradient in found]
