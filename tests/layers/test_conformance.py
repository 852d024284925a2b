"""Properties of every layer of the catalogue: configuration, weights, graph, types, export, gradients."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import maskx_tf.layers.norm
from maskx_tf.layers import applications
from maskx_tf.layers.norm import ConvNorm
from maskx_tf.layers.parts import dtype_policy
from maskx_tf.layers.roi_pool import RoiPooler
from tests.layers import catalogue
from tests.layers.catalogue import CASES, Case
from tests.small_backbone import SMALL_NETWORK

# Starting at 0 or 1, these would hide a mistake: every test gives them numbers of their own.
STATISTICS = {"gamma", "beta", "mean", "variance", "moving_mean", "moving_variance"}
POSITIVE = {"gamma", "variance", "moving_variance"}


# Tens of millions of weights or hundreds of layers; a small case of the same layer runs by default.
LARGE = ("Application MobileNetV2", "ResNet of 50 layers")
# All but the first case of each layer: for what does not depend on a layer's options.
VARIANTS = tuple(
    name for place, name in enumerate(CASES) if name.split()[0] in {one.split()[0] for one in [*CASES][:place]}
)

# What is traced and compiled as the first case of its layer is: all but kinds of convolutions and of pooling.
COMPILED_ALIKE = tuple(
    name
    for name in VARIANTS
    if not name.startswith("ConvNorm") and name not in ("RoiPooler gather", "RoiPooler pool", "RoiPooler warp")
)


@pytest.fixture(scope="module", autouse=True)
def small_network() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(applications.NETWORKS, "small", SMALL_NETWORK)
        yield


def cases(*, spared: tuple[str, ...] = ()) -> Any:
    """Every case of the catalogue; `spared` names those for --slow alone, in addition to the large ones."""
    assert {*spared, *LARGE} <= set(CASES)
    marks = {name: [pytest.mark.slow] for name in (*spared, *LARGE)}
    return pytest.mark.parametrize("name", [pytest.param(name, marks=marks.get(name, [])) for name in CASES])


def tensors(case: Case) -> tuple[Any, ...]:
    return tf.nest.map_structure(tf.constant, case.inputs())


def outputs_of(case: Case, layer: keras.layers.Layer, inputs: tuple[Any, ...] | None = None) -> list[tf.Tensor]:
    return tf.nest.flatten(case.run(layer, *(tensors(case) if inputs is None else inputs)))


def made(case: Case, *, seed: int = 0, precision: str = "float32") -> keras.layers.Layer:
    """A layer that has been called, with vectors of weights that are neither 0 nor 1."""
    keras.utils.set_random_seed(seed)
    with dtype_policy(precision):
        layer = case.make()
    outputs_of(case, layer)
    rng = np.random.default_rng(seed)
    for variable in layer.weights:
        if variable.name in POSITIVE:
            variable.assign(rng.uniform(0.5, 2.0, variable.shape))
        elif variable.name in STATISTICS or variable.name.endswith("bias"):
            variable.assign(rng.normal(0.0, 0.1, variable.shape))
    return layer


@functools.cache
def shared(name: str) -> tuple[Case, keras.layers.Layer, list[tf.Tensor]]:
    """A case, its layer and what that gives: for tests that change neither."""
    case = CASES[name]
    layer = made(case)
    return case, layer, outputs_of(case, layer)


@functools.cache
def trained(name: str) -> keras.layers.Layer:
    """A second layer of a case, whose statistics and `trainable` tests may change."""
    return made(CASES[name])


def assert_same(results: list[tf.Tensor], expected: list[tf.Tensor], tolerance: float = 0.0) -> None:
    """Same types, shapes and numbers, these to a share of the largest."""
    for result, wanted in zip(results, expected, strict=True):
        assert result.dtype == wanted.dtype
        assert_near(result, wanted, tolerance)


def assert_near(result: tf.Tensor, wanted: tf.Tensor, tolerance: float) -> None:
    ours, theirs = (np.asarray(tf.cast(values, tf.float32)) for values in (result, wanted))
    assert ours.shape == theirs.shape
    assert np.isfinite(theirs).all()
    assert np.abs(theirs).max() > 0
    np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=tolerance * np.abs(theirs).max())


def through_json(layer: keras.layers.Layer) -> keras.layers.Layer:
    """What is left of a layer when its configuration is written down and read."""
    return keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(layer))))


def settings(config: Any) -> Any:
    """A configuration as JSON has it, without the shapes that layers were built for."""
    if isinstance(config, dict):
        return {key: settings(value) for key, value in config.items() if key != "build_config"}
    if isinstance(config, (list, tuple)):
        return [settings(value) for value in config]
    return config


def trainable_names(layer: keras.layers.Layer) -> set[str]:
    return {variable.name for variable in layer.trainable_variables}


def test_every_layer_is_listed() -> None:
    assert catalogue.missing() == set()
    assert len(catalogue.layer_classes()) >= 20


def test_a_layer_that_is_not_listed_is_found(monkeypatch) -> None:
    class Forgotten(keras.layers.Layer):
        pass

    monkeypatch.setattr(Forgotten, "__module__", maskx_tf.layers.norm.__name__)
    monkeypatch.setattr(maskx_tf.layers.norm, "Forgotten", Forgotten, raising=False)
    assert catalogue.missing() == {"Forgotten"}
    monkeypatch.delitem(CASES, "FPN")
    assert catalogue.missing() == {"Forgotten", "FPN"}


def test_an_imported_layer_need_not_be_listed(monkeypatch) -> None:
    monkeypatch.setattr(maskx_tf.layers.norm, "Dense", keras.layers.Dense, raising=False)
    assert catalogue.missing() == set()


@cases()
def test_configuration(name) -> None:
    """Complete, writable as JSON, and enough: with the same weights, the same outputs."""
    case, layer, expected = shared(name)
    arguments = inspect.signature(type(layer).__init__).parameters.values()
    named = {argument.name for argument in arguments if argument.kind is not inspect.Parameter.VAR_KEYWORD} - {"self"}
    assert named <= set(layer.get_config())
    again = through_json(layer)
    assert type(again) is type(layer)
    assert settings(again.get_config()) == settings(layer.get_config())
    assert again.name == layer.name
    outputs_of(case, again)
    assert [weight.path for weight in again.weights] == [weight.path for weight in layer.weights]
    assert [weight.trainable for weight in again.weights] == [weight.trainable for weight in layer.weights]
    again.set_weights(layer.get_weights())
    assert_same(outputs_of(case, again), expected)


@cases(spared=VARIANTS)
def test_the_policy_travels_with_the_configuration(name) -> None:
    case = CASES[name]
    layer = made(case, precision="mixed_bfloat16")
    again = through_json(layer)
    outputs = outputs_of(case, again)
    assert [output.dtype for output in outputs] == [output.dtype for output in outputs_of(case, layer)]
    again.set_weights(layer.get_weights())
    assert_same(outputs_of(case, again), outputs_of(case, layer))


@cases(spared=VARIANTS)
def test_weights_on_disk(name, tmp_path) -> None:
    class Holder(keras.Model):
        def __init__(self, layer: keras.layers.Layer) -> None:
            super().__init__()
            self.layer = layer
            self.built = True

    case, layer, expected = shared(name)
    path = tmp_path / "layer.weights.h5"
    Holder(layer).save_weights(path)
    other = made(case, seed=1)
    if layer.weights:
        before = outputs_of(case, other)
        assert any((ours.numpy() != theirs.numpy()).any() for ours, theirs in zip(before, expected, strict=True))
    Holder(other).load_weights(path)
    assert_same(outputs_of(case, other), expected)


@cases(spared=COMPILED_ALIKE)
def test_eager_is_graph(name) -> None:
    """Traced once for batches of one shape, and with the eager shapes known beforehand."""
    case, layer, expected = shared(name)
    inputs = tensors(case)
    traced = tf.function(lambda *values: case.run(layer, *values), autograph=False)
    assert_same(tf.nest.flatten(traced(*inputs)), expected, tolerance=1e-5)
    turned = tf.nest.map_structure(lambda values: values[::-1], inputs)
    assert_same(tf.nest.flatten(traced(*turned)), outputs_of(case, layer, turned), tolerance=1e-5)
    assert traced.experimental_get_tracing_count() == 1
    outputs = tf.nest.flatten(traced.get_concrete_function(*inputs).structured_outputs)
    assert [output.shape[1:] for output in outputs] == [output.shape[1:] for output in expected]


@cases(spared=COMPILED_ALIKE)
def test_eager_is_xla(name) -> None:
    case, layer, expected = shared(name)
    compiled = tf.function(lambda *values: case.run(layer, *values), autograph=False, jit_compile=True)
    if not case.compiled:
        # Should this ever compile, the catalogue can promise it.
        with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.UnimplementedError)):
            compiled(*tensors(case))
        return
    assert_same(tf.nest.flatten(compiled(*tensors(case))), expected, tolerance=1e-4)


@cases()
def test_mixed_precision(name) -> None:
    case, layer, expected = shared(name)
    mixed = made(case, precision="mixed_bfloat16")
    mixed.set_weights(layer.get_weights())
    assert {weight.dtype for weight in mixed.weights} <= {"float32"}
    promised = tf.float32 if case.outputs == catalogue.FLOAT32 else tf.bfloat16
    for result, wanted in zip(outputs_of(case, mixed), expected, strict=True):
        assert result.dtype == promised
        assert_near(result, wanted, case.rounding)


@pytest.mark.parametrize("options", [{}, {"gather": True}, {"op": "warp"}, {"op": "pool"}], ids=str)
def test_mixed_precision_leaves_boxes_alone(options) -> None:
    """In bfloat16 a corner at 1300 pixels would move by up to four: a whole cell."""
    rng = np.random.default_rng(0)
    # Whole numbers that bfloat16 holds exactly, so that the features are not rounded either.
    features = [rng.integers(-100, 100, (1, 8, 340, 2)).astype(np.float32)]
    corner = np.stack([rng.uniform(1000, 1300, 20), rng.uniform(2, 8, 20)], axis=-1)
    boxes = np.concatenate([corner, corner + rng.uniform(5, 20, (20, 2))], axis=-1)[None].astype(np.float32)
    pooled = {}
    for precision in ("float32", "mixed_bfloat16"):
        with dtype_policy(precision):
            pooled[precision] = RoiPooler(2, strides=(4,), **options)([tf.constant(features[0])], tf.constant(boxes))
    assert pooled["mixed_bfloat16"].dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(pooled["mixed_bfloat16"], tf.float32), pooled["float32"], rtol=2**-8, atol=1e-3)
    rounded = tf.cast(tf.cast(boxes, tf.bfloat16), tf.float32)
    moved = RoiPooler(2, strides=(4,), **options)([tf.constant(features[0])], rounded)
    assert np.abs(moved - pooled["float32"]).max() > 10  # the test can tell


@pytest.mark.slow
@cases()
def test_export(name, tmp_path) -> None:
    """A SavedModel of any batch gives the same."""
    case, layer, expected = shared(name)
    inputs = tensors(case)
    # T's rows are classes, not images; their number is free as well.
    signature = tf.nest.map_structure(lambda values: tf.TensorSpec([None, *values.shape[1:]], values.dtype), inputs)

    module = tf.Module()
    module.layer = layer
    module.run = tf.function(lambda *values: case.run(layer, *values), autograph=False, input_signature=signature)
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    assert_same(tf.nest.flatten(loaded.run(*inputs)), expected, tolerance=1e-5)
    first = tf.nest.map_structure(lambda values: values[:1], inputs)
    assert_same(tf.nest.flatten(loaded.run(*first)), outputs_of(case, layer, first), tolerance=1e-5)


@cases()
def test_gradients_reach_what_learns(name) -> None:
    case, layer = CASES[name], trained(name)
    inputs = tensors(case)
    trains = "training" in inspect.signature(type(layer).call).parameters
    with tf.GradientTape() as tape:
        outputs = tf.nest.flatten(layer(*inputs, training=True) if trains else case.run(layer, *inputs))
        totals = [tf.reduce_sum(output * catalogue.normal(*output.shape, seed=1)) for output in outputs]
        total = tf.add_n(totals)
    variables = layer.trainable_variables
    gradients = tape.gradient(total, [variable.value for variable in variables])
    for variable, gradient in zip(variables, gradients, strict=True):
        assert gradient is not None, variable.path
        values = tf.convert_to_tensor(gradient).numpy()
        assert np.isfinite(values).all(), variable.path
        assert (values != 0).any(), variable.path


@cases()
def test_frozen_statistics_stay_frozen(name) -> None:
    layer = trained(name)
    learns_norm = {"norm": layer.get_config().get("norm"), "frozen": layer.get_config().get("frozen_norm", True)}
    if learns_norm["norm"] in ("batch", "group", "fixed_batch") or not learns_norm["frozen"]:
        assert trainable_names(layer) & {"gamma", "beta"}
        assert not trainable_names(layer) & (STATISTICS - {"gamma", "beta"})
        return
    assert not trainable_names(layer) & STATISTICS
    layer.trainable = False
    assert layer.trainable_variables == []
    layer.trainable = True
    assert not trainable_names(layer) & STATISTICS


@cases(spared=VARIANTS)
def test_frozen_before_it_is_built(name) -> None:
    """Nothing learns, nothing moves, and training is what inference is."""
    case = CASES[name]
    layer = case.make()
    layer.trainable = False
    outputs_of(case, layer)
    assert layer.trainable_variables == []
    before = layer.get_weights()
    inputs = tensors(case)
    if "training" in inspect.signature(type(layer).call).parameters:
        plain, trained = (tf.nest.flatten(layer(*inputs, training=flag)) for flag in (False, True))
        assert_same(trained, plain)
    assert len(layer.get_weights()) == len(before)
    for weight, start in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, start)


def test_batch_statistics_are_measured_in_training_alone() -> None:
    layer = ConvNorm(4, 1, norm="batch")
    inputs = catalogue.normal(2, 5, 5, 3)
    layer(inputs)
    before = [np.array(layer.norm_layer.moving_mean), np.array(layer.norm_layer.moving_variance)]
    layer(inputs)
    np.testing.assert_array_equal(layer.norm_layer.moving_mean, before[0])
    layer(inputs, training=True)
    assert np.abs(layer.norm_layer.moving_mean - before[0]).max() > 0
    assert np.abs(layer.norm_layer.moving_variance - before[1]).max() > 0
