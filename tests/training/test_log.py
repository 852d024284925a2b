"""log.csv: complete lines, also after a kill, and columns of numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maskx_tf.errors import BadInput
from maskx_tf.training import log
from tests import disk


def test_columns_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("step,loss,mask/B/AP\n20,1.5,\n40,,0.25\n,3,\n60,x,1,7\n80,1.2")
    read = log.read(path)
    assert read["step"] == [20, 40, 60]
    np.testing.assert_array_equal(read["loss"], [1.5, np.nan, np.nan])
    np.testing.assert_array_equal(read["mask/B/AP"], [np.nan, 0.25, 1.0])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "expected a column step, found none"),
        (b"name,size\ncat,1\n", r"expected a column step, found name, size"),
        (b"step\n\xff\n", "expected UTF-8 text, found byte 0xff"),
        (b"step\n" + b"1" * 200_000 + b"\n", "expected CSV: field larger than field limit"),
    ],
)
def test_what_is_no_log(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "log.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=f"^{path}: {problem}"):
        log.read(path)


def test_a_log_with_half_a_line_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    log.add(path, {"step": 2, "loss": 0.5})
    path.write_text(path.read_text() + "4,0.2")
    log.cut(path, 4)
    log.add(path, {"step": 4, "loss": 0.25})
    log.add(path, {"step": 4, "box/all/AP": 0.1})
    assert path.read_text().splitlines() == ["step,loss,box/all/AP", "2,0.5,", "4,0.25,", "4,,0.1"]
    log.cut(path, 3)
    assert path.read_text().splitlines() == ["step,loss,box/all/AP", "2,0.5,"]


@disk.each_error
@pytest.mark.parametrize("row", [{"step": 4, "loss": 0.2}, {"step": 4, "new": 1}], ids=["line", "column"])
def test_a_line_that_cannot_be_added_changes_nothing(
    tmp_path: Path, row: dict[str, float], error: BaseException
) -> None:
    path = tmp_path / "log.csv"
    log.add(path, {"step": 2, "loss": 0.5})
    before = path.read_text()

    changed = []
    expected = BadInput if isinstance(error, OSError) else KeyboardInterrupt
    for _ in disk.each_step(lambda: log.add(path, row), error, expected):
        assert disk.names_in(tmp_path) == ["log.csv"]
        changed.append(path.read_text() != before)
        path.write_text(before)
    assert changed in ([False], [False, False, False, True])  # the last one is after the renaming
    assert log.read(path)["step"] == [2, 4]
