"""What a model costs on a GPU: `python -m benchmarks.gpu`, one table of inference and training.

The models and images of `benchmarks.inference` and `benchmarks.training`. Each row runs in a new process; the
peak is that of TensorFlow's allocator on the device. Ends with code 2 where TensorFlow sees no GPU.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from benchmarks import inference, training
from benchmarks.measure import machine

REPEAT = 20
ALONE = "R50-FPN alone, 800 x 1216"


class Row(NamedTuple):
    """A call to measure.

    Attributes:
        build: makes the call of the arguments.
        arguments: without the precision.
        images: in a call.
    """

    build: Callable[..., Callable[[], Any]]
    arguments: Callable[[str], tuple[Any, ...]]
    images: int


ROWS = {
    ALONE: Row(inference.stage_of, lambda precision: ("features", precision, False), 1),
    "whole, 80 classes": Row(inference.whole, lambda precision: (80, precision, False), 1),
    "whole, 80 classes, XLA": Row(inference.whole, lambda precision: (80, precision, False, True), 1),
    "whole, 10000 classes": Row(inference.whole, lambda precision: (10000, precision, False), 1),
    "training, Mask R-CNN, 512 x 512": Row(training.whole_step, lambda precision: ("mask_rcnn", 80, precision, 1), 2),
    "training, Mask^X R-CNN, 512 x 512": Row(
        training.whole_step, lambda precision: ("mask_x_rcnn", 80, precision, 1), 2
    ),
}


def measured(build: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...]) -> tuple[float, float, float]:
    """Seconds of the first call, of the median of the others, and MiB of the device's highest memory."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measured_here, build, arguments).result()


def _measured_here(build: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...]) -> tuple[float, float, float]:
    call = build(*arguments)
    walls = []
    for _ in range(REPEAT + 1):
        start = time.perf_counter()
        call()
        walls.append(time.perf_counter() - start)
    return walls[0], float(np.median(walls[1:])), tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20


def main() -> int:
    """Prints the table; returns the exit code."""
    devices = tf.config.list_physical_devices("GPU")
    if not devices:
        print("no GPU: expected a device that TensorFlow sees, such as with tensorflow[and-cuda]", file=sys.stderr)
        return 2
    name = tf.config.experimental.get_device_details(devices[0]).get("device_name", devices[0].name)
    table = Table(title=f"{name}, TensorFlow {tf.__version__}", title_justify="left")
    for column in ("", "precision", "first call s", "ms", "images/s", "ratio", "peak MiB"):
        table.add_column(column, justify="left" if column in ("", "precision") else "right")
    for precision in inference.POLICIES:
        base = 0.0
        for title, row in ROWS.items():
            first, wall, peak = measured(row.build, row.arguments(precision))
            base = base or wall
            figures = (
                f"{first:.1f}",
                f"{wall * 1e3:.1f}",
                f"{row.images / wall:.1f}",
                f"{wall / base:.2f}",
                f"{peak:.0f}",
            )
            table.add_row(title, precision, *figures)
    print(machine())
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
