"""The log of a run on a full disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maskx_tf.errors import BadInput
from maskx_tf.training import log
from maskx_tf.training.journal import Journal
from tests import disk


def journal(run: Path) -> Journal:
    return Journal(run, first=0, total=9, every=1, images=1, say=lambda text: None, advance=lambda step, text: None)


def fill(run: Path) -> None:
    made = journal(run)
    for step in range(1, 1000):
        made.step = step
        made.note({"loss": 1.0})
        made.picture("sheet", np.random.default_rng(step).integers(0, 256, [40, 40, 3], np.uint8))


def test_a_full_disk_is_one_line_and_keeps_the_log_whole(tmp_path: Path) -> None:
    with (
        pytest.raises(BadInput, match=r"/tensorboard: cannot be written: File too large$"),
        disk.no_room_beyond(30_000),
    ):
        fill(tmp_path)
    steps = log.read(tmp_path / log.LOG)["step"]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) > 1


def test_a_board_that_cannot_begin_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").touch()
    with pytest.raises(BadInput, match=r"/tensorboard: cannot be written: "):
        journal(tmp_path)
