"""The small files that commands write: after a full disk or an interrupt at any step, the old one or the new one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from maskx_tf.data.dataset import Dataset
from maskx_tf.data.formats import coco_write
from maskx_tf.errors import BadInput
from maskx_tf.study import controls, results, tables
from maskx_tf.study.summary import Summary
from maskx_tf.tasks.pictures import write_picture
from tests import disk

Writer = Callable[[Path, int], object]  # of a path and a number that changes what is written


def coco(path: Path, number: int) -> None:
    coco_write.write(Dataset("set", ("cat",), (number,), ()), path, path.parent)


def picture(path: Path, number: int) -> None:
    write_picture(path, np.full([4, 4, 3], number, np.uint8))


def table(path: Path, number: int) -> None:
    controls.write(path, np.full([2, 3], number, np.float32))


def line(path: Path, number: int) -> None:
    results.add(path, {"group": "one", "method": "a", "digest": str(number), "figures": {}})


def summary(path: Path, number: int) -> None:
    tables.write(Summary("study", number, 9, 0, [], {}, []), path.parent)


@disk.each_error
@pytest.mark.parametrize(
    ("write", "name"),
    [
        (coco, "set.json"),
        (picture, "drawn.png"),
        (table, "table.npy"),
        (line, "results.jsonl"),
        (summary, "summary.md"),
    ],
)
def test_a_file_is_the_old_one_or_the_new_one(write: Writer, name: str, error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / name
    write(path, 2)
    new = path.read_bytes()
    write(path, 1)
    old = path.read_bytes()
    assert old != new
    expected = BadInput if isinstance(error, OSError) else KeyboardInterrupt
    steps = 0
    for _ in disk.each_step(lambda: write(path, 2), error, expected):
        steps += 1
        assert disk.names_in(tmp_path) == [name]
        assert path.read_bytes() in (old, new)
        write(path, 1)
    assert steps >= 2
    assert path.read_bytes() == new
