"""Finds where a loss became not finite, and keeps the batch so that the step can be repeated."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from maskx_tf import files
from maskx_tf.checkpoints import io, npz
from maskx_tf.checkpoints.folder import read_config
from maskx_tf.checkpoints.variables import named
from maskx_tf.config import Config
from maskx_tf.errors import BadInput
from maskx_tf.files import Json
from maskx_tf.models.rcnn import RCNN
from maskx_tf.training import start

BATCH, AVERAGES, FAILURE = "batch.npz", "averages.npz", "failure.json"


class NotFinite(BadInput):
    """A loss or gradient is not finite; the message says where the batch was kept."""


def unsound(logs: Mapping[str, float], *, scaled: bool) -> list[str]:
    """The names of losses that are not finite; with scaled losses (float16) gradients may be so now and then."""
    return [name for name, value in logs.items() if not math.isfinite(value) and not (scaled and "gradient" in name)]


def keep(
    run: Path, model: RCNN, config: Config, step: int, batch: Mapping[str, tf.Tensor], logs: Mapping[str, float]
) -> Path:
    """Writes the model, the batch and the report to RUN/failed/step-N, for `replay`.

    Raises:
        BadInput: it cannot be written.
    """
    folder = run / "failed" / f"step-{step:08d}"
    updates = int(model.optimizer.iterations)  # the seeds depend on it; float16 leaves out steps that overflow
    facts = {
        "step": step,
        "updates": updates,
        "images": [int(number) for number in np.asarray(batch["image_ids"])],
        "losses": {name: value if math.isfinite(value) else str(value) for name, value in logs.items()},
        "first": "not looked for",
    }
    # The search may run out of memory, so the known facts are written first.
    with files.new_folder(folder, replace=True) as unfinished:
        io.write_into(unfinished, model, config, {})
        npz.write(unfinished / BATCH, ((name, np.asarray(value)) for name, value in batch.items()))
        if _has_teacher(config) and model.mask.averages is not None:
            npz.write(unfinished / AVERAGES, ((of.path, value.numpy()) for of, value in model.mask.averages()))
        files.write_json(unfinished / FAILURE, facts)
    try:
        facts["first"] = first_unsound(model, batch, updates)
    except tf.errors.ResourceExhaustedError:
        facts["first"] = "not found, because there was no memory left to look"
    files.write_json(folder / FAILURE, facts)
    return folder


def replay(folder: Path) -> Json:
    """Computes the losses of a kept batch again.

    Returns:
        step, updates, images, losses and first: see `keep`.

    Raises:
        BadInput: it is no such folder.
    """
    facts = read(folder)
    config, _ = read_config(folder)
    with start.precision(config):
        model = io.load(folder, portable=config.train.jit, finite=False).model
    start.set_up(model, config)
    batch = _tensors(folder / BATCH)
    if _has_teacher(config):
        variables = named(model)
        averages = [(variables[name], value) for name, value in _tensors(folder / AVERAGES).items()]
        model.mask.averages = lambda: averages
    count = len(batch["image_ids"])
    updates = facts.setdefault("updates", facts["step"] - 1)  # folders of earlier commits do not have it
    losses = model.computed_losses(batch, model.seeds(tf.constant(updates), tf.constant(0), tf.constant(count)))
    values = {name: float(loss.total) / max(float(loss.count), 1.0) for name, loss in losses.items()}
    return {**facts, "losses": values, "first": first_unsound(model, batch, updates)}


def _has_teacher(config: Config) -> bool:
    return "teacher" in config.model.mask.box_losses


def _tensors(path: Path) -> dict[str, tf.Tensor]:
    with npz.reading(path) as archive:
        return {name: tf.constant(array) for name, array in archive.items()}


def read(folder: Path) -> Json:
    """The report of `keep`.

    Raises:
        BadInput: there is none.
    """
    try:
        facts: Json = files.read_json(folder / FAILURE)
    except BadInput:
        raise BadInput(f"{folder}: expected a folder that a failed run wrote, found no readable {FAILURE}") from None
    return facts


def first_unsound(model: RCNN, batch: Mapping[str, tf.Tensor], updates: int) -> str:
    """The first thing, in the order of computation, that is not finite: a weight, an input, a layer, a gradient."""
    for variable in model.weights:
        if not np.isfinite(variable.numpy()).all():
            return f"the weights {variable.path}"
    for name, value in batch.items():
        if not np.isfinite(np.asarray(value)).all():
            return f"the input {name}"
    # The search computes eagerly, to see each layer.
    how = "; looked for without XLA, which draws other regions" if model.learning.jit else ""
    for place in range(len(batch["image_ids"])):
        # One image, or pooled region, at a time: a device may hold no more, and this one has the whole batch before it.
        one = {name: value[place : place + 1] for name, value in batch.items()}
        found = _first_of_image(model, one, model.seeds(tf.constant(updates), tf.constant(place), tf.constant(1)))
        if found:
            return found + how
    return "nothing when each image is computed again by itself" + how


def _first_of_image(model: RCNN, batch: Mapping[str, tf.Tensor], seeds: tf.Tensor) -> str:
    """Names the first value that is not finite in a batch of one image; empty if all are finite."""
    with _watched() as seen, tf.GradientTape() as tape:
        losses = model.batch_losses(dict(batch), seeds)
        total = tf.add_n([tf.math.divide_no_nan(loss.total, loss.count) for loss in losses.values()])
    if seen:
        return f"the output of layer {seen[0]}"
    for name, loss in losses.items():
        if not np.isfinite(float(loss.total)):
            return f"{name}, of finite outputs"
    variables = model.trainable_variables
    inner = [variable.value for variable in variables]
    gradients = tape.gradient(total, inner, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    for gradient, variable in reversed(list(zip(gradients, variables, strict=True))):
        if not np.isfinite(np.asarray(tf.convert_to_tensor(gradient))).all():
            return f"the gradient of {variable.path}"
    return ""


@contextmanager
def _watched() -> Iterator[list[str]]:
    """Collects the names of layers whose outputs are not finite, in order, while Keras computes eagerly."""
    seen: list[str] = []
    plain = keras.layers.Layer.__call__

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        outputs = plain(layer, *arguments, **options)
        for value in tf.nest.flatten(outputs):
            is_number = hasattr(value, "dtype") and tf.as_dtype(value.dtype).is_floating
            if is_number and not bool(tf.reduce_all(tf.math.is_finite(value))):
                seen.append(layer.path or layer.name)
                break
        return outputs

    keras.layers.Layer.__call__ = call
    try:
        yield seen
    finally:
        keras.layers.Layer.__call__ = plain
