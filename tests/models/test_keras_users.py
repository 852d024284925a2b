"""Keras' own methods: `fit`, `evaluate`, `predict`, and clear errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

from maskx_tf import losses as loss_ops
from maskx_tf.config import Config, load
from maskx_tf.layers.parts import dtype_policy
from maskx_tf.models.build import build
from maskx_tf.models.rcnn import RCNN
from maskx_tf.training import dry, start
from tests.models import toy
from tests.models.toy import Toy
from tests.training import runs

Arrays = dict[str, np.ndarray]
CLASSES = tuple(f"class {number}" for number in range(24))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("keras")
    config = load(runs.recipe(folder, folder))
    return config.model_copy(update={"model": config.model.model_copy(update={"class_names": CLASSES})})


@pytest.fixture(scope="module")
def batch(config: Config) -> Arrays:
    return dry.made_up(config, 2)


def fresh(config: Config) -> RCNN:
    keras.utils.set_random_seed(0)
    return build(config.model)


@pytest.fixture(scope="module")
def shared(config: Config) -> RCNN:
    """A model for tests that put its weights back."""
    return fresh(config)


def compiled(**options: Any) -> Toy:
    model = Toy()
    model.compile("sgd", **options)
    return model


def dataset(*batches: Any) -> tf.data.Dataset:
    """Each an element; the first says what static shapes there are."""
    first = tf.data.Dataset.from_tensors(batches[0])
    for other in batches[1:]:
        first = first.concatenate(tf.data.Dataset.from_tensors(other))
    return first


def generator(*batches: Arrays) -> Iterator[tuple[Arrays]]:
    for one in batches:
        yield (one,)


class Pages(keras.utils.PyDataset):
    """Two batches, as Keras' own class for data in Python wants them."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[Arrays]:
        return (toy.batch(images=4 - index),)


FORMS: dict[str, Callable[[], Any]] = {
    "dicts": lambda: dataset(toy.batch(4), toy.batch(3)),
    "tuples": lambda: dataset((toy.batch(4),), (toy.batch(3),)),
    "generator": lambda: generator(toy.batch(4), toy.batch(3)),
    "PyDataset": Pages,
}


class Answers(NamedTuple):
    """What Keras' methods return of the two batches, one at a time."""

    steps: list[dict[str, float]]
    tests: list[dict[str, float]]
    means: list[np.ndarray]


@pytest.fixture(scope="module")
def answers() -> Answers:
    model, batches = compiled(), (toy.batch(4), toy.batch(3))
    return Answers(
        steps=[model.train_on_batch(one, return_dict=True) for one in batches],
        tests=[model.test_on_batch(one, return_dict=True) for one in batches],
        means=[model.predict_on_batch(one)["means"] for one in batches],
    )


@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # how Keras notices the end of a generator
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_gives_the_same(form: str, answers: Answers) -> None:
    model = compiled()
    history = model.fit(FORMS[form](), shuffle=False, verbose=0).history
    assert set(history) == {"loss", "loss_shift", "loss_size", "gradient_norm"}
    for name, values in history.items():
        np.testing.assert_allclose(values, np.mean([step[name] for step in answers.steps]), rtol=1e-5, err_msg=name)
    for name, value in model.evaluate(FORMS[form](), verbose=0, return_dict=True).items():
        np.testing.assert_allclose(value, np.mean([test[name] for test in answers.tests]), rtol=1e-5, err_msg=name)
    found = model.predict(FORMS[form](), verbose=0)["means"]
    np.testing.assert_allclose(found, np.concatenate(answers.means), rtol=1e-5)


def test_arrays_are_cut_into_batches() -> None:
    """And a part of them validates."""
    model = compiled()
    history = model.fit(toy.batch(10), batch_size=3, validation_split=0.2, verbose=0).history
    assert np.isfinite([history["loss"], history["val_loss"]]).all()
    assert int(model.optimizer.iterations) == 3


def test_losses_come_first_in_lists() -> None:
    model = compiled()
    values = model.test_on_batch(toy.batch())
    found = model.test_on_batch(toy.batch(), return_dict=True)
    assert values == [found["loss"], found["loss_shift"], found["loss_size"]]
    assert found["loss"] == pytest.approx(found["loss_shift"] + found["loss_size"])


def test_canvases_of_several_sizes_from_call_to_call() -> None:
    model = compiled()
    for side in (8, 12):
        model.fit(dataset(toy.batch(side=side)), verbose=0, shuffle=False)
        assert np.isfinite(model.evaluate(dataset(toy.batch(side=side)), verbose=0)).all()
        assert model.predict(dataset(toy.batch(side=side)), verbose=0)["means"].shape == (4, 4)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("options", [{}, {"steps_per_execution": 2}, {"run_eagerly": True}])
def test_canvases_of_several_sizes_in_one_data_set(options: dict[str, Any]) -> None:
    """Which says nothing of its static sizes."""
    model = compiled(**options)
    mixed = [toy.batch(), toy.batch(3, side=12), toy.batch()]
    model.fit(generator(*mixed), verbose=0, shuffle=False)
    assert int(model.optimizer.iterations) == 3
    losses = [model.test_on_batch(one)[0] for one in mixed]
    np.testing.assert_allclose(model.evaluate(generator(*mixed), verbose=0)[0], np.mean(losses), rtol=1e-5)
    assert model.predict(generator(*mixed), verbose=0)["means"].shape == (11, 4)


@pytest.mark.slow
def test_model_learns_and_predicts_on_two_canvases(config: Config, batch: Arrays) -> None:
    """A real one, in tuples and in single batches."""
    model = fresh(config)
    model.compile("sgd")
    larger = {**batch, "images": np.pad(batch["images"], [(0, 0), (0, 32), (0, 0), (0, 0)])}
    for one in (batch, larger):
        assert np.isfinite(model.fit(dataset((one,)), verbose=0, shuffle=False).history["loss"]).all()
        asked = {name: one[name] for name in ("images", "image_sizes")}
        found = model.predict(dataset(asked), verbose=0)
        alone = model.predict_on_batch(asked)
        assert found.masks.shape == (2, 5, 28, 28)
        for ours, theirs in zip(found, alone, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": toy.batch(), "y": np.ones(4)}, "y is not supported: a batch is one dict"),
        ({"x": dataset((toy.batch(), np.ones(4)))}, "y is not supported: a batch is one dict"),
        ({"x": toy.batch(), "sample_weight": np.ones(4)}, "sample_weight is not supported: .*loss_weights"),
        ({"x": dataset(toy.batch()), "class_weight": {0: 1.0}}, "class_weight is not supported: .*loss_weights"),
        ({"x": toy.batch(), "validation_data": (toy.batch(), np.ones(4))}, "y is not supported"),
        ({"x": toy.batch()["images"]}, "expected a batch that is a dict of tensors"),
    ],
)
def test_fit_refuses_in_words(arguments: dict[str, Any], message: str) -> None:
    model = compiled()
    with pytest.raises(ValueError, match=message):
        model.fit(**arguments, shuffle=False, verbose=0)
    assert int(model.optimizer.iterations) == 0


def test_other_methods_refuse_in_words() -> None:
    model = compiled()
    with pytest.raises(ValueError, match="sample_weight is not supported"):
        model.evaluate(toy.batch(), sample_weight=np.ones(4))
    with pytest.raises(ValueError, match="class_weight is not supported"):
        model.train_on_batch(toy.batch(), class_weight={0: 1.0})
    with pytest.raises(ValueError, match="y is not supported"):
        model.train_on_batch(toy.batch(), np.ones(4))
    with pytest.raises(ValueError, match="sample_weight is not supported"):
        model.test_on_batch(toy.batch(), sample_weight=np.ones(4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "mse"}, "loss is not supported: the model computes its own"),
        ({"metrics": ["mse"]}, "metrics is not supported: .* maskx eval"),
        ({"weighted_metrics": ["mse"]}, "weighted_metrics is not supported: .* maskx eval"),
        ({"loss_weights": {"loss_sizes": 2.0}}, "expected names out of loss_shift, loss_size, found 'loss_sizes'"),
        ({"loss_weights": [1.0, 2.0]}, "expected a dict of loss name to weight, found list"),
        ({"loss_weights": {"loss_size": np.nan}}, "loss_weights: loss_size: expected a finite number, found nan"),
    ],
)
def test_compile_refuses_in_words(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compiled(**options)


def test_loss_weights_weight_the_loss_and_its_gradient() -> None:
    """And not what is reported of each loss."""
    plain, weighted = compiled(), compiled(loss_weights={"loss_shift": 0.0, "loss_size": 3.0})
    before = plain.get_weights()
    ours, theirs = (model.train_on_batch(toy.batch(), return_dict=True) for model in (weighted, plain))
    for name in ("loss_shift", "loss_size"):
        assert ours[name] == theirs[name]
    assert ours["loss"] == pytest.approx(3.0 * ours["loss_size"])
    alone = Toy()
    images = tf.constant(toy.batch()["images"])
    with tf.GradientTape() as tape:
        loss = 3.0 * loss_ops.mean(alone.batch_losses(toy.batch(), alone.seeds(0, 0, len(images)))["loss_size"])
    gradient = tape.gradient(loss, alone.conv.kernel.value)
    np.testing.assert_allclose(weighted.get_weights()[0], before[0] - 0.01 * gradient.numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "call",
    [
        lambda model, folder: model.get_config(),
        lambda model, folder: type(model).from_config({}),
        lambda model, folder: model.to_json(),
        lambda model, folder: model.save(folder / "model.keras"),
        lambda model, folder: keras.models.clone_model(model),
    ],
)
def test_what_needs_a_keras_config_names_what_to_use(call: Callable[[Toy, Path], Any], tmp_path: Path) -> None:
    with pytest.raises(NotImplementedError, match=r"maskx_tf\.checkpoints\.io\.save"):
        call(Toy(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_whole_model_goes_through_a_file_of_keras(config: Config, batch: Arrays, tmp_path: Path) -> None:
    """Its answers, its optimizer, and which parts learn; a clone has the layers, and weights of its own."""
    with dtype_policy("mixed_bfloat16"):
        model = fresh(config)
    model.learn(["box", "mask"])
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), run_eagerly=True)
    model.fit(batch, epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, RCNN)
    assert (loaded.dtype_policy.name, loaded.learning_parts) == ("mixed_bfloat16", {"box", "mask"})
    assert [one.path for one in loaded.trainable_variables] == [one.path for one in model.trainable_variables]
    inputs = {key: tf.constant(batch[key]) for key in ("images", "image_sizes")}
    for one, other in zip(model(inputs), loaded(inputs), strict=True):
        if one is not None:
            np.testing.assert_array_equal(one, other)
    for one, other in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one, other)
    clone = keras.models.clone_model(model)
    assert [tuple(one.shape) for one in clone.weights] == [tuple(one.shape) for one in model.weights]


def test_export_names_what_to_use(tmp_path: Path) -> None:
    with pytest.raises(NotImplementedError, match=r"maskx_tf\.export_saved_model"):
        Toy().export(tmp_path / "model")


@pytest.mark.parametrize("policy", ["float16", "bfloat16"])
def test_policies_without_weights_in_float32_are_refused(policy: str, config: Config) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        with pytest.raises(ValueError, match=f"expected float32, mixed_float16 or mixed_bfloat16.*found {policy}"):
            build(config.model)
    finally:
        keras.config.set_dtype_policy("float32")


def mean_losses(model: RCNN, batch: Arrays) -> dict[str, float]:
    seeds = model.seeds(tf.constant(0), tf.constant(0), tf.constant(len(batch["images"])))
    return {name: float(loss_ops.mean(loss)) for name, loss in model.batch_losses(batch, seeds).items()}


@pytest.mark.parametrize("stage", ["all", "detector", "mask"])
def test_loss_is_nan_where_features_are(stage: str, shared: RCNN, batch: Arrays) -> None:
    """Also on a level from which no anchor was sampled and no region pooled."""
    shared.learn(start.parts_of(stage, shared))
    assert np.isfinite(list(mean_losses(shared, batch).values())).all()
    shared.neck.outputs[-1].bias.assign(np.full(32, np.nan))  # P5, and P6 made of it
    assert np.isnan(sum(mean_losses(shared, batch).values()))
    shared.neck.outputs[-1].bias.assign(np.zeros(32))


def test_loss_is_nan_where_masks_are(config: Config, batch: Arrays) -> None:
    """Also in a batch without a single mask to learn from."""
    model = fresh(config)
    last = [weight for weight in model.mask.head.weights if "kernel" in weight.path][-1]
    last.assign(np.full(last.shape, np.nan))
    assert np.isnan(mean_losses(model, {**batch, "gt_has_mask": 0 * batch["gt_has_mask"]})["loss_mask"])


@pytest.mark.parametrize("size", [(64, 80), (48, 64)])
def test_canvas_that_is_no_multiple_is_refused(size: tuple[int, int], shared: RCNN) -> None:
    height, width = size
    images, sizes = tf.zeros([1, height, width, 3]), tf.constant([[height, width]], tf.float32)
    with pytest.raises(ValueError, match=f"multiples of 32, found {height} x {width}"):
        shared({"images": images, "image_sizes": sizes})
    with pytest.raises(ValueError, match="known when the graph is traced, found"):
        tf.function(shared.features).get_concrete_function(
            tf.TensorSpec([None, None, None, 3], tf.float32), tf.TensorSpec([None, 2], tf.float32)
        )
