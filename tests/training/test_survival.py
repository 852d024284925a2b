"""A run that is killed at random moments, also inside a checkpoint, ends with the weights of one that is not."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest

from maskx_tf.checkpoints import npz
from tests.training import runs

KILLS = 20
SETTINGS = ["train.deterministic=true", "train.steps=40", "train.checkpoint_every=1", "train.ema=0.9"]


def weights(run: Path) -> dict[str, np.ndarray]:
    with npz.reading(run / "model" / "weights.npz") as archive:
        return dict(archive.items())


@pytest.mark.slow
def test_killed_run_ends_with_equal_weights(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path, runs.scenes(tmp_path / "data"))
    command = ["-m", "maskx_tf", "train", str(recipe), *SETTINGS, "--resume", "--out"]
    runs.finished(runs.python(*command, str(tmp_path / "whole")))
    draws = random.Random(0)
    killed, kills = tmp_path / "killed", 0
    started: list[float] = []
    while kills < KILLS:
        process = runs.python(*command, str(killed))
        begin = time.monotonic()
        # Half of the kills come at once after a step's checkpoint begins to be written, the others at any time.
        before = _written(killed)
        while process.poll() is None and _written(killed) <= before:
            time.sleep(0.002)
        started.append(time.monotonic() - begin)
        if kills % 2 == 0 and process.poll() is None:
            while process.poll() is None and not list(killed.glob("checkpoints/.*")):
                time.sleep(0.0005)
            time.sleep(draws.uniform(0, 0.02))
        else:
            time.sleep(draws.uniform(0, 0.5))
        if process.poll() is None:
            process.kill()
        process.communicate()
        if process.returncode == 0:
            break
        kills += 1
    runs.finished(runs.python(*command, str(killed)))
    assert not list(killed.glob("checkpoints/.*"))  # nothing half-written stays
    assert kills >= KILLS // 2  # the run was not over before it was killed often
    whole, other = weights(tmp_path / "whole"), weights(killed)
    assert set(whole) == set(other)
    for name, value in whole.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def _written(run: Path) -> int:
    return len(list(run.glob("checkpoints/step-*"))) + len(list(run.glob("checkpoints/.*")))
