"""Run by test_distribute: uneven batches and a broken one on several devices, and what came of them into a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from maskx_tf.training import distribute
from maskx_tf.training.optimizer import SGD
from tests.models import toy
from tests.models.toy import Toy

OPTIMIZERS = {
    "ours": lambda: SGD(0.1, momentum=0.9),
    "adamw": lambda: keras.optimizers.AdamW(0.1, global_clipnorm=0.1, use_ema=True),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)),
}
SIZES = (4, 3, 1)  # of two devices, one has less, then nothing


def learned(strategy: tf.distribute.Strategy, optimizer: str) -> dict[str, object]:
    """The logs of each batch, the weights, and what a batch with one broken image moved on any device."""
    with strategy.scope():
        model = Toy()
        # One device is what the others are compared with: without graphs, which take longer than the steps.
        model.compile(OPTIMIZERS[optimizer](), run_eagerly=strategy.num_replicas_in_sync == 1)
    logs = [fitted(model, toy.batch(images)) for images in SIZES]
    evaluated = SIZES if optimizer == "ours" else ()  # an evaluation does not ask the optimizer
    tested = [model.evaluate(dataset(toy.batch(images)), verbose=0, return_dict=True) for images in evaluated]
    variables = [*model.weights, *model.optimizer.variables]
    weights = [variable.numpy().tolist() for variable in model.conv.weights]
    before = [copies(strategy, variable) for variable in variables]
    broken = fitted(model, toy.broken(3, only_last=True))
    moved = [
        variable.name
        for variable, old in zip(variables, before, strict=True)
        if not np.array_equal(copies(strategy, variable), old)
    ]
    return {
        "logs": logs,
        "tested": tested,
        "weights": weights,
        "broken": np.isnan(broken["loss"]).item(),
        "moved": moved,
    }


def dataset(batch: dict[str, np.ndarray]) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(batch).batch(len(batch["images"]))


def fitted(model: Toy, batch: dict[str, np.ndarray]) -> dict[str, float]:
    history = model.fit(dataset(batch), shuffle=False, verbose=0).history
    return {name: values[0] for name, values in history.items()}


def copies(strategy: tf.distribute.Strategy, variable: keras.Variable) -> list[np.ndarray]:
    """The values on all devices."""
    return [copy.numpy() for copy in strategy.experimental_local_results(variable.value)]


def main() -> None:
    """Where to write; and `worker`, to be the worker of TF_CONFIG."""
    if len(sys.argv) > 2:
        strategy = distribute.choose("multi_worker")
        found = {"workers": {optimizer: learned(strategy, optimizer) for optimizer in OPTIMIZERS}}
        Path(sys.argv[1]).write_text(json.dumps(found))
        return
    device = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * 2)
    # One strategy for all optimizers: a second one gives its collective operations the first one's numbers.
    strategies = {name: distribute.choose(name) for name in ("one", "mirrored")}
    found = {
        name: {optimizer: learned(strategy, optimizer) for optimizer in OPTIMIZERS}
        for name, strategy in strategies.items()
    }
    Path(sys.argv[1]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
