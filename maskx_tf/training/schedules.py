"""The learning rate at each step: a linear warm-up, then drops or half a cosine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, asdict, dataclass
from typing import Any

import keras
import tensorflow as tf

from maskx_tf.config.training import TrainConfig
from maskx_tf.files import Json


@keras.saving.register_keras_serializable(package="maskx_tf")
@dataclass(eq=False)
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of each step: the schedule's rate times the warm-up's factor.

    Attributes:
        rate: the rate after the warm-up.
        steps: the number of steps of the whole run.
        warm_up_steps: how many steps the warm-up takes.
        warm_up_start: the first step's share of the rate.
        drops: steps at which the rate is multiplied by `drop_factor`; None for half a cosine to zero.
        drop_factor: see above.
    """

    rate: float
    _: KW_ONLY
    steps: int
    warm_up_steps: int = 0
    warm_up_start: float = 1 / 3
    drops: Sequence[int] | None = ()
    drop_factor: float = 0.1

    @classmethod
    def of(cls, train: TrainConfig) -> Schedule:
        """The schedule of a configuration."""
        return cls(
            train.rate,
            steps=train.steps,
            warm_up_steps=train.warm_up.steps,
            warm_up_start=train.warm_up.start,
            drops=train.drops if train.schedule == "drops" else None,
            drop_factor=train.drop_factor,
        )

    def __call__(self, step: Any) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        rate = tf.constant(self.rate, tf.float32)
        if self.warm_up_steps:
            share = tf.minimum(step / self.warm_up_steps, 1.0)
            rate *= self.warm_up_start + (1.0 - self.warm_up_start) * share
        if self.drops is None:
            return rate * 0.5 * (1.0 + tf.cos(math.pi * tf.minimum(step / self.steps, 1.0)))
        passed = tf.add_n([tf.cast(step >= drop, tf.float32) for drop in self.drops]) if self.drops else 0.0
        return rate * tf.pow(self.drop_factor, passed)

    def get_config(self) -> Json:
        return asdict(self)
