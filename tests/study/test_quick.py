"""Whole studies: from scratch, stopped and resumed, and without the masks that training must not see."""

from __future__ import annotations

import json
import signal
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


@pytest.mark.slow
def test_a_stopped_study_goes_on_and_needs_no_mask_of_b(tmp_path: Path) -> None:
    sides = {"canvas": [64, 64], "short_side": 64, "long_side": 64}
    small.load(
        tmp_path,
        settings={"model": {"input": sides}, "train": {"log_every": 5, "checkpoint_every": 5, "batch": 4}},
        detector={**small.settings()["detector"], "settings": {"train": {"steps": 300}}},
    )
    command = [sys.executable, "-m", "maskx_tf", "study", str(tmp_path / "study.yaml"), "--json"]
    command += ["--out", str(tmp_path / "out"), "--only"]
    process = subprocess.Popen([*command, "seed0/two"], cwd=small.ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    next(line for line in process.stderr if line.startswith("step 5/300"))
    process.send_signal(signal.SIGTERM)
    assert "the same command goes on from there" in process.communicate()[1]
    assert process.returncode == 130
    # The masks of B that training must not see are gone; those of the other parts stay, because they are measured with.
    (tmp_path / "out" / "data" / "seed0-a17" / "masks_b_train.json").unlink()
    again = subprocess.run([*command, "seed0/two"], cwd=small.ROOT, capture_output=True, text=True, check=True)
    assert "going on from step" in again.stderr
    assert json.loads(again.stdout)["finished"] == 1
    oracle = subprocess.run([*command, "seed0/oracle"], cwd=small.ROOT, capture_output=True, text=True, check=False)
    assert oracle.returncode == 2
    assert "masks_b_train.json" in oracle.stderr.splitlines()[-1]
