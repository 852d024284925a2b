"""The file of results: what a killed writer leaves, and lines that replace earlier ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from maskx_tf.errors import BadInput
from maskx_tf.study import results


def _line(group: str, method: str, digest: str = "x") -> dict[str, Any]:
    return {"group": group, "method": method, "digest": digest, "figures": {}}


def test_the_last_line_of_a_cell_counts(tmp_path: Path) -> None:
    path = tmp_path / results.RESULTS
    assert results.read(path) == {}
    for line in (_line("a", "m"), _line("b", "m"), _line("a", "m", "y")):
        results.add(path, line)
    assert results.read(path) == {("a", "m"): _line("a", "m", "y"), ("b", "m"): _line("b", "m")}
    assert len(path.read_text().splitlines()) == 2


def test_a_line_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / results.RESULTS
    results.add(path, _line("a", "m"))
    path.write_text(path.read_text() + '{"group": "b", "met')
    assert set(results.read(path)) == {("a", "m")}
    results.add(path, _line("c", "m"))
    assert set(results.read(path)) == {("a", "m"), ("c", "m")}


@pytest.mark.parametrize("text", ["{]\n", "[]\n", '{"group": "a"}\n'])
def test_another_line_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / results.RESULTS
    path.write_text(text)
    with pytest.raises(BadInput, match=r"results.jsonl: line 1: expected"):
        results.read(path)
