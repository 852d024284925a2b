"""Run by test_distribute: ten steps of a small model under some strategy, and the weights into a file."""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from maskx_tf.config import load
from maskx_tf.data import opening
from maskx_tf.data.pipeline import batches as pipeline
from maskx_tf.data.pipeline import examples
from maskx_tf.training import distribute
from maskx_tf.training.fit import compiled

STEPS = 10


def ten_steps(recipe: str, strategy: tf.distribute.Strategy, out: Path, *overrides: str) -> None:
    """Trains and writes all weights and each step's logs."""
    config = load(recipe, overrides)
    dataset = opening.training_set(config.data)
    model_config = config.model.model_copy(update={"class_names": dataset.class_names})
    config = config.model_copy(update={"model": model_config})
    held = examples.from_dataset(dataset)

    def batches(worker: int, workers: int, devices: int) -> tf.data.Dataset:
        return pipeline.training(
            held, config.data, config.model.input, batch=4, worker=worker, workers=workers, devices=devices
        )

    lines: list[dict[str, float]] = []

    class Logs(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
            lines.append({name: float(np.reshape(value, [-1])[0]) for name, value in (logs or {}).items()})

    with strategy.scope():
        model = compiled(config)
    data = distribute.spread(batches, strategy)
    model.fit(data, steps_per_epoch=STEPS, verbose=0, shuffle=False, callbacks=[Logs()])
    arrays = {variable.path: variable.numpy() for variable in model.weights}
    losses = {f"log {name}": np.array([line[name] for line in lines]) for name in lines[0]}
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(out, **arrays, **losses)


def main() -> None:
    """The recipe, where to write, and what: `local` for one device, two, and one in parts; else TF_CONFIG's worker."""
    recipe, out, what = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    if what == "worker":
        strategy = distribute.choose("multi_worker")  # before anything else is computed
        tf.config.experimental.enable_op_determinism()
        ten_steps(recipe, strategy, out / f"workers{int(distribute.is_chief(strategy))}.npz")
        return
    tf.config.experimental.enable_op_determinism()
    device = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * 2)
    ten_steps(recipe, distribute.choose("one"), out / "one.npz")
    ten_steps(recipe, distribute.choose("mirrored"), out / "mirrored.npz")


if __name__ == "__main__":
    main()
