"""Checkpoints: a complete one exists at every moment, and other files next to them are left alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

from maskx_tf import cli
from maskx_tf.checkpoints import npz
from maskx_tf.config import Config
from maskx_tf.errors import BadInput
from maskx_tf.models.rcnn import RCNN
from maskx_tf.training import fit, states
from tests import disk
from tests.checkpoints import small
from tests.checkpoints.small import quick_backbone  # noqa: F401  (a fixture)


@pytest.fixture(scope="module")
def learner() -> tuple[RCNN, Config]:
    model, config = small.model("faster_rcnn")
    model.compile(optimizer=keras.optimizers.SGD(momentum=0.9))
    model.optimizer.build(model.trainable_variables)
    return model, config


def silent(text: str) -> None:
    """Prints nothing."""


@disk.each_error
def test_a_checkpoint_that_fails_leaves_the_one_before(
    error: BaseException, learner: tuple[RCNN, Config], tmp_path: Path
) -> None:
    first = states.save(tmp_path, *learner, 1, {})

    def write() -> None:
        shutil.rmtree(tmp_path / "checkpoints" / "step-00000002", ignore_errors=True)
        states.save(tmp_path, *learner, 2, {})
        states.tidy(tmp_path, keep=1)

    steps = []
    expected = BadInput if isinstance(error, OSError) else KeyboardInterrupt
    for _ in disk.each_step(write, error, expected):
        newest = states.newest(tmp_path, silent)
        assert newest is not None
        assert first.path.exists() or newest.step == 2
        assert not list(tmp_path.rglob(".*"))
        steps.append(newest.step)
    assert steps[:10] == [1] * 10
    assert [state.step for state in states.all_of(tmp_path)] == [2]


def test_a_checkpoint_is_on_the_disk_before_another_is_removed(
    learner: tuple[RCNN, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, rename, remove = os.fsync, os.replace, shutil.rmtree
    events: list[tuple[str, str]] = []

    def note_sync(descriptor: int) -> None:
        events.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        sync(descriptor)

    def note_rename(source: Path, target: Path) -> None:
        events.append(("rename", Path(target).name))
        rename(source, target)

    def note_removal(path: Path, ignore_errors: bool = False) -> None:
        events.append(("remove", Path(path).name))
        remove(path, ignore_errors=ignore_errors)

    states.save(tmp_path, *learner, 1, {})
    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_rename)
    monkeypatch.setattr(shutil, "rmtree", note_removal)
    states.save(tmp_path, *learner, 2, {})
    states.tidy(tmp_path, keep=1)
    place = events.index(("rename", "step-00000002"))
    written = {path.name for path in (tmp_path / "checkpoints" / "step-00000002").iterdir()}
    assert written == {"config.yaml", "model.json", "optimizer.npz", "training.json", "weights.npz"}
    assert written <= {name for kind, name in events[:place] if kind == "sync"}
    assert place < events.index(("sync", "checkpoints"), place) < events.index(("remove", "step-00000001"))


def test_other_folders_next_to_checkpoints_are_left_alone(learner: tuple[RCNN, Config], tmp_path: Path) -> None:
    first = states.save(tmp_path, *learner, 1, {})
    for name in ("step-00000001-backup", "step-00000009 (copy)", "step-9", "old-step-00000009"):
        shutil.copytree(first.path, first.path.with_name(name))
    (first.path.parent / "step-00000009.zip").touch()
    kept = disk.names_in(tmp_path)
    newest = states.newest(tmp_path, silent)
    assert newest is not None
    assert newest.path == first.path
    states.set_aside(tmp_path, 0)
    assert "damaged-step-00000001" in os.listdir(first.path.parent)
    first.path.with_name("damaged-step-00000001").rename(first.path)
    states.tidy(tmp_path, keep=1)
    assert disk.names_in(tmp_path) == kept


def test_steps_are_numbers_however_long(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000):
        path = tmp_path / "checkpoints" / f"step-{step:08d}"
        path.mkdir(parents=True)
        (path / states.FACTS).write_text(f'{{"step": {step}, "metric": null, "files": {{}}}}')
    newest = states.newest(tmp_path, silent)
    assert newest is not None
    assert newest.step == 100_000_000


@pytest.mark.parametrize(
    "facts", ["", "{", "[]", "{}", '{"step": "x"}', '{"step": 2, "metric": null}', "\xff", "1" * 5000]
)
def test_a_checkpoint_with_damaged_facts_is_passed_over(
    facts: str, learner: tuple[RCNN, Config], tmp_path: Path
) -> None:
    first = states.save(tmp_path, *learner, 1, {})
    second = shutil.copytree(first.path, first.path.with_name("step-00000002"))
    (second / states.FACTS).write_bytes(facts.encode("latin-1"))
    said: list[str] = []
    assert states.newest(tmp_path, said.append) == first
    assert said == [f"{second}: damaged: training.json cannot be read; using the one before it"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda value: value.astype(np.float64), "expected float32 numbers, found float64"),
        (lambda value: value[..., None], r"expected shape \[.*\], found"),
        (lambda value: np.full_like(value, np.nan), "expected finite numbers, found nan"),
    ],
)
def test_an_optimizer_that_does_not_fit_is_refused(
    change, problem: str, learner: tuple[RCNN, Config], tmp_path: Path
) -> None:
    state = states.save(tmp_path, *learner, 1, {})
    path = state.path / states.OPTIMIZER
    with npz.reading(path) as archive:
        arrays = dict(archive.items())
    name = next(name for name, value in arrays.items() if value.ndim == 4)
    npz.write(path, ({**arrays, name: change(arrays[name])}).items())
    with pytest.raises(BadInput, match=f"^{path}: {name}: {problem}"):
        states.restore(state, learner[0])


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Path]:
    """A run folder in which another process trains."""
    from maskx_tf import locks

    (tmp_path / "run").mkdir()
    with locks.locked(tmp_path / "run" / fit.LOCK):
        yield tmp_path / "run"


def test_a_second_training_in_a_folder_is_one_line(busy: Path, capfd: pytest.CaptureFixture) -> None:
    from tests.training import runs

    recipe = runs.recipe(busy.parent, runs.scenes(busy.parent / "data"))
    for more in ([], ["--resume"]):
        assert cli.run(["train", str(recipe), *more, "--out", str(busy)]) == 2
        last = capfd.readouterr().err.splitlines()[-1]
        assert last.startswith(
            f"maskx: error: {busy}: expected a folder that is not in use, found process {os.getpid()}"
        )
    assert os.listdir(busy) == [fit.LOCK]
