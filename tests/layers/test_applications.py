"""Networks of keras.applications as backbones: the maps that are read, what learns, and the weights."""

from __future__ import annotations

import functools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.layers.applications import NETWORKS, Application
from tests.layers.catalogue import normal

IMAGES = normal(1, 64, 96, 3)


@functools.cache
def application(name: str, **options) -> Application:
    keras.utils.set_random_seed(0)
    return Application(name, **options)


@functools.cache
def whole_mobilenet() -> keras.Model:
    keras.utils.set_random_seed(1)
    return NETWORKS["mobilenet_v2"].make(weights=None, include_top=False, input_shape=(None, None, 3))


@pytest.mark.parametrize(
    "name", ["mobilenet_v2", "keras_resnet50", pytest.param("keras_resnet101", marks=pytest.mark.slow)]
)
def test_maps(name) -> None:
    layer = application(name)
    maps = layer(tf.constant(IMAGES))
    assert layer.strides == (4, 8, 16, 32)
    assert [level.shape for level in maps] == [
        (1, 64 // stride, 96 // stride, channels)
        for stride, channels in zip(layer.strides, layer.channels, strict=True)
    ]
    if "resnet" in name:
        assert layer.channels == (256, 512, 1024, 2048)


def test_the_whole_network_is_there() -> None:
    """No weight of Keras' own network is missing, so that a file of them fits."""
    resnet = NETWORKS["keras_resnet50"].make(weights=None, include_top=False, input_shape=(None, None, 3))
    assert application("keras_resnet50").network.count_params() == resnet.count_params()
    assert application("mobilenet_v2").network.count_params() == whole_mobilenet().count_params()


@pytest.mark.parametrize(
    ("name", "frozen"),
    [
        *(("mobilenet_v2", stages) for stages in (0, 1, 3, 5)),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [("mobilenet_v2", 2), ("mobilenet_v2", 4), ("keras_resnet50", 2)]
        ),
    ],
)
def test_frozen_stages(name, frozen) -> None:
    """Stage n ends at the n-th map but one: what learns does not change the maps before, and is all the rest."""
    layer = application(name, frozen_stages=frozen)
    every = [weight for weight in layer.weights if "kernel" in weight.name]
    learning = layer.trainable_variables
    assert not [weight for weight in learning if weight.name in ("gamma", "beta")]
    if frozen == 0:
        assert len([weight for weight in learning if "kernel" in weight.name]) == len(every)
        return
    with tf.GradientTape(persistent=True) as tape:
        maps = layer(tf.constant(IMAGES), training=True)
    values = [variable.value for variable in learning]
    for level in maps[: frozen - 1]:
        assert all(gradient is None for gradient in tape.gradient(level, values))
    if frozen == 5:
        assert learning == []
        return
    # The next map is where learning starts: all that it depends on and the frozen map does not.
    assert any(gradient is not None for gradient in tape.gradient(maps[max(frozen - 1, 0)], values))
    stem = application(name, frozen_stages=1)
    assert len(learning) < len(stem.trainable_variables) or frozen == 1


def test_training_batch_norm() -> None:
    layer = application("mobilenet_v2", frozen_norm=False)
    names = {variable.name for variable in layer.trainable_variables}
    assert {"gamma", "beta"} <= names
    before = layer.get_weights()
    layer(tf.constant(IMAGES))
    assert all((now == then).all() for now, then in zip(layer.get_weights(), before, strict=True))
    layer(tf.constant(IMAGES), training=True)
    assert any((now != then).any() for now, then in zip(layer.get_weights(), before, strict=True))


def test_frozen_batch_norm_does_not_move() -> None:
    layer = application("mobilenet_v2")
    before = layer.get_weights()
    plain = layer(tf.constant(IMAGES))
    for ours, theirs in zip(layer(tf.constant(IMAGES), training=True), plain, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert all((now == then).all() for now, then in zip(layer.get_weights(), before, strict=True))


def test_weights_from_a_file(tmp_path) -> None:
    """A headless file of Keras' own network, in whichever order the two were made."""
    whole = whole_mobilenet()
    path = tmp_path / "mobilenet.weights.h5"
    whole.save_weights(path)
    layer = Application("mobilenet_v2")
    before = layer(tf.constant(IMAGES))[-1]
    layer.load_imagenet(str(path))
    np.testing.assert_allclose(layer(tf.constant(IMAGES))[-1], whole(IMAGES), atol=1e-5)
    assert np.abs(before - layer(tf.constant(IMAGES))[-1]).max() > 0


def test_weights_of_another_network(tmp_path) -> None:
    path = tmp_path / "other.weights.h5"
    keras.applications.MobileNetV2(
        weights=None, include_top=False, input_shape=(None, None, 3), alpha=0.35
    ).save_weights(path)
    # Keras warns of some layers before it fails at others.
    with warnings.catch_warnings(action="ignore"), pytest.raises(ValueError, match="shape"):
        application("mobilenet_v2").load_imagenet(str(path))


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(KeyError):
        Application("vgg16")
