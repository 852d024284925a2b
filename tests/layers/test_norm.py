"""ConvNorm against loops: where it pads, what groups and dilation read, and normalisation after the convolution."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.layers.norm import ConvNorm
from tests import reference_layers as reference

RNG = np.random.default_rng(0)
# An odd and an even side: TensorFlow's SAME pads the even one on one side only at stride 2.
INPUTS = RNG.normal(size=(2, 7, 8, 6)).astype(np.float32)


def built(filters: int = 4, kernel_size: int = 3, channels: int = 6, **options) -> ConvNorm:
    """A layer whose vectors are random."""
    keras.utils.set_random_seed(0)
    layer = ConvNorm(filters, kernel_size, **options)
    layer.build((None, None, None, channels))
    for variable in layer.weights:
        if variable.name in ("variance", "moving_variance", "gamma"):
            variable.assign(RNG.uniform(0.3, 2.0, variable.shape))
        elif len(variable.shape) == 1:
            variable.assign(RNG.normal(size=variable.shape))
    return layer


def statistics(layer: ConvNorm) -> reference.Statistics:
    if layer.norm == "batch":
        norm = layer.norm_layer
        parts = (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
    else:
        parts = (layer.gamma, layer.beta, layer.mean, layer.variance)
    return reference.Statistics(*(np.array(part, np.float64) for part in parts))


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_convolution(kernel_size, strides, dilation) -> None:
    layer = built(kernel_size=kernel_size, strides=strides, dilation=dilation)
    expected = reference.convolution(INPUTS, layer.kernel, stride=strides, dilation=dilation) + np.array(layer.bias)
    np.testing.assert_allclose(layer(INPUTS), expected, atol=1e-4)


def test_stride_two_is_not_tensorflows_same() -> None:
    layer = built(strides=2)
    same = tf.nn.conv2d(INPUTS, layer.kernel, 2, "SAME") + layer.bias
    assert np.abs(layer(INPUTS) - same).max() > 0.1


@pytest.mark.parametrize("groups", [2, 3])
@pytest.mark.parametrize("strides", [1, 2])
def test_groups(groups, strides) -> None:
    layer = built(6, groups=groups, strides=strides, dilation=2)
    assert layer.kernel.shape == (3, 3, 6 // groups, 6)
    expected = reference.convolution(INPUTS, layer.kernel, stride=strides, dilation=2, groups=groups)
    np.testing.assert_allclose(layer(INPUTS), expected + np.array(layer.bias), atol=1e-4)


@pytest.mark.parametrize("norm", ["frozen_batch", "batch"])
@pytest.mark.parametrize("epsilon", [1e-5, 0.5])
@pytest.mark.parametrize("relu", [False, True])
def test_batch_norm_is_folded(norm, epsilon, relu) -> None:
    """One linear map instead of two, with the same result as one after the other."""
    layer = built(norm=norm, epsilon=epsilon, relu=relu)
    expected = reference.batch_norm(reference.convolution(INPUTS, layer.kernel), statistics(layer), epsilon)
    np.testing.assert_allclose(layer(INPUTS), reference.relu(expected) if relu else expected, atol=1e-4)
    assert not any(weight.name == "bias" for weight in layer.weights)


def test_frozen_batch_norm_is_the_same_in_training() -> None:
    layer = built(norm="frozen_batch")
    before = layer.get_weights()
    np.testing.assert_array_equal(layer(INPUTS, training=True), layer(INPUTS))
    assert all((now == then).all() for now, then in zip(layer.get_weights(), before, strict=True))


def test_batch_norm_in_training() -> None:
    """Statistics of the batch; the moving ones keep nine tenths of themselves."""
    layer = built(norm="batch", epsilon=1e-3)
    plain = reference.convolution(INPUTS, layer.kernel)
    before, now = statistics(layer), reference.measured(plain, statistics(layer))
    np.testing.assert_allclose(layer(INPUTS, training=True), reference.batch_norm(plain, now, 1e-3), atol=1e-4)
    np.testing.assert_allclose(layer.norm_layer.moving_mean, 0.9 * before.mean + 0.1 * now.mean, atol=1e-4)
    np.testing.assert_allclose(layer.norm_layer.moving_variance, 0.9 * before.variance + 0.1 * now.variance, rtol=1e-3)


def test_group_norm() -> None:
    layer = built(64, norm="group", epsilon=0.1)
    plain = reference.convolution(INPUTS, layer.kernel)
    gamma, beta = np.array(layer.norm_layer.gamma), np.array(layer.norm_layer.beta)
    expected = reference.group_norm(plain, gamma, beta, 32, 0.1)
    np.testing.assert_allclose(layer(INPUTS), expected, atol=1e-4)
    np.testing.assert_allclose(layer(INPUTS, training=True), expected, atol=1e-4)


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected one of none, frozen_batch, .*group"):
        ConvNorm(4, 3, norm="layer")


def test_gradient_of_the_folded_kernel() -> None:
    """Frozen batch norm passes the gradient on, scaled; nothing reaches its own numbers."""
    layer = built(norm="frozen_batch")
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(INPUTS, training=True))
    gradient = tape.gradient(total, layer.kernel.value)
    bare = built()
    bare.kernel.assign(layer.kernel)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(bare(INPUTS))
    numbers = statistics(layer)
    scale = numbers.gamma / np.sqrt(numbers.variance + 1e-5)
    np.testing.assert_allclose(gradient, tape.gradient(total, bare.kernel.value) * scale, rtol=1e-4, atol=1e-4)
    assert [weight.name for weight in layer.trainable_variables] == ["kernel"]
