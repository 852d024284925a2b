"""Images with instances for the tests of the pipeline, whose masks are known to the pixel."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from maskx_tf.data.dataset import Dataset, ImageRecord, Instance
from maskx_tf.data.pipeline.sample import Sample
from maskx_tf.masks import rle
from maskx_tf.masks.crops import crop_mask
from maskx_tf.structures import COMMON_FIELDS, MASK_SIDE, VALID, with_flags

HEIGHT, WIDTH = 260, 340


class Thing(NamedTuple):
    """An object: its box in the image, its grid, and its mask in pixels."""

    box: np.ndarray  # float32 [4]
    grid: np.ndarray  # bool [MASK_SIDE, MASK_SIDE]
    mask: np.ndarray  # bool [HEIGHT, WIDTH]


@functools.cache
def things(count: int = 60) -> tuple[Thing, ...]:
    """Objects whose cells are one or two whole pixels wide and high, so that grid and mask say the same."""
    random = np.random.RandomState(0)
    found = []
    for number in range(count):
        cell_height, cell_width = random.randint(1, 3, 2) if number % 2 else (1, 1)
        grid = blob(random)
        found.append(_placed(random, grid, grid.repeat(cell_height, 0).repeat(cell_width, 1)))
    return tuple(found)


@functools.cache
def photographed(count: int = 60) -> tuple[Thing, ...]:
    """Objects of any size, of whose outline the grid keeps what it can."""
    random = np.random.RandomState(1)
    found = []
    for _ in range(count):
        mask = blob(random, 230)
        height, width = random.randint(30, 230, 2)
        small = mask[np.arange(height) * 230 // height][:, np.arange(width) * 230 // width]
        grid = crop_mask(small.astype(np.uint8), box_of(small), height, width, MASK_SIDE)
        found.append(_placed(random, grid, small))
    return tuple(found)


def _placed(random: np.random.RandomState, grid: np.ndarray, small: np.ndarray) -> Thing:
    """The object at some place in the image."""
    height, width = small.shape
    top, left = random.randint(HEIGHT - height + 1), random.randint(WIDTH - width + 1)
    mask = np.zeros([HEIGHT, WIDTH], bool)
    mask[top : top + height, left : left + width] = small
    return Thing(box_of(mask), grid, mask)


def blob(random: np.random.RandomState, side: int = MASK_SIDE) -> np.ndarray:
    """Two overlapping ellipses, whole or with a bite, that together touch the four sides: bool [side, side]."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    mask = np.zeros([side, side], bool)
    for cx, cy in random.uniform(0.35, 0.65, [2, 2]):
        a, b, turn = random.uniform(0.1, 0.4), random.uniform(0.1, 0.4), random.uniform(0, np.pi)
        u, v = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn), (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
        mask |= ((u / a) ** 2 + (v / b) ** 2 < 1) & ~((u > 0) & (v > 0) & (random.rand() < 0.5))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    stretched = [edges[0] + np.arange(side) * (edges[-1] + 1 - edges[0]) // side for edges in (rows, columns)]
    return mask[stretched[0]][:, stretched[1]]


def sample(chosen: Sequence[Thing], image: np.ndarray | None = None, *, padding: int = 0, **values: Any) -> Sample:
    """A Sample of objects with masks, class 1, 2, ..., and some padding after them; `values` replace its own."""
    count = len(chosen)
    valid = np.arange(count + padding) < count
    known = {
        "valid": valid,
        "boxes": np.array([one.box for one in chosen], np.float32),
        "classes": np.arange(1, count + 1, dtype=np.int32),
        "crowd": np.zeros(count, bool),
        "has_mask": np.ones(count, bool),
        "masks": np.array([np.packbits(one.grid) for one in chosen], np.uint8),
    }
    fields = (VALID, *with_flags(COMMON_FIELDS))
    padded = {field.name: np.zeros([count + padding, *field.shape], field.dtype) for field in fields}
    for name, array in padded.items():
        array[:count] = np.reshape(known[name][:count], array[:count].shape)
    image = np.zeros([HEIGHT, WIDTH, 3], np.uint8) if image is None else image
    return tensors(Sample(image, fields, padded | values))


def tensors(given: Sample) -> Sample:
    """The Sample with a tensor in place of each array."""
    return tf.nest.map_structure(tf.constant, given)


def gather(given: Sample, places: tf.Tensor) -> Sample:
    """The Sample with the instances at these places."""
    return given.mapped(lambda _, value: tf.gather(value, places))


def box_of(mask: np.ndarray) -> np.ndarray | None:
    """The box around a mask's pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def iou(box: np.ndarray, other: np.ndarray) -> float:
    sides = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
    shared = np.prod(np.maximum(sides, 0.0))
    return float(shared / (np.prod(box[2:] - box[:2]) + np.prod(other[2:] - other[:2]) - shared))


def dataset(folder: Path, count: int = 10, *, size: tuple[int, int] = (60, 80)) -> Dataset:
    """Photos with 0 to 5 objects of three classes; class 1 has masks, class 2 some, class 3 none; some are crowds."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(7)
    images = []
    for number in range(count):
        height, width = size if number % 2 else size[::-1]
        path = folder / f"{number}.png"
        pixels = random.randint(0, 256, [height // 10, width // 10, 3]).astype(np.uint8).repeat(10, 0).repeat(10, 1)
        Image.fromarray(pixels).save(path)
        instances = []
        for place in range(number % 6):
            side = random.randint(12, 40, 2)
            left, top = random.randint(width - side[0]), random.randint(height - side[1])
            mask = np.zeros([height, width], bool)
            mask[top : top + side[1], left : left + side[0]] = blob(random, 40)[: side[1], : side[0]]
            box = (float(left), float(top), float(left + side[0]), float(top + side[1]))
            label = 1 + place % 3
            known = label == 1 or (label == 2 and number % 2 == 0)
            form = rle.encode(mask) if known else None
            instances.append(Instance(box, label, place == 4, form, 10 * number + place))
        images.append(ImageRecord(100 + number, path, width, height, tuple(instances)))
    return Dataset("scenes", ("all", "some", "none"), (1, 2, 3), tuple(images))
