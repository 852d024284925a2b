"""Logs a run to log.csv, TensorBoard and the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from maskx_tf.files import Json, writing
from maskx_tf.training import log

BOARD = "tensorboard"  # the folder of its files


class Journal(keras.callbacks.Callback):
    """Writes the means of every few steps.

    Attributes:
        step: updates made.
        values: the logs of the last step.

    Args:
        run: the run folder; None writes nothing, as workers but the chief do.
        first: the step from which this process continues.
        total: steps of the whole run.
        every: steps of which a line is the mean.
        images: the number of images in a step.
        say: is given each line.
        advance: is called after each step with its number and a few words on how it goes.
    """

    def __init__(
        self,
        run: Path | None,
        *,
        first: int,
        total: int,
        every: int,
        images: int,
        say: Callable[[str], None],
        advance: Callable[[int, str], None],
    ) -> None:
        super().__init__()
        self.run = run
        self.step = first
        self.values: dict[str, float] = {}
        self.first = first
        self.total = total
        self.every = every
        self.images = images
        self.say = say
        self.advance = advance
        self.since = time.monotonic()
        self.pause = 0.0
        self.started = 0
        self.first_seconds = 0.0
        self.writer: Any = None
        if run is not None:
            log.cut(run / log.LOG, first)
            with writing(run / BOARD):
                self.writer = tf.summary.create_file_writer(str(run / BOARD))

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        self.begin = self.since = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self.step += 1
        now = time.monotonic()
        if self.step == self.first + 1:
            # Tracing and compiling are over: the rate is that of what follows.
            self.first_seconds = now - self.begin
            self.say(f"first step after {self.first_seconds:.1f} s")
            self.since, self.started = now, self.step
        self.values = values = {name: float(np.asarray(value).reshape(-1)[0]) for name, value in (logs or {}).items()}
        self.advance(self.step, f"loss {values.get('loss', float('nan')):.3f}")
        if self.step % self.every and self.step != self.total:
            return
        seconds = now - self.since - self.pause
        steps = self.step - self.started
        rate = steps * self.images / seconds if steps and seconds > 0 else 0.0
        learning = self.model.optimizer.learning_rate
        line = {"step": self.step, "rate": float(learning), "images_per_second": round(rate, 3), **values}
        self._write(line)
        left = (self.total - self.step) * self.images / rate if rate else 0.0
        losses = "  ".join(f"{name.removeprefix('loss_')} {value:.3f}" for name, value in values.items())
        self.say(f"step {self.step}/{self.total}  {losses}  {rate:.1f} images/s  {_clock(left)} left")
        self.model.reset_metrics()
        self.since, self.started, self.pause = time.monotonic(), self.step, 0.0

    def note(self, values: dict[str, float]) -> None:
        """Adds other figures of this step, such as an evaluation's."""
        self._write({"step": self.step, **values})

    def rest(self, seconds: float) -> None:
        """Excludes time that other work used from the rate."""
        self.pause += seconds

    def picture(self, name: str, pixels: np.ndarray) -> None:
        """Shows an image [h, w, 3] in TensorBoard."""
        if self.run is not None:
            with writing(self.run / BOARD), self.writer.as_default():
                tf.summary.image(name, pixels[None], step=self.step)
                self.writer.flush()

    def _write(self, line: Json) -> None:
        if self.run is None:
            return
        log.add(self.run / log.LOG, line)
        with writing(self.run / BOARD), self.writer.as_default():
            for name, value in line.items():
                if name != "step":
                    tf.summary.scalar(name, value, step=self.step)
            self.writer.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
