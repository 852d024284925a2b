"""A trial at full size without data: whether a model builds and fits into memory, and how long training takes."""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from maskx_tf.config import Config
from maskx_tf.structures import COMMON_FIELDS, VALID, Field, KeypointSet, points_field, with_flags
from maskx_tf.training import distribute
from maskx_tf.training.fit import check_batch, compiled, explained, without_start

INSTANCES = 10
CLICKS = 10  # labelled points of an instance
WORDS = 300  # width of a table of word vectors


class Trial(NamedTuple):
    """The measured cost of a run.

    Attributes:
        classes: how many there are.
        parameters: the number of the model's weights.
        trained: how many of them learn.
        devices: the number of devices.
        losses: the losses of the last step.
        first_step_seconds: the seconds of the first step, with tracing and compiling.
        step_seconds: the seconds of the last step.
        memory_mib: the most that the process has taken, with TensorFlow itself.
        hours: the hours of the whole run, in which each of several stages is as long as this one.
    """

    classes: int
    parameters: int
    trained: int
    devices: int
    losses: dict[str, float]
    first_step_seconds: float
    step_seconds: float
    memory_mib: int
    hours: float


def trial(config: Config, steps: int = 2) -> Trial:
    """Builds everything and makes steps on made-up images; the configuration has class names."""
    strategy = distribute.choose(config.train.strategy)
    devices = strategy.num_replicas_in_sync
    check_batch(config.train, devices)
    with tempfile.TemporaryDirectory(prefix="maskx-") as folder, strategy.scope():
        model = compiled(_with_table(without_start(config), Path(folder, "table.npy")))
    batch = made_up(config, config.train.batch // devices)
    data = distribute.spread(lambda *place: tf.data.Dataset.from_tensors(batch).repeat(), strategy)
    seconds, losses = [], {}
    with explained():
        for _ in range(steps):
            begin = time.monotonic()
            history = model.fit(data, epochs=1, steps_per_epoch=1, verbose=0, shuffle=False)
            seconds.append(time.monotonic() - begin)
            losses = {name: float(values[-1]) for name, values in history.history.items()}
    return Trial(
        classes=len(config.model.class_names),
        parameters=int(model.count_params()),
        trained=sum(int(tf.size(variable)) for variable in model.trainable_variables),
        devices=devices,
        losses=losses,
        first_step_seconds=round(seconds[0], 2),
        step_seconds=round(seconds[-1], 3),
        memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        hours=round(seconds[-1] * config.train.steps * max(len(config.train.stages), 1) / 3600, 2),
    )


def _with_table(config: Config, path: Path) -> Config:
    """The configuration with a made-up table where T reads one."""
    if config.model.transfer.embedding is None:
        return config
    np.save(path, np.random.default_rng(0).normal(size=[len(config.model.class_names), WORDS]))
    transfer = config.model.transfer.model_copy(update={"embedding": str(path)})
    return config.model_copy(update={"model": config.model.model_copy(update={"transfer": transfer})})


def made_up(config: Config, images: int) -> dict[str, np.ndarray]:
    """A batch of noise, half of whose boxes have masks, with keypoints anywhere; its fields are docs/pipeline.md's."""
    rng = np.random.default_rng(config.train.seed)
    height, width = config.model.input.canvas
    room = config.data.max_instances
    count = min(INSTANCES, room)

    def of_each(field: Field) -> np.ndarray:
        """Values of the instances, [images, count, *shape]."""
        shape = [images, count, *field.shape]
        match field.kind:
            case "box":
                corners = rng.uniform(0.0, 0.6, [images, count, 2])
                sides = rng.uniform(0.1, 0.4, [images, count, 2])
                return np.concatenate([corners, corners + sides], axis=-1) * np.array([width, height] * 2)
            case "label":
                return rng.integers(1, len(config.model.class_names) + 1, shape)
            case "grid":
                return rng.integers(0, 256, shape, np.uint8)
            case "points":
                return rng.uniform(0.0, 1.0, shape) * np.array([width, height, 0]) + np.array([0, 0, 2])
        return np.broadcast_to(flags[field.name], shape)

    flags = {"valid": True, "crowd": False, "has_keypoints": True, "has_clicks": True}
    flags["has_mask"] = np.arange(count) % 2 == 0
    batch = {
        "images": rng.integers(0, 256, [images, height, width, 3], np.uint8),
        "image_sizes": np.tile(np.array([height, width], np.float32), [images, 1]),
        "original_sizes": np.tile(np.array([height, width], np.float32), [images, 1]),
        "image_ids": np.arange(images, dtype=np.int64),
        "image_valid": np.ones(images, np.uint8),
    }
    names = config.model.keypoint.names
    points = [KeypointSet(names).field] if names else []
    if "points" in config.model.mask.box_losses:
        points.append(points_field("clicks", CLICKS))
    for field in with_flags((VALID, *COMMON_FIELDS, *points)):
        full = np.zeros([images, room, *field.shape], np.uint8 if field.dtype == "bool" else field.dtype)
        full[:, :count] = of_each(field)
        batch[field.key] = full
    return batch
