"""Every way into the network makes the same canvas of an image file, to the bit."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from maskx_tf.config.detector import InputConfig
from maskx_tf.data.dataset import Dataset, ImageRecord
from maskx_tf.data.pipeline import batches as pipeline
from maskx_tf.data.pipeline import examples, tfrecords, tfrecords_write
from maskx_tf.export import decode, device
from maskx_tf.export.signatures import Labels, Signatures
from maskx_tf.masks.rgb import read_image
from maskx_tf.prediction.images import ImagePredictor, View
from tests.data.batches import PLAIN, take, turned
from tests.models.small import config, small_model

# Not the default rounding, which a way that forgets the setting would use: it makes the last images 64 wide, not 63.
INPUT = InputConfig(canvas=(96, 64), short_side=50, long_side=90, rounding="torchvision")
SIZES = ((30, 40), (25, 25), (96, 64), (200, 90), (67, 131), (1, 1), (700, 3), (50, 50), (30, 49))


class Canvas(NamedTuple):
    pixels: np.ndarray
    size: np.ndarray


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Photos and noise of many sizes, in the two formats that an export reads, some of them turned."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.RandomState(0)
    for number, (height, width) in enumerate(SIZES):
        noise = random.randint(0, 256, [height, width, 3]).astype(np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
        coarse = Image.fromarray(random.randint(0, 256, [4, 5, 3]).astype(np.uint8))
        smooth = np.asarray(coarse.resize((width, height)))
        Image.fromarray(smooth).save(folder / f"{number}.jpg", quality=85)
        turned(folder / f"{number} turned.jpg", 6, smooth)
    return sorted(folder.iterdir())


def test_rounding_matters_to_the_last_images(evaluated: list[Canvas]) -> None:
    assert [one.size[1] for one in evaluated[-2:]] == [63.0, 63.0]


@pytest.fixture(scope="module")
def evaluated(photos: list[Path]) -> list[Canvas]:
    return canvases(pipeline.evaluation(examples.from_dataset(dataset_of(photos)), PLAIN, INPUT, batch=1))


def dataset_of(photos: list[Path]) -> Dataset:
    sizes = [read_image(path).shape for path in photos]
    records = (
        ImageRecord(number, path, width, height)
        for number, (path, (height, width, _)) in enumerate(zip(photos, sizes, strict=True))
    )
    return Dataset("photos", ("one",), (1,), tuple(records))


def canvases(batches: tf.data.Dataset) -> list[Canvas]:
    """The canvases of batches of one, in the order of their ids."""
    found = {int(batch["image_ids"][0]): Canvas(batch["images"][0], batch["image_sizes"][0]) for batch in take(batches)}
    return [found[number] for number in sorted(found)]


def assert_equal(found: list[Canvas], expected: list[Canvas]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.pixels.dtype == np.uint8
        np.testing.assert_array_equal(one.pixels, other.pixels)
        np.testing.assert_array_equal(one.size, other.size)


def test_training_that_varies_nothing_sees_what_evaluation_sees(photos: list[Path], evaluated: list[Canvas]) -> None:
    held = examples.from_dataset(dataset_of(photos))
    made = pipeline.training(held, PLAIN, INPUT, batch=1)
    assert_equal(canvases(made.take(len(photos))), evaluated)


def test_records_hold_what_evaluation_sees(photos: list[Path], evaluated: list[Canvas], tmp_path: Path) -> None:
    tfrecords_write.write(dataset_of(photos), tmp_path / "records")
    made = pipeline.evaluation(tfrecords.open_records(tmp_path / "records"), PLAIN, INPUT, batch=1)
    assert_equal(canvases(made), evaluated)


def test_prediction_sees_what_evaluation_sees(photos: list[Path], evaluated: list[Canvas]) -> None:
    settings = config(input=INPUT.model_dump())
    predictor = ImagePredictor(small_model(settings), settings)
    found = [predictor._on_canvas(read_image(path), View())[1:] for path in photos]
    assert_equal([Canvas(pixels[0].numpy(), size[0].numpy()) for pixels, size in found], evaluated)


def test_export_sees_what_evaluation_sees(photos: list[Path], evaluated: list[Canvas]) -> None:
    settings = config(input=INPUT.model_dump())
    labels = Labels(range(1, 4), settings.class_names)
    exported = Signatures(small_model(settings), settings, labels, max_pixels=10**6)
    letterbox = exported._from_files.keywords["letterbox"]
    files = tf.constant([path.read_bytes() for path in photos])
    read = functools.partial(decode.from_files, letterbox=letterbox, canvas=INPUT.canvas, max_pixels=10**6)
    found = tf.function(read)(files)
    assert_equal([Canvas(*one) for one in zip(found.pixels.numpy(), found.sizes.numpy(), strict=True)], evaluated)
    alone = [decode.from_pixels(read_image(path)[None], letterbox=letterbox, canvas=INPUT.canvas) for path in photos]
    assert_equal([Canvas(one.pixels[0].numpy(), one.sizes[0].numpy()) for one in alone], evaluated)


def test_devices_see_what_evaluation_sees(photos: list[Path], evaluated: list[Canvas]) -> None:
    sides = (INPUT.canvas, INPUT.short_side, INPUT.long_side, INPUT.rounding)
    found = [device.letterbox(read_image(path), *sides) for path in photos]
    assert_equal([Canvas(*one) for one in found], evaluated)
