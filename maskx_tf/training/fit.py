"""One run: a configuration and batches in, a run folder with logs, checkpoints and the final model out."""

from __future__ import annotations

import functools
import platform
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from maskx_tf import files, locks
from maskx_tf.checkpoints import io
from maskx_tf.checkpoints.folder import CONFIG
from maskx_tf.config import Config, TrainConfig, load
from maskx_tf.config import write as write_config
from maskx_tf.config.text import dotted
from maskx_tf.errors import BadInput
from maskx_tf.files import Json
from maskx_tf.models.rcnn import RCNN
from maskx_tf.training import distribute, optimizer, own_callbacks, start, states
from maskx_tf.training.callbacks import Hooks, Keeper, Stopped, averaged, mask_averages
from maskx_tf.training.journal import Journal

VERSIONS, SUMMARY, MODEL = "versions.json", "summary.json", "model"
STAGES = "stages"  # holds a run for each of train.stages but the last
LOCK = ".lock"  # tells a second training that one is at work

# Where to start, a worker's number, how many workers, how many devices it has -> endless batches.
BatchesFrom = Callable[[int, int, int, int], tf.data.Dataset]


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
        step: updates made.
        stopped_by: the signal that ended it, or 0.
        figures: the figures of the last evaluation.
    """

    step: int
    stopped_by: int
    figures: dict[str, float]


def run(config: Config, out: Path, batches: BatchesFrom, *, meta: Json, resume: bool, hooks: Hooks) -> Outcome:
    """Trains.

    Args:
        config: resolved: with the class names.
        out: the run folder.
        batches: the batches of `data.pipeline.training`.
        meta: the facts about the data for model.json: category_ids, a_classes.
        resume: go on with the run that is there; without one, begin.
        hooks: see `Hooks`.

    Raises:
        BadInput: something is in the way, does not fit, or is not finite.
    """
    train = config.train
    strategy = distribute.choose(train.strategy)
    callbacks = own_callbacks.make(train.callbacks)
    if train.deterministic:
        if tf.config.list_physical_devices("GPU"):
            raise BadInput("train.deterministic: expected false, for RoIAlign's gradient has no such form on a GPU")
        tf.config.experimental.enable_op_determinism()
    check_batch(train, strategy.num_replicas_in_sync)
    chief = distribute.is_chief(strategy)
    with ExitStack() as held:
        if chief:
            open_folder(out, config, resume=resume, say=hooks.say)
            held.enter_context(locks.locked(out / LOCK))
        hooks, callbacks = (hooks, callbacks) if chief else (Hooks(), [])
        return _run(config, out, batches, strategy, meta, callbacks, resume=resume, hooks=hooks)


def _run(
    config: Config,
    out: Path,
    batches: BatchesFrom,
    strategy: tf.distribute.Strategy,
    meta: Json,
    callbacks: list[keras.callbacks.Callback],
    *,
    resume: bool,
    hooks: Hooks,
) -> Outcome:
    """Trains in a folder that is open."""
    train, chief = config.train, distribute.is_chief(strategy)
    state = states.newest(out, hooks.say) if resume else None
    first = state.step if state else 0
    agreement = distribute.Agreement(strategy, train.log_every)
    agreement.begin(first)
    if chief and resume:
        states.set_aside(out, first)
    with strategy.scope():
        model = compiled(without_start(config) if state else config, hooks.say)
    if chief:
        note(config, out)
    if state is not None:
        states.restore(state, model)
        hooks.say(f"going on from step {state.step}")
        if first >= train.steps and (finished := summary_of(out)) is not None:
            return Outcome(first, 0, finished["figures"])
    journal = Journal(
        out if chief else None,
        first=first,
        total=train.steps,
        every=train.log_every,
        images=train.batch,
        say=hooks.say,
        advance=hooks.advance,
    )
    stopped = Stopped()
    keeper = Keeper(
        out if chief else None,
        config,
        meta,
        batch_of=lambda step: next(iter(batches(step, 0, 1, 1))),
        journal=journal,
        hooks=hooks,
        stopped=stopped,
        agreement=agreement,
    )
    keeper.set_model(model)
    if state is not None:
        keeper.catch_up(state)
    if first < train.steps:
        data = distribute.spread(lambda *place: batches(first, *place), strategy)
        with stopped.listening(hooks.say), explained():
            model.fit(
                data,
                epochs=1,
                steps_per_epoch=train.steps - first,
                verbose=0,
                shuffle=False,
                callbacks=[journal, *callbacks, keeper],
            )
    if chief and keeper.step >= train.steps:
        finish(model, config, out, meta, journal, keeper.figures)
    step = keeper.step
    # A worker that another one stopped has received no signal itself.
    by = stopped.by or (signal.SIGTERM if step < train.steps else 0)
    return Outcome(step, by if step < train.steps else 0, keeper.figures)


def check_batch(train: TrainConfig, devices: int) -> None:
    """Refuses a batch that cannot be divided.

    Raises:
        BadInput: see above.
    """
    if train.batch % (devices * train.accumulate):
        parts = f"{devices} devices times accumulate, which is {train.accumulate}"
        raise BadInput(f"train.batch: expected a multiple of {parts}, found {train.batch}")


def without_start(config: Config) -> Config:
    """Returns the configuration without initial weights, which may be gone: a checkpoint has the weights."""
    return io.without_download(config).model_copy(update={"train": config.train.model_copy(update={"weights": None})})


def compiled(config: Config, say: Callable[[str], None] = lambda text: None) -> RCNN:
    """The model of a run, ready for `fit`; in the scope of its strategy."""
    train = config.train
    model = start.make(config, say)
    model.compile(optimizer=optimizer.of(train), loss_weights=start.loss_weights(config, model))
    model.optimizer.build(model.trainable_variables)
    if "teacher" in config.model.mask.box_losses:
        model.mask.averages = functools.partial(mask_averages, model)
    return model


def open_folder(out: Path, config: Config, *, resume: bool, say: Callable[[str], None]) -> None:
    """Makes the run folder, or checks that the run in it can go on with this configuration.

    Raises:
        BadInput: another run is in the way, or cannot go on so.
    """
    path = out / CONFIG
    if path.exists():
        if not resume:
            raise BadInput(f"{out}: expected a new folder, found a run; --resume goes on with it")
        for name, old, new in changes(load(path), config):
            if name.startswith("model.") or name in ("train.stage", "train.precision"):
                raise BadInput(
                    f"{out}: {name}: the run has {old!r}, expected the same, found {new!r}; begin another run"
                )
            if name == "train.ema" and (old is None) != (new is None):
                raise BadInput(f"{out}: {name}: the run has {old!r}, and a running average cannot begin or end in it")
            say(f"{name}: was {old!r}, is now {new!r}")
    elif out.exists() and {path.name for path in out.iterdir()} - {LOCK, STAGES}:
        raise BadInput(f"{out}: expected a new folder, or a run with {CONFIG}, found other files")
    files.make_folder(out)


def note(config: Config, out: Path) -> None:
    """Writes configuration and versions once the run can start: a folder without them is no run, and may be reused."""
    write_config(config, out / CONFIG)
    files.write_json(out / VERSIONS, versions(config))


def changes(old: Config, new: Config) -> list[tuple[str, Any, Any]]:
    """The settings in which two configurations differ, by their dotted names."""
    before, after = dotted(old.model_dump(mode="json")), dotted(new.model_dump(mode="json"))
    names = dict.fromkeys([*before, *after])
    return [(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]


def versions(config: Config) -> Json:
    """Returns what results depend on besides the configuration and the data: software, machine and seeds."""
    return {
        **io.versions(),
        "machine": platform.machine(),
        "seeds": {"train": config.train.seed, "data": config.data.seed},
    }


def finish(model: RCNN, config: Config, out: Path, meta: Json, journal: Journal, figures: dict[str, float]) -> None:
    """Writes the final model, of averaged weights where they are kept, and the summary."""
    with averaged(model):
        io.save(model, config, out / MODEL, **meta, step=config.train.steps)
    summary = {
        "steps": config.train.steps,
        "images": config.train.steps * config.train.batch,
        "parameters": int(model.count_params()),
        "trained": sum(int(tf.size(variable)) for variable in model.trainable_variables),
        "first_step_seconds": round(journal.first_seconds, 1),
        "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "figures": figures,
    }
    files.write_json(out / SUMMARY, summary)


def classes_of(out: Path) -> tuple[str, ...]:
    """The class names of the run in a folder; none where there is no run."""
    return load(out / CONFIG).model.class_names if (out / CONFIG).exists() else ()


def summary_of(out: Path) -> Json | None:
    """The summary of a run that is finished, or None."""
    try:
        summary: Json = files.read_json(out / SUMMARY)
    except BadInput:
        return None
    return summary if (out / MODEL).is_dir() and "figures" in summary else None


@contextmanager
def explained() -> Iterator[None]:
    """Explains what to do if a device has no memory left, or another worker has stopped."""
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError):
        raise BadInput(
            "out of memory: lower train.batch or raise train.accumulate; then lower model.input.canvas with "
            "short_side and long_side, model.box.rois, or model.rpn.pre_nms_train; or train.precision=bfloat16"
        ) from None
    except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
        if distribute.cluster_size() == 1:
            raise
        said = error.message.splitlines()[0]
        raise BadInput(
            f"another worker stopped; its output says why. Start all workers again with --resume ({said})"
        ) from None
