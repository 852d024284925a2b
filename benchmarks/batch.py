"""What an image costs a batch job: `python -m benchmarks.batch [case ...]`, cases of CASES.

Processor time of the compiled model, and of `Segmenter`, which also decodes JPEG photos of 640 x 480,
pastes and compresses masks; memory after a part of the images and after all; bytes of a row in Parquet. Mask R-CNN, 80
classes, random weights, 10 detections an image. Processor time, unlike time, can be measured on a busy machine.
"""

from __future__ import annotations

import io
import multiprocessing
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import tensorflow as tf
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.measure import machine, status_mib
from maskx_tf.checkpoints import io as checkpoints
from maskx_tf.config import Config
from maskx_tf.models.build import build
from maskx_tf.models.inference import Predictor
from maskx_tf.prediction.engines import batch_for
from maskx_tf.prediction.segmenter import Segmenter
from maskx_tf.tasks.batch import arrow

HEIGHT, WIDTH = 480, 640
PHOTOS = 8  # different ones
HOUR = 3600


class Case(NamedTuple):
    """A model and how many images it is asked about."""

    backbone: str
    canvas: tuple[int, int]
    images: int


CASES = {
    "small, 160 x 160": Case("resnet_small", (160, 160), 64),
    "MobileNetV2, 512 x 512": Case("mobilenet_v2", (512, 512), 16),
    "ResNet-50, 800 x 1216": Case("resnet50", (800, 1216), 8),
}


class Measured(NamedTuple):
    """CPU seconds an image, of the model and of the segmenter; MiB after a quarter and at the end; bytes of a row."""

    alone: float
    whole: float
    early: float
    late: float
    row: float


def photos() -> list[bytes]:
    """JPEG files with colours that change slowly, and grain."""
    random = np.random.RandomState(0)
    files = []
    for _ in range(PHOTOS):
        coarse = Image.fromarray(random.randint(0, 256, [9, 12, 3]).astype(np.uint8))
        smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32)
        pixels = (smooth + random.normal(0, 7, [HEIGHT, WIDTH, 1])).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
        files.append(buffer.getvalue())
    return files


def measured(name: str) -> Measured:
    """One row of the table."""
    case = CASES[name]
    config = Config.model_validate(
        {
            "model": {
                "family": "mask_rcnn",
                "class_names": [f"class {number}" for number in range(80)],
                "input": {"canvas": case.canvas, "short_side": min(case.canvas), "long_side": max(case.canvas)},
                "backbone": {"name": case.backbone},
                "detections": {"score": 0.0, "limit": 10},
            }
        }
    )
    model = build(config.model)
    size = batch_for(case.canvas)
    pixels = np.random.default_rng(0).integers(0, 256, (size, *case.canvas, 3), np.uint8)
    canvases, sizes = tf.constant(pixels), tf.constant([case.canvas] * size, tf.float32)
    predictor = Predictor(model, case.canvas)
    predictor.detect(canvases, sizes)
    start = time.process_time()
    for _ in range(case.images // size):
        predictor.detect(canvases, sizes).boxes.numpy()
    alone = (time.process_time() - start) / (case.images // size * size)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints.save(model, config, Path(folder, "model"))
        segmenter = Segmenter(Path(folder, "model"))
        files = photos()
        for _ in segmenter((str(index), files[0]) for index in range(size)):
            pass
        rows = segmenter((str(index), files[index % PHOTOS]) for index in range(case.images))
        start = time.process_time()
        kept = list(islice(rows, case.images // 4))
        early = status_mib("VmRSS")
        for _ in rows:
            pass
        whole = (time.process_time() - start) / case.images
        late = status_mib("VmRSS")
        columns = arrow.schema()
        out = Path(folder, "rows.parquet")
        arrow.write(out, arrow.in_tables(map(arrow.as_record, kept), columns), columns, "benchmark")
        data = out.stat().st_size - pq.read_metadata(out).serialized_size
        return Measured(alone, whole, early, late, data / len(kept))


def main(names: list[str]) -> None:
    """Prints one table; each row comes from a process of its own."""
    table = Table(title="Batch jobs", title_justify="left")
    for column in (
        "",
        "model: CPU s",
        "job: CPU s",
        "ratio",
        "images a core-hour",
        "MiB after 1/4",
        "at the end",
        "B a row",
    ):
        table.add_column(column, justify="left" if column == "" else "right")
    for name in names:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            of = pool.submit(measured, name).result()
        cells = [f"{of.alone:.4f}", f"{of.whole:.4f}", f"{of.alone / of.whole:.2f}", f"{HOUR / of.whole:,.0f}"]
        table.add_row(name, *cells, f"{of.early:.0f}", f"{of.late:.0f}", f"{of.row:.0f}")
    Console(width=130).print(table)
    print(machine())


if __name__ == "__main__":
    main(sys.argv[1:] or list(CASES))
