"""Checkpoints of a run. They are complete or absent, damage is recognised, and a run resumes from them exactly.

RUN/checkpoints/step-00000500/ is a model folder, which every command takes, with the optimizer's variables (momentum,
running averages, its step) in optimizer.npz, and training.json, written last, with a checksum of each file. All that is
random depends on the seed and the step, so no generator has a state to keep, and the step is the place in the data.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras

from maskx_tf import files
from maskx_tf.checkpoints import io, npz
from maskx_tf.checkpoints.folder import WEIGHTS
from maskx_tf.checkpoints.variables import assign
from maskx_tf.config import Config
from maskx_tf.errors import BadInput
from maskx_tf.files import Json
from maskx_tf.models.rcnn import RCNN

FOLDER, OPTIMIZER, FACTS = "checkpoints", "optimizer.npz", "training.json"
NAME = re.compile(r"step-(\d{8,})")  # the name of a checkpoint; other folders, such as a user's copies, are left alone


class State(NamedTuple):
    """A checkpoint that is whole.

    Attributes:
        path: its folder.
        step: how many updates were made.
        metric: what an evaluation at this step gave, higher is better, or None.
    """

    path: Path
    step: int
    metric: float | None


def save(run: Path, model: RCNN, config: Config, step: int, meta: Json) -> State:
    """Writes a checkpoint.

    Args:
        run: the run folder.
        model: the model with its compiled optimizer.
        config: the configuration from which it was built.
        step: updates made.
        meta: see `checkpoints.io.save`.

    Raises:
        BadInput: it cannot be written, or there is one of this step.
    """
    target = run / FOLDER / f"step-{step:08d}"
    with files.new_folder(target) as unfinished:
        io.write_into(unfinished, model, config, {**meta, "step": step})
        optimizer = ((name, value.numpy()) for name, value in _variables(model.optimizer).items())
        npz.write(unfinished / OPTIMIZER, optimizer)
        files.write_json(unfinished / FACTS, {"step": step, "metric": None, "files": _digests(unfinished)})
    return State(target, step, None)


def note_metric(state: State, metric: float) -> State:
    """Stores an evaluation's result with the checkpoint."""
    path = state.path / FACTS
    files.write_json(path, {**files.read_json(path), "metric": metric})
    return state._replace(metric=metric)


def newest(run: Path, say: Callable[[str], None]) -> State | None:
    """Returns the newest complete checkpoint; `say` receives a line about each newer one that is damaged."""
    paths = _paths(run)
    for path in reversed(paths):
        found = _read(path)
        if isinstance(found, State):
            return found
        before = "using the one before it" if path != paths[0] else "none before it: starting at step 0"
        say(f"{path}: {found}; {before}")
    return None


def set_aside(run: Path, after: int) -> None:
    """Renames checkpoints of later steps than the one from which a run goes on, because they are damaged."""
    for path in _paths(run):
        if _step_of(path) > after:
            aside = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)


def all_of(run: Path) -> list[State]:
    """Every checkpoint whose facts can be read, oldest first; the contents are not looked at."""
    states = []
    for path in _paths(run):
        try:
            facts = files.read_json(path / FACTS)
            states.append(State(path, int(facts["step"]), facts["metric"]))
        except (BadInput, ValueError, KeyError, TypeError):
            continue
    return states


def restore(state: State, model: RCNN) -> None:
    """Sets the weights and the optimizer as they were.

    Raises:
        BadInput: the checkpoint is of another model or optimizer.
    """
    io.read_weights(model, state.path / WEIGHTS)
    variables = _variables(model.optimizer)
    with npz.reading(state.path / OPTIMIZER) as archive:
        if set(archive.names) != set(variables):
            odd = sorted(set(archive.names) ^ set(variables))[0]
            where = "checkpoint" if odd in archive.names else "optimizer"
            raise BadInput(
                f"{state.path / OPTIMIZER}: expected the variables of this optimizer; {odd} is only in the {where}"
            )
        assign(variables, archive, variables)


def tidy(run: Path, keep: int) -> None:
    """Removes all checkpoints but the newest ones and the best, and what a killed run left unfinished."""
    for leftover in [*(run / FOLDER).glob(".step-*"), *run.glob(".model.*")]:
        shutil.rmtree(leftover, ignore_errors=True)
    states = all_of(run)
    scored = [state for state in states if state.metric is not None]
    best = max(scored, key=lambda state: (state.metric or 0.0, state.step)).path if scored else None
    for state in states[:-keep]:
        if state.path != best:
            shutil.rmtree(state.path, ignore_errors=True)


def _paths(run: Path) -> list[Path]:
    """The folders of checkpoints, whole or damaged, oldest first."""
    return sorted((path for path in (run / FOLDER).glob("step-*") if NAME.fullmatch(path.name)), key=_step_of)


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _read(path: Path) -> State | str:
    """The checkpoint, or what is wrong with it."""
    if not (path / FACTS).exists():
        return f"not finished, because it has no {FACTS}"
    try:
        facts = files.read_json(path / FACTS)
        step, metric, digests = int(facts["step"]), facts["metric"], dict(facts["files"])
    except (BadInput, ValueError, KeyError, TypeError):
        return f"damaged: {FACTS} cannot be read"
    try:
        found = _digests(path)
    except OSError as error:
        return f"damaged: {error.strerror}"
    for name, digest in digests.items():
        if found.get(name) != digest:
            return f"damaged: {name} is not what was written"
    return State(path, step, metric)


def _digests(folder: Path) -> dict[str, str]:
    """A checksum of each file."""
    paths = [path for path in sorted(folder.iterdir()) if path.name != FACTS and path.name[0] != "."]
    return {path.name: files.sha256(path) for path in paths}


def _variables(optimizer: keras.optimizers.Optimizer) -> Json:
    """The optimizer's variables by separate names: the paths that Keras gives them may be shared."""
    return {f"{index:04d}": variable for index, variable in enumerate(optimizer.variables)}
