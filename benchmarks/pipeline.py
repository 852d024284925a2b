"""What the input pipeline delivers: `python -m benchmarks.pipeline [source ...]`, sources of SOURCES.

Compares images a second with those of decoding and resizing alone, over JPEG photos of 640 x 480 with seven instances
each, made on the fly, resized to 800 x 1066 on a canvas of 800 x 1088. The first epoch of a data set, in which masks
are cut to their grids, is compared with later ones, in which the grids are known.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.measure import machine
from maskx_tf.config.data import DataConfig, PhotometricConfig
from maskx_tf.config.detector import InputConfig
from maskx_tf.data.dataset import Dataset, ImageRecord, Instance, Polygons, Segmentation, bitmap
from maskx_tf.data.pipeline import batches as pipeline
from maskx_tf.data.pipeline import tfrecords, tfrecords_write
from maskx_tf.data.pipeline.examples import Examples, from_dataset
from maskx_tf.masks import rle

HEIGHT, WIDTH, IMAGES, INSTANCES = 480, 640, 96, 7
BATCH, EPOCHS = 4, 5
INPUT = InputConfig(canvas=(800, 1088), short_side=800, long_side=1088)
PLAIN = DataConfig(flip=False)
COLOURS = PhotometricConfig(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.02)
CONFIGS = {
    "as it is": PLAIN,
    "flip": DataConfig(),
    "flip, LSJ .1-2": DataConfig(scale_jitter=(0.1, 2.0)),
    "flip, colours": DataConfig(photometric=COLOURS),
    "flip, copy-paste .5": DataConfig(copy_paste=0.5),
    "all of them": DataConfig(scale_jitter=(0.1, 2.0), photometric=COLOURS, copy_paste=0.5),
}


class Speed(NamedTuple):
    """Images a wall-clock second, and milliseconds of the processors an image."""

    rate: float
    cpu: float


def write(folder: Path) -> None:
    """Makes the photos and the records of the benchmark."""
    random = np.random.RandomState(0)
    for number in range(IMAGES):
        # Colour that changes slowly, and grain: 90 KB, as photos of this size have.
        coarse = random.randint(0, 256, [9, 12, 3]).astype(np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32)
        pixels = (smooth + random.normal(0, 7, [HEIGHT, WIDTH, 1])).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=88)
    tfrecords_write.write(dataset(folder, "polygons"), folder / "records", per_shard=32)


def dataset(folder: Path, masks: str) -> Dataset:
    """The photos with instances whose masks are polygons, run lengths, or absent."""
    random = np.random.RandomState(1)
    images = []
    for number in range(IMAGES):
        instances = []
        for _ in range(INSTANCES):
            width, height = np.exp(random.uniform(np.log(24), np.log(320), 2))
            left, top = random.rand(2) * [WIDTH - width, HEIGHT - height]
            angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
            radius = 0.5 * (0.8 + 0.2 * np.sin(5 * angles))
            x, y = left + width * (0.5 + radius * np.cos(angles)), top + height * (0.5 + radius * np.sin(angles))
            polygon = (array("d", np.stack([x, y], axis=1).ravel()),)
            box = (float(x.min()), float(y.min()), float(x.max()), float(y.max()))
            instances.append(Instance(box, 1 + random.randint(80), False, _mask(masks, polygon)))
        images.append(ImageRecord(number, folder / f"{number}.jpg", WIDTH, HEIGHT, tuple(instances)))
    return Dataset("photos", tuple(f"class {k}" for k in range(80)), tuple(range(1, 81)), tuple(images))


def _mask(masks: str, polygon: Polygons) -> Segmentation | None:
    if masks == "run lengths":
        return rle.encode(bitmap(polygon, HEIGHT, WIDTH))
    return polygon if masks == "polygons" else None


def decoded(folder: Path, resize: bool) -> tf.data.Dataset:
    """What cannot be saved: TensorFlow's decoder, fast or accurate, and its resizing, in the same threads."""
    paths = [str(folder / f"{number}.jpg") for number in range(IMAGES)]

    def one(path: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3, dct_method="INTEGER_ACCURATE")
        if resize:
            pixels = tf.image.resize(image, [800, 1066])
            return tf.cast(tf.round(pixels), tf.uint8)
        return image

    made = tf.data.Dataset.from_tensor_slices(paths).repeat().map(one, num_parallel_calls=tf.data.AUTOTUNE)
    return made.batch(BATCH, drop_remainder=True).prefetch(2)


def batches(examples: Examples, config: DataConfig) -> tf.data.Dataset:
    """The pipeline of training."""
    return pipeline.training(examples, config, INPUT, batch=BATCH)


def speeds(made: tf.data.Dataset) -> tuple[Speed, Speed]:
    """The first epoch, without its first batches, and the best later one, because others may be at work here."""
    found = iter(made)
    first = _epoch(found, 8)
    later = [_epoch(found, 0) for _ in range(EPOCHS)]
    return first, Speed(max(one.rate for one in later), min(one.cpu for one in later))


def _epoch(found: Iterator[Any], skipped: int) -> Speed:
    for _ in range(skipped):
        next(found)
    steps = IMAGES // BATCH - skipped
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        next(found)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Speed(steps * BATCH / wall, 1e3 * cpu / (steps * BATCH))


def measured(folder: Path, source: str, name: str) -> tuple[Speed, Speed]:
    """One row, in a process of its own: `source` is a key of SOURCES, `name` a row of its table."""
    if source == "TensorFlow alone":
        return speeds(decoded(folder, "resize" in name))
    return speeds(batches(SOURCES[source](folder), CONFIGS[name]))


SOURCES: dict[str, Callable[[Path], Examples]] = {
    "files, no masks": lambda folder: from_dataset(dataset(folder, "none")),
    "files, polygons": lambda folder: from_dataset(dataset(folder, "polygons")),
    "files, run lengths": lambda folder: from_dataset(dataset(folder, "run lengths")),
    "records": lambda folder: tfrecords.open_records(folder / "records"),
}


def main(sources: list[str]) -> None:
    """Prints one table."""
    rows = [("TensorFlow alone", "decode"), ("TensorFlow alone", "decode, resize to uint8")]
    rows += [(source, "as it is") for source in sources]
    rows += [(source, name) for source in sources[1:2] + sources[3:] for name in list(CONFIGS)[1:]]
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        found = {row: _in_process(Path(folder), *row) for row in rows}
    table = Table(title=f"Batches of {BATCH}, {INSTANCES} instances an image", title_justify="left")
    for column in ("", "images/s", "CPU ms", "of decode + resize", "first epoch: images/s", "CPU ms"):
        table.add_column(column, justify="left" if column == "" else "right")
    base = found[rows[1]][1]
    for (source, name), (first, later) in found.items():
        # Processor time, not the clock, says how much work there is, whoever else is at work.
        share = f"{base.cpu / later.cpu:.0%}"
        table.add_row(
            f"{source}: {name}", f"{later.rate:.0f}", f"{later.cpu:.1f}", share, f"{first.rate:.0f}", f"{first.cpu:.1f}"
        )
    Console(width=120).print(table)


def _in_process(folder: Path, source: str, name: str) -> tuple[Speed, Speed]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measured, folder, source, name).result()


if __name__ == "__main__":
    print(machine())
    main(sys.argv[1:] or list(SOURCES))
