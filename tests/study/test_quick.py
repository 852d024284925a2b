"""The quick study, from nothing, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.study import small

COMMAND = [sys.executable, "-m", "maskx_tf", "study", "configs/study/synthetic_quick.yaml", "--json", "--out"]


@pytest.mark.slow
def test_quick_study(tmp_path: Path) -> None:
    first = subprocess.run([*COMMAND, str(tmp_path)], cwd=small.ROOT, capture_output=True, text=True, check=True)
    found = json.loads(first.stdout)
    assert (found["finished"], found["planned"], found["other"]) == (2, 2, 0)
    agnostic, transfer = found["tables"][0]["entries"]
    assert agnostic["missing"] == transfer["missing"] == 0
    # What is seen even after so few steps: with the class's own filters, A is learned better.
    assert transfer["a"]["mean"] > agnostic["a"]["mean"]
    before = (tmp_path / "results.jsonl").read_text(encoding="utf-8")
    again = subprocess.run([*COMMAND, str(tmp_path)], cwd=small.ROOT, capture_output=True, text=True, check=True)
    assert again.stdout == first.stdout
    assert "step" not in again.stderr
    assert (tmp_path / "results.jsonl").read_text(encoding="utf-8") == before
