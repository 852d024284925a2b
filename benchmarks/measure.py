"""How the benchmarks measure: CPU-seconds, wall time and peak memory of a call, printed side by side as ratios.

Every case runs in a process of its own: TensorFlow's allocator keeps what it once had, so a peak can be seen only by
the first who reaches it.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table


class Cost(NamedTuple):
    """What one call costs: medians over the repetitions, and the highest memory above what its inputs hold."""

    cpu: float
    wall: float
    peak_mib: float


def measure(build: Callable[..., Callable[[], Any]], *arguments: Any, repeat: int = 9) -> Cost:
    """Measures, in a new process, the call that `build(*arguments)` returns; the call has to return host values.

    The peak is that of the first call and holds what tracing and compiling need, about 50 MiB.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measure_here, build, arguments, repeat).result()


def _measure_here(build: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...], repeat: int) -> Cost:
    call = build(*arguments)
    before = status_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the kernel forgets the highest size so far
    call()
    peak = status_mib("VmHWM") - before
    call()
    cpu, wall = [], []
    for _ in range(repeat):
        cpu_start, wall_start = time.process_time(), time.perf_counter()
        call()
        cpu.append(time.process_time() - cpu_start)
        wall.append(time.perf_counter() - wall_start)
    middle = repeat // 2
    return Cost(sorted(cpu)[middle], sorted(wall)[middle], peak)


def status_mib(key: str) -> float:
    """A memory figure of this process in MiB (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return float(line.split()[1]) / 1024
    raise KeyError(key)


def show(title: str, costs: dict[str, Cost], base: str) -> None:
    """Prints a table; the ratios are to the row named `base`."""
    table = Table(title=title, title_justify="left")
    for column in ("", "CPU ms", "wall ms", "peak MiB", "CPU ratio"):
        table.add_column(column, justify="left" if column == "" else "right")
    for name, cost in costs.items():
        ratio = cost.cpu / costs[base].cpu
        table.add_row(name, f"{cost.cpu * 1e3:.1f}", f"{cost.wall * 1e3:.1f}", f"{cost.peak_mib:.0f}", f"{ratio:.2f}")
    Console().print(table)


def machine() -> str:
    """One line that says where the figures come from."""
    cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    return f"{cpu.split(': ')[1]}, {os.cpu_count()} cores, Python {platform.python_version()}"
