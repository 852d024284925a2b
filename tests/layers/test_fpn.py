"""The pyramid against loops: lateral, nearest doubling, sum, 3x3; P6 is every other cell of P5."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from maskx_tf.layers.fpn import FPN, LastMap
from tests import reference_layers as reference
from tests.layers.catalogue import normal

CHANNELS = (4, 6, 8, 10)
# P5 has odd sides: P6 rounds up.
INPUTS = [normal(2, 24 >> level, 40 >> level, channels) for level, channels in enumerate(CHANNELS)]


def built() -> FPN:
    keras.utils.set_random_seed(0)
    layer = FPN(5)
    layer.build([level.shape for level in INPUTS])
    for variable in layer.weights:
        if variable.name == "bias":
            variable.assign(normal(*variable.shape))
    return layer


def test_values() -> None:
    layer = built()
    outputs = layer([tf.constant(level) for level in INPUTS])
    merged = [
        reference.convolution(level, lateral.kernel) + np.array(lateral.bias)
        for level, lateral in zip(INPUTS, layer.laterals, strict=True)
    ]
    for level in (2, 1, 0):
        merged[level] += reference.nearest_double(merged[level + 1])
    expected = [
        reference.convolution(level, output.kernel) + np.array(output.bias)
        for level, output in zip(merged, layer.outputs, strict=True)
    ]
    assert [level.shape for level in outputs] == [(2, 24 >> i, 40 >> i, 5) for i in range(4)] + [(2, 2, 3, 5)]
    for ours, theirs in zip(outputs[:4], expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    np.testing.assert_array_equal(outputs[4], outputs[3][:, ::2, ::2])


def test_the_inputs_are_left_as_they_were() -> None:
    layer = built()
    inputs = [tf.constant(level) for level in INPUTS]
    layer(inputs)
    layer(inputs)
    for ours, theirs in zip(inputs, INPUTS, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_start() -> None:
    """Caffe2's XavierFill: uniform within the root of 3 / fan-in; biases 0."""
    layer = FPN(32)
    layer.build([(None, None, None, channels) for channels in (64, 128, 256, 512)])
    for convolution in [*layer.laterals, *layer.outputs]:
        bound = (3.0 / np.prod(convolution.kernel.shape[:3])) ** 0.5
        kernel = np.abs(convolution.kernel.numpy())
        assert 0.98 * bound < kernel.max() <= bound
        np.testing.assert_allclose(kernel.mean(), bound / 2, rtol=0.05)
        np.testing.assert_array_equal(convolution.bias, 0.0)


def test_the_last_map() -> None:
    (only,) = LastMap()([tf.constant(level) for level in INPUTS])
    np.testing.assert_array_equal(only, INPUTS[-1])
