"""The files for batch jobs on clusters have valid commands."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from maskx_tf.commands.batch import PART

FOLDER = Path(__file__).resolve().parents[2] / "serving"
SAY = '#!/bin/bash\necho "$(basename "$0") $*"\n'
# GNU parallel for these arguments: a command for each line, in its place.
PARALLEL = """#!/bin/bash
while [ "$1" != maskx ]; do shift; done
while read -r line; do "${@//\\{\\}/$line}"; done
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of maskx a program that prints its arguments; and of parallel one that runs its commands."""
    for name, text in (("maskx", SAY), ("parallel", PARALLEL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(FOLDER / script), *arguments], capture_output=True, text=True, env={**os.environ, **environment}
    )


def assert_runs_all(lines: list[str], count: int) -> None:
    assert lines == [f"maskx batch run jobs/my first --shard {index}/{count}" for index in range(count)]
    for line in lines:
        assert PART.fullmatch(line.split()[-1])


def test_slurm(programs: None) -> None:
    lines = []
    for index in range(3):
        place = {"SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_ID": str(index), "SLURM_ARRAY_TASK_COUNT": "3"}
        lines += run("batch-slurm.sh", "jobs/my first", **place).stdout.splitlines()
    assert_runs_all(lines, 3)
    refused = run("batch-slurm.sh", "jobs/first", SLURM_ARRAY_TASK_MIN="1")
    assert (refused.returncode, refused.stdout) == (2, "")


def test_parallel(programs: None) -> None:
    done = run("batch-parallel.sh", "jobs/my first", "4")
    assert done.returncode == 0, done.stderr
    assert_runs_all(done.stdout.splitlines(), 4)


def test_kubernetes(programs: None) -> None:
    job = yaml.safe_load((FOLDER / "batch-kubernetes.yaml").read_text())
    assert job["kind"] == "Job"
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed"
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # without which Kubernetes refuses a podFailurePolicy
    [container] = pod["containers"]
    environment = {one["name"]: one["value"] for one in container["env"]}
    assert environment["PARTS"] == str(spec["completions"])
    [script] = container["args"]
    lines = []
    for index in range(spec["completions"]):
        place = {**os.environ, **environment, "JOB_COMPLETION_INDEX": str(index)}
        command = [*container["command"], script.replace("/data/jobs/YOUR_JOB", "'jobs/my first'")]
        lines += subprocess.run(command, capture_output=True, text=True, env=place).stdout.splitlines()
    assert_runs_all(lines, spec["completions"])
    mounts = {one["name"] for one in container["volumeMounts"]}
    assert mounts == {one["name"] for one in pod["volumes"]}
    assert re.search(r"ReadWriteMany", (FOLDER / "batch-kubernetes.yaml").read_text())
