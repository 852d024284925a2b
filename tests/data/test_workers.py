"""Work in several processes: results in order, progress, and a fast end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from maskx_tf.data.pipeline.workers import _interrupts_held, in_processes
from maskx_tf.errors import BadInput

ROOT = Path(__file__).resolve().parents[2]


def double(task: int, step: Callable[[], None]) -> tuple[int, int]:
    step()
    step()
    return 2 * task, os.getpid()


def fail_or_go_on(task: int, step: Callable[[], None]) -> None:
    if task == 0:
        raise BadInput("a.jpg: expected an image")
    if task == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    for _ in range(10_000):
        time.sleep(0.01)
        step()


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_and_every_step_is_counted(workers: int) -> None:
    steps: list[int] = []
    found = in_processes(double, range(5), workers, advance=lambda: steps.append(1))
    assert [result for result, _ in found] == [0, 2, 4, 6, 8]
    assert len(steps) == 10
    assert (os.getpid() in {process for _, process in found}) == (workers == 1)


@pytest.mark.parametrize(
    ("task", "words"),
    [(0, "a.jpg: expected an image"), pytest.param(1, "a worker process was killed", marks=pytest.mark.slow)],
)
def test_failure_ends_the_others(task: int, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        in_processes(fail_or_go_on, [2, task], 2)


def test_an_interrupt_waits_until_the_processes_started() -> None:
    """Also one that another thread receives, such as that of a progress bar."""
    started, steps = threading.Event(), []

    def receive() -> None:
        started.wait()
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    other = threading.Thread(target=receive)
    other.start()

    def start() -> None:
        with _interrupts_held():
            started.set()
            other.join()
            steps.append("all started")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert steps == ["all started"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_processes_start_without_tensorflow() -> None:
    code = "import sys, maskx_tf.data.pipeline.workers; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
