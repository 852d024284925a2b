"""A step whose loss or gradient is not finite changes nothing, whatever the optimizer."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest

from maskx_tf.training.optimizer import SGD
from tests.models import toy
from tests.models.toy import Toy

OPTIMIZERS: dict[str, Callable[[], keras.optimizers.Optimizer]] = {
    "ours": lambda: SGD(0.1, momentum=0.9, weight_decay=0.1),
    "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9, clipnorm=1.0),
    "adam": lambda: keras.optimizers.Adam(0.1, use_ema=True, ema_overwrite_frequency=2),
    "adamw": lambda: keras.optimizers.AdamW(0.1, weight_decay=0.1, global_clipnorm=1.0),
    "accumulating": lambda: keras.optimizers.Adam(0.1, gradient_accumulation_steps=2),
    "scaled by hand": lambda: keras.optimizers.SGD(0.1, loss_scale_factor=8.0),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, momentum=0.9)),
}


def state(model: Toy) -> dict[str, np.ndarray]:
    """Everything that training moves, by path."""
    return {variable.path: variable.numpy() for variable in [*model.weights, *model.optimizer.variables]}


@pytest.mark.parametrize("eagerly", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_step_that_is_not_finite_changes_nothing(name: str, eagerly: bool) -> None:
    """Weights, moving statistics, slots, averages and iterations; only the scale of a loss is lowered."""
    model = Toy()
    model.compile(OPTIMIZERS[name](), run_eagerly=eagerly)
    model.train_on_batch(toy.batch())
    before = state(model)
    logs = model.train_on_batch(toy.broken(), return_dict=True)
    assert np.isnan([logs["loss"], logs["loss_shift"], logs["gradient_norm"]]).all()
    after = state(model)
    moved = {path for path, value in after.items() if not np.array_equal(value, before[path])}
    scale = {"step_counter", "dynamic_scale"} if name == "scaled" else set()
    assert {path.rpartition("/")[2] for path in moved} == scale
    for _ in range(2):
        model.train_on_batch(toy.batch())
    after = state(model)
    assert all(np.isfinite(value).all() for value in after.values())
    assert not any(np.array_equal(after[variable.path], before[variable.path]) for variable in model.conv.variables)
    assert max(int(value) for path, value in after.items() if path.endswith("/iteration")) == 3


def test_norm_that_overflows_stops_the_step() -> None:
    """Every gradient is finite, their squares are not: what clipping divides by."""
    model = Toy()
    model.compile(keras.optimizers.SGD(0.1))
    before = model.get_weights()
    logs = model.train_on_batch({**toy.batch(), "shift": np.full(4, 1e19, np.float32)}, return_dict=True)
    assert np.isinf(logs["gradient_norm"])
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_evaluation_changes_nothing() -> None:
    """Not the moving statistics either, though losses are those of training."""
    model = Toy()
    model.compile("sgd")
    before = model.get_weights()
    model.test_on_batch(toy.batch())
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
