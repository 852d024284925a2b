"""T against its transcription (spec/maskx.md, section 2)."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.layers.transfer import Transfer
from tests import reference_layers as reference
from tests.layers.catalogue import normal

ROWS = normal(6, 20)


def built(size: int = 20, **options) -> Transfer:
    keras.utils.set_random_seed(0)
    layer = Transfer(**options)
    layer.build((None, size))
    return layer


def randomised(**options) -> Transfer:
    layer = built(filters=5, **options)
    for number, variable in enumerate(layer.weights):
        variable.assign(normal(*variable.shape, seed=number))
    return layer


def layers_of(layer: Transfer) -> list[reference.Layer]:
    return [(np.array(dense.kernel), np.array(dense.bias)) for dense in layer.dense]


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_values(layers, activation) -> None:
    layer = randomised(layers=layers, activation=activation)
    assert [dense.kernel.shape for dense in layer.dense] == [(20, 5), (5, 5), (5, 5)][:layers]
    result = layer(ROWS)
    assert result.dtype == tf.float32
    assert np.asarray(result).min() < 0  # no activation after the last layer
    np.testing.assert_allclose(result, reference.transfer(ROWS, layers_of(layer), activation), atol=1e-4)


def test_leaky_by_default() -> None:
    config = Transfer().get_config()
    assert (config["filters"], config["layers"], config["activation"], config["init"]) == (
        256,
        2,
        "leaky_relu",
        "reference",
    )


def test_classes_do_not_see_each_other() -> None:
    """A class's filter is made of its own row: classes can be added, dropped and reordered."""
    layer = randomised(layers=3)
    order = [4, 0, 2]
    np.testing.assert_allclose(tf.gather(layer(ROWS), order), layer(ROWS[order]), atol=1e-5)


@pytest.mark.parametrize("sizes", [(20,), (4, 16)])
def test_unit_rms(sizes) -> None:
    layer = randomised(unit_rms=sizes)
    rows = np.concatenate([ROWS[:, :4] * 0.01, ROWS[:, 4:] * 0.001], axis=1)
    scaled = np.array([reference.unit_rms(row, sizes) for row in rows])
    np.testing.assert_allclose(np.sqrt((scaled[:, : sizes[0]] ** 2).mean(axis=1)), 1.0)
    np.testing.assert_allclose(layer(rows), reference.transfer(scaled, layers_of(layer), "leaky_relu"), atol=1e-3)
    # The size of what comes in does not matter any more; without it, it does.
    np.testing.assert_allclose(layer(rows * 3), layer(rows), atol=1e-4)
    assert np.abs(randomised()(rows * 3) - randomised()(rows)).max() > 1e-3


def test_unit_rms_of_zeros() -> None:
    """A class added to the vocabulary may start with rows of zeros."""
    layer = randomised(unit_rms=(4, 16))
    with tf.GradientTape() as tape:
        rows = tf.zeros([2, 20])
        tape.watch(rows)
        result = layer(rows)
    assert np.isfinite(result).all()
    assert np.isfinite(tape.gradient(result, rows)).all()


def test_unit_rms_has_to_fit() -> None:
    with pytest.raises(ValueError, match="add up to 12, expected 20"):
        built(unit_rms=(4, 8))


@pytest.mark.parametrize(
    ("init", "expected"),
    [("reference", (0.0884, 0.0884, 0.0884)), ("small", (0.01, 0.0884, 0.0884))],
)
def test_start(init, expected) -> None:
    """Gaussian by fan-out: the root of 2 / 256, whatever comes in (fan-in at 5120 would be .0198)."""
    layer = built(5120, layers=3, init=init)
    for dense, deviation in zip(layer.dense, expected, strict=True):
        kernel = np.array(dense.kernel)
        np.testing.assert_allclose(kernel.std(), deviation, rtol=0.01)
        np.testing.assert_allclose(kernel.mean(), 0.0, atol=0.03 * deviation)
        # The share of a normal distribution beyond two deviations; one that is truncated there has none.
        np.testing.assert_allclose((np.abs(kernel) > 2 * deviation).mean(), 0.0455, rtol=0.1)
        np.testing.assert_array_equal(dense.bias, 0.0)


@pytest.mark.parametrize("filters", [64, 512])
def test_start_by_fan_out(filters) -> None:
    layer = built(100, filters=filters, layers=1)
    np.testing.assert_allclose(np.std(layer.dense[0].kernel), (2 / filters) ** 0.5, rtol=0.03)


@pytest.mark.parametrize("option", ["init", "activation"])
def test_unknown_options_are_refused(option) -> None:
    with pytest.raises(ValueError, match=f"{option} is 'tanh', expected one of"):
        Transfer(**{option: "tanh"})
