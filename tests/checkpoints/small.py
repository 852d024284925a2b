"""Whole models that are quick to build: a backbone of five convolutions, narrow heads, seven classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.checkpoints.io import build_with
from maskx_tf.checkpoints.settings import resolve
from maskx_tf.checkpoints.variables import named
from maskx_tf.config import Config
from maskx_tf.layers import applications
from maskx_tf.models.rcnn import RCNN
from tests.small_backbone import SMALL_NETWORK

CLASSES = ("ape", "bee", "cat", "dog", "eel", "fox", "gnu")
WIDTH, CHANNELS = 6, 4


@pytest.fixture(scope="module", autouse=True)
def quick_backbone() -> Iterator[None]:
    """In modules that import this, mobilenet_v2 is a small network: Keras takes most of a second for the real one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(applications.NETWORKS, "mobilenet_v2", SMALL_NETWORK)
        yield


def settings(family: str = "mask_x_rcnn", **sections: Any) -> dict[str, Any]:
    """Settings of a small model; sections are laid over them."""
    model: dict[str, Any] = {
        "family": family,
        "class_names": list(CLASSES),
        "input": {"canvas": [64, 64], "short_side": 64, "long_side": 64},
        "backbone": {"name": "mobilenet_v2", "fpn_channels": 5},
        "anchors": {"sizes": [[8.0], [16.0], [32.0], [48.0], [64.0]]},
        "rpn": {"pre_nms_test": 50, "post_nms_test": 20},
        "roi": {"box_size": 2, "mask_size": 3},
        "box": {"width": WIDTH},
        "mask": {"channels": CHANNELS, "convs": 1},
        "detections": {"score": 0.0, "limit": 10},
    }
    for section, values in sections.items():
        model[section] = {**model.get(section, {}), **values}
    return {"model": model}


def model(family: str = "mask_x_rcnn", table: np.ndarray | None = None, **sections: Any) -> tuple[RCNN, Config]:
    """A model whose variables all have different numbers, and its configuration."""
    if table is not None:
        sections["transfer"] = {**sections.get("transfer", {}), "input": "embedding", "embedding": "given"}
    config = resolve(settings(family, **sections))
    keras.utils.set_random_seed(1)
    result = build_with(config.model, table)
    generator = np.random.default_rng(2)
    for name, variable in named(result).items():
        if name.startswith(("rpn/", "fpn/", "box_", "mask_head/", "transfer/")):
            variable.assign(generator.normal(scale=0.3, size=variable.shape))
    return result, config


def table(rows: int = len(CLASSES)) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((rows, 9)).astype(np.float32)


def values(result: RCNN) -> dict[str, np.ndarray]:
    return {name: variable.numpy() for name, variable in named(result).items()}


def detections(result: RCNN) -> list[np.ndarray]:
    """The detections of a model in an image of noise."""
    pixels = np.random.default_rng(4).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    found = result({"images": tf.constant(pixels), "image_sizes": tf.constant([[64.0, 64.0]])})
    return [np.asarray(part) for part in found if part is not None]


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
