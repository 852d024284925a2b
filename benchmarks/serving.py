"""What a server adds to a model: `python -m benchmarks.serving [latency|load|batches] [--classes 80] [--bf16]`.

Mask^X R-CNN, ResNet-50-FPN, canvas 800x1216, random weights, a score threshold of 0 so that 100 detections are sent.

latency  the SavedModel called in this process next to the same one behind `maskx serve`, over gRPC and REST, in turn
load     requests at random moments (serving/load_test.py), without and with batching
batches  images a second, on a canvas of 384x512: the SavedModel in this process, several images at a time, and `maskx
         serve` as it is by default, asked by one and by two at a time
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from benchmarks.measure import machine
from maskx_tf.checkpoints import io
from maskx_tf.config import Config, ModelConfig
from maskx_tf.export import saved_model
from maskx_tf.export.source import open_source
from maskx_tf.models.build import build
from maskx_tf.protocol import messages, tensors
from maskx_tf.serving.client import Client
from serving import load_test

CANVAS = (800, 1216)
SMALL = (384, 512)
BATCHES = (1, 2, 4, 8)
IN_A_ROW = 4
REPEAT = 9
BATCHING = Path(__file__).resolve().parents[1] / "serving" / "batching.txt"


def export(folder: Path, classes: int, bf16: bool, canvas: tuple[int, int] = CANVAS) -> Path:
    """Writes the model, and returns the folder of its versions."""
    config = ModelConfig.model_validate(
        {
            "family": "mask_x_rcnn",
            "class_names": [f"class {number}" for number in range(classes)],
            "input": {"canvas": canvas, "short_side": canvas[0], "long_side": canvas[1]},
            "detections": {"score": 0.0},
        }
    )
    keras.utils.set_random_seed(0)
    io.save(build(config), Config(model=config), folder / "model")
    overrides = [f"export.bf16={str(bf16).lower()}", "export.signatures=[serving_default]"]
    return saved_model.write(open_source(folder / "model", overrides), folder / "bench").path.parent


@contextmanager
def server(folder: Path, *arguments: str) -> Iterator[tuple[str, str]]:
    """The addresses of a `maskx serve`: gRPC and REST."""
    ports = ["--grpc-port", "0", "--rest-port", "0"]
    line = [sys.executable, "-m", "maskx_tf", "serve", str(folder), *ports, *arguments]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()  # what is served
        found = re.search(r"gRPC (\S+), REST and a page (\S+)/", process.stdout.readline())
        assert found is not None
        yield found[1], found[2]
    finally:
        process.terminate()
        process.wait()


def latency(folder: Path) -> None:
    """Prints how long one image takes here and behind both ports."""
    image = load_test.example()
    ask = tf.saved_model.load(str(folder / "1")).signatures["serving_default"]
    outputs = {name: value.numpy() for name, value in ask(image_bytes=tf.constant([image])).items()}
    response = messages.PredictResponse()
    for name, value in outputs.items():
        response.outputs[name].CopyFrom(tensors.to_proto(value))
    with server(folder) as (grpc_address, rest_address), Client(grpc_address) as grpc, Client(rest_address) as rest:
        ways: dict[str, Callable[[], Any]] = {
            "in this process": lambda: [value.numpy() for value in ask(image_bytes=tf.constant([image])).values()],
            "gRPC": lambda: grpc.detect(image),
            "REST": lambda: rest.detect(image),
        }
        walls: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(REPEAT + 1):
            for name, call in ways.items():  # in turn: what else runs on the machine meets all of them
                start = time.perf_counter()
                call()
                if turn:
                    walls[name].append(time.perf_counter() - start)
    table = Table(title="One image of 640x480", title_justify="left")
    for column in ("", "p50 ms", "ratio"):
        table.add_column(column, justify="left" if column == "" else "right")
    base = float(np.median(walls["in this process"]))
    for name, values in walls.items():
        table.add_row(name, f"{np.median(values) * 1e3:.0f}", f"{np.median(values) / base:.3f}")
    Console().print(table)
    print(f"{int(outputs['num_detections'][0])} detections in {len(response.SerializeToString())} bytes")


def load(folder: Path, rate: float, seconds: float) -> None:
    """Prints what becomes of requests that come at random moments."""
    for name, arguments in {"no batching": (), "serving/batching.txt": ("--batching", str(BATCHING))}.items():
        with server(folder, *arguments) as (address, _):
            figures = load_test.run(address, [load_test.example()], rate=rate, seconds=seconds)
            print(f"{name}, {rate} requests/s for {seconds:.0f} s: {figures}", flush=True)


def batches(folder: Path) -> None:
    """Prints images a second by how many are asked about at a time."""
    image = load_test.example()
    ask = tf.saved_model.load(str(folder / "1")).signatures["serving_default"]
    rates: dict[str, float] = {}
    for size in BATCHES:
        images = tf.constant([image] * size)
        walls = [_seconds(ask, images) for _ in range(IN_A_ROW + 1)]
        rates[f"{size} in this process"] = size / float(np.median(walls[1:]))
    for callers in (1, 2):
        with server(folder) as (address, _), Client(address) as client, ThreadPoolExecutor(callers) as pool:
            list(pool.map(client.detect, [image] * callers))
            many = [image] * (4 * IN_A_ROW)
            start = time.perf_counter()
            list(pool.map(client.detect, many))
            rates[f"served, {callers} at a time"] = len(many) / (time.perf_counter() - start)
    table = Table(title="Images of 640x480 on a canvas of 384x512", title_justify="left")
    for column in ("", "images/s", "share of the best"):
        table.add_column(column, justify="left" if column == "" else "right")
    for name, rate in rates.items():
        table.add_row(name, f"{rate:.2f}", f"{rate / max(rates.values()):.2f}")
    Console().print(table)


def _seconds(ask: Callable[..., Any], images: tf.Tensor) -> float:
    start = time.perf_counter()
    ask(image_bytes=images)["num_detections"].numpy()
    return time.perf_counter() - start


def main() -> None:
    """Runs the parts that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", nargs="?", choices=["all", "latency", "load", "batches"], default="all")
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--rate", type=float, default=0.3)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    print(machine(), f"{options.classes} classes", "bf16" if options.bf16 else "fp32", flush=True)
    with tempfile.TemporaryDirectory(prefix="maskx-") as scratch:
        if options.part in ("all", "batches"):
            batches(export(Path(scratch, "small"), options.classes, options.bf16, SMALL))
        if options.part == "batches":
            return
        folder = export(Path(scratch), options.classes, options.bf16)
        if options.part != "load":
            latency(folder)
        if options.part != "latency":
            load(folder, options.rate, options.seconds)


if __name__ == "__main__":
    main()
