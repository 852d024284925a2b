"""The optimizer and its schedule against slow loops and the papers' numbers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.config.training import TrainConfig
from maskx_tf.training.optimizer import SGD, is_bias, is_kernel, of
from maskx_tf.training.schedules import Schedule


def variables() -> list[keras.Variable]:
    layer = keras.layers.Dense(3, name="dense")
    layer.build([None, 2])
    norm = keras.layers.GroupNormalization(1, name="norm")
    norm.build([None, 3])
    return [*layer.trainable_variables, *norm.trainable_variables]


def test_steps_are_those_of_the_recipe() -> None:
    """Momentum over gradients, decay of kernels inside it, biases at twice the rate and without decay."""
    held = variables()
    rng = np.random.default_rng(0)
    for variable in held:
        variable.assign(rng.normal(size=variable.shape))
    expected = [variable.numpy().astype(np.float64) for variable in held]
    buffers = [np.zeros_like(value) for value in expected]
    rates = [0.1, 0.1, 0.01, 0.01]
    optimizer = SGD(lambda_schedule(rates), momentum=0.9, weight_decay=0.5, bias_rate_factor=2.0)
    for rate in rates:
        gradients = [rng.normal(size=value.shape) for value in expected]
        optimizer.apply_gradients(zip([tf.constant(g, tf.float32) for g in gradients], held, strict=True))
        for index, (gradient, variable) in enumerate(zip(gradients, held, strict=True)):
            kernel, bias = variable.name == "kernel", variable.path == "dense/bias"
            buffers[index] = 0.9 * buffers[index] + gradient + (0.5 * expected[index] if kernel else 0.0)
            expected[index] = (
                expected[index] - rate * (2.0 if bias or variable.path == "norm/bias" else 1.0) * buffers[index]
            )
    for variable, value in zip(held, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-5, atol=1e-6, err_msg=variable.path)


def test_the_neck_has_a_rate_of_its_own() -> None:
    layer, other = keras.layers.Dense(2, name="neck"), keras.layers.Dense(2, name="maps")
    layer.build([None, 2])
    other.build([None, 2])
    held = [*layer.trainable_variables, *other.trainable_variables]
    before = [variable.numpy() for variable in held]
    optimizer = SGD(0.1, momentum=0.0, bias_rate_factor=2.0, neck_rate_factor=3.0)
    optimizer.apply_gradients([(tf.ones(variable.shape), variable) for variable in held])
    moved = [float((start - variable.numpy()).mean()) for start, variable in zip(before, held, strict=True)]
    np.testing.assert_allclose(moved, [0.3, 0.6, 0.1, 0.2], atol=1e-6)


def lambda_schedule(rates: list[float]) -> keras.optimizers.schedules.LearningRateSchedule:
    return keras.optimizers.schedules.PiecewiseConstantDecay([1], [rates[0], rates[-1]])


def test_names_decide_what_decays() -> None:
    assert is_bias("box_predictor/box_bias")
    assert is_bias("mask_head/trunk/deconv_bias")
    assert not is_bias("biased/kernel")
    bank = keras.Variable(np.zeros([3, 4]), name="box_bias")  # a matrix, but a bias
    assert not is_kernel(bank)
    assert is_kernel(keras.Variable(np.zeros([3, 4]), name="class_rows"))
    assert not is_kernel(keras.Variable(np.zeros([3]), name="gamma"))


def test_config_round_trip() -> None:
    optimizer = SGD(Schedule(0.1, steps=10, drops=(5,)), momentum=0.8, weight_decay=0.01, bias_rate_factor=2.0)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(again, SGD)
    assert again.get_config() == optimizer.get_config()
    assert float(again._learning_rate(7)) == pytest.approx(0.01)


def test_reference_schedule() -> None:
    """Detectron's: a third at first, the whole after 500 steps, a tenth from 60k and a hundredth from 80k on."""
    schedule = Schedule.of(TrainConfig())
    found = [float(schedule(step)) for step in (0, 250, 500, 59_999, 60_000, 79_999, 80_000, 89_999)]
    np.testing.assert_allclose(found, [0.02 / 3, 0.02 * 2 / 3, 0.02, 0.02, 0.002, 0.002, 0.0002, 0.0002], rtol=1e-5)


def test_cosine() -> None:
    schedule = Schedule(0.4, steps=100, drops=None)
    np.testing.assert_allclose([float(schedule(step)) for step in (0, 50, 100, 120)], [0.4, 0.2, 0.0, 0.0], atol=1e-6)


def test_settings_reach_the_optimizer() -> None:
    optimizer = of(TrainConfig(momentum=0.8, weight_decay=0.01, bias_rate_factor=3.0, ema=0.99, rate=0.5))
    settings = optimizer.get_config()
    assert (optimizer.momentum, optimizer.decay, optimizer.bias_rate_factor) == (0.8, 0.01, 3.0)
    assert settings["use_ema"]
    assert settings["ema_momentum"] == 0.99
    assert optimizer._learning_rate.rate == 0.5
