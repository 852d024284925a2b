"""Callbacks between the steps of a run: checkpoints, evaluations, pictures, and a clean end on a signal."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from maskx_tf.config import Config
from maskx_tf.files import Json
from maskx_tf.models.rcnn import RCNN
from maskx_tf.models.update import inner
from maskx_tf.training import guard, states
from maskx_tf.training.distribute import Agreement
from maskx_tf.training.journal import Journal

LEAST_SCALE = 1e-3  # a float16 run whose gradients overflow even so will not find one at which they do not


class Hooks(NamedTuple):
    """Functions that a run gets from its caller, who knows the data and the terminal.

    Attributes:
        evaluate: the model to figures by name and the one that says which checkpoint is best; None: no evaluation.
        picture: the model to a sheet of predictions, uint8 [h, w, 3]; None: none.
        say: is given lines to print.
        advance: is called after each step with its number and a few words.
    """

    evaluate: Callable[[RCNN], tuple[dict[str, float], float | None]] | None = None
    picture: Callable[[RCNN], np.ndarray] | None = None
    say: Callable[[str], None] = lambda text: None
    advance: Callable[[int, str], None] = lambda step, text: None


class Stopped:
    """Records a request to stop. The run stops after the current step.

    Attributes:
        by: the signal, or 0.
    """

    def __init__(self) -> None:
        self.by = 0

    @contextmanager
    def listening(self, say: Callable[[str], None]) -> Iterator[None]:
        """Handles Ctrl-C and SIGTERM; a second one ends the process as usual."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def heard(number: int, frame: object) -> None:
            self.by = number
            say("stopping after this step; once more to stop at once")
            for each, handler in before.items():
                signal.signal(each, handler)

        for number in before:
            signal.signal(number, heard)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Keeper(keras.callbacks.Callback):
    """Stops at values that are not finite or on request, saves checkpoints, evaluates, draws.

    Stands behind the user's callbacks, so that one that sets `stop_training` ends the run as a signal does.

    Args:
        run: the run folder; None for workers that are not the chief, which write nothing.
        config: the configuration of the run.
        meta: the facts that each checkpoint's model.json stores.
        batch_of: a step to its batch, to keep one that fails.
        journal: the journal, which stands before this callback and counts the steps.
        hooks: see `Hooks`.
        stopped: see `Stopped`.
        agreement: see `Agreement`.
    """

    def __init__(
        self,
        run: Path | None,
        config: Config,
        meta: Json,
        *,
        batch_of: Callable[[int], Mapping[str, tf.Tensor]],
        journal: Journal,
        hooks: Hooks,
        stopped: Stopped,
        agreement: Agreement,
    ) -> None:
        super().__init__()
        self.run = run
        self.config = config
        self.meta = meta
        self.batch_of = batch_of
        self.journal = journal
        self.hooks = hooks
        self.stopped = stopped
        self.agreement = agreement
        self.figures: dict[str, float] = {}
        self._wishes_to_stop = False  # until all workers are asked, which may be some steps later

    @property
    def step(self) -> int:
        """The updates made."""
        return self.journal.step

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self._check(self.journal.values)
        train = self.config.train
        last = self.step == train.steps
        self._wishes_to_stop |= self.model.stop_training or bool(self.stopped.by)
        ends = self.model.stop_training = self.agreement(self.step, self._wishes_to_stop)
        begin = time.monotonic()
        if self.run is not None:
            state = None
            if last or ends or self._is_due() or self.step % train.checkpoint_every == 0:
                state = states.save(self.run, self.model, self.config, self.step, self.meta)
            if state is not None and self._is_due():
                self._evaluate(state)
            if self.hooks.picture is not None and train.pictures_every and self.step % train.pictures_every == 0:
                with averaged(self.model):
                    self.journal.picture("predictions", self.hooks.picture(self.model))
            if state is not None:
                states.tidy(self.run, train.keep)
        self.journal.rest(time.monotonic() - begin)

    def catch_up(self, state: states.State) -> None:
        """Repeats the evaluation of the checkpoint from which a killed run goes on, if its figures are needed."""
        if self.run is not None and self._is_due() and (state.metric is None or self.step == self.config.train.steps):
            self._evaluate(state)

    def _is_due(self) -> bool:
        """Whether there is an evaluation after this step; its weights are kept, so that it can be made once more."""
        every = self.config.evaluate.every
        wanted = self.step == self.config.train.steps or bool(every and self.step % every == 0)
        return self.hooks.evaluate is not None and self.step > 0 and wanted

    def _check(self, logs: dict[str, float]) -> None:
        scaled = self.config.train.precision == "float16"
        wrong = guard.unsound(logs, scaled=scaled)
        if scaled and float(self.model.optimizer.dynamic_scale) < LEAST_SCALE:
            wrong.append("gradients at any scale of float16's losses")
        if not wrong:
            return
        text = f"step {self.step}: {', '.join(wrong)} not finite"
        if self.run is None:
            raise guard.NotFinite(text)
        folder = guard.keep(self.run, self.model, self.config, self.step, self.batch_of(self.step - 1), logs)
        report = guard.read(folder)
        where = f"first: {report['first']}; images {', '.join(map(str, report['images']))}"
        raise guard.NotFinite(f"{text}; {where}; lower train.rate, or look again: maskx train --replay {folder}")

    def _evaluate(self, state: states.State) -> None:
        assert self.hooks.evaluate is not None
        with averaged(self.model):
            self.figures, metric = self.hooks.evaluate(self.model)
        self.journal.note(self.figures)
        self.hooks.say(f"step {self.step}: " + "  ".join(f"{name} {value:.3f}" for name, value in self.figures.items()))
        if metric is not None:
            states.note_metric(state, metric)


@contextmanager
def averaged(model: RCNN) -> Iterator[None]:
    """The model with the running averages of its weights, if its optimizer keeps them."""
    optimizer = inner(model.optimizer)
    if not optimizer.use_ema:
        yield
        return
    variables = model.trainable_variables
    plain = [variable.numpy() for variable in variables]
    for variable, average in zip(variables, averages(optimizer), strict=True):
        variable.assign(average.numpy())
    try:
        yield
    finally:
        for variable, value in zip(variables, plain, strict=True):
            variable.assign(value)


def averages(optimizer: Any) -> list[Any]:
    """The running averages of the trainable variables, in their order."""
    return list(optimizer._model_variables_moving_average)


def mask_averages(model: RCNN) -> list[tuple[keras.Variable, tf.Tensor]]:
    """The variables of the mask branch that learn, each with its running average."""
    of_mask = {variable.path for layer in model.mask.layers() for variable in layer.trainable_variables}
    kept = zip(model.trainable_variables, averages(inner(model.optimizer)), strict=True)
    return [(variable, average.value) for variable, average in kept if variable.path in of_mask]
