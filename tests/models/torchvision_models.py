"""Models with the oracle's weights, through the project's own torchvision importer."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tensorflow as tf

from maskx_tf.checkpoints.settings import resolve
from maskx_tf.checkpoints.variables import named
from maskx_tf.importers.plan import ImportRequest
from maskx_tf.importers.run import Imported, convert
from maskx_tf.importers.torchvision import plan
from maskx_tf.models.build import build
from maskx_tf.models.rcnn import RCNN
from maskx_tf.ops import images as image_ops
from tests import oracle

# torchvision's names of our losses.
LOSSES = {
    "loss_class": "loss_classifier",
    "loss_box": "loss_box_reg",
    "loss_rpn_objectness": "loss_objectness",
    "loss_rpn_box": "loss_rpn_box_reg",
}


@functools.cache
def torchvision_model(*overrides: str, portable: bool = False, file: Path = oracle.FILE) -> RCNN:
    """The oracle's model, with settings of its own where it was run with others than torchvision's."""
    imported = _imported(file=file)
    if not (overrides or portable):
        return imported.model
    config = resolve(imported.config.model_dump(mode="json"), overrides)
    model = build(config.model, portable=portable)
    sources = named(imported.model)
    for name, variable in named(model).items():
        variable.assign(sources[name])
    return model


def size(file: Path) -> tuple[str, ...]:
    """The sizes of a file's images, where torchvision's are 800."""
    facts = oracle.meta(file)
    short, long = facts["min_size"], facts["max_size"]
    side = -(-long // 32) * 32
    return (f"model.input.canvas=[{side}, {side}]", f"model.input.short_side={short}", f"model.input.long_side={long}")


def letterboxed(image: str, file: Path = oracle.FILE) -> tuple[tf.Tensor, tf.Tensor]:
    """The oracle's image on its canvas, a multiple of 32, in floats, as torchvision sees it: `letterbox` rounds."""
    facts, pixels = oracle.meta(file), oracle.outputs(file)[f"{image}/image_uint8"]
    sides = facts["min_size"], facts["max_size"]
    height, width = pixels.shape[:2]
    ratio = min(sides[0] / min(height, width), sides[1] / max(height, width))
    canvas = tuple(-(-int(side * ratio) // 32) * 32 for side in (height, width))
    resized = image_ops.resize_to_fit(pixels, canvas=canvas, short_side=sides[0], long_side=sides[1])
    size = tf.cast(tf.shape(resized)[:2], tf.float32)
    return tf.image.pad_to_bounding_box(resized, 0, 0, *canvas)[None], size[None]


@functools.cache
def _imported(file: Path = oracle.FILE) -> Imported:
    with weights_in_memory(file):
        return convert("torchvision", ImportRequest(file, size(file)))


@functools.cache
def sources(file: Path = oracle.FILE) -> dict[str, str]:
    """torchvision's name for each variable."""
    with weights_in_memory(file):
        order = plan(ImportRequest(file, size(file))).table(_imported(file=file).config.model)
    return {entry.variable: entry.tensor for entry in order.entries}


@contextmanager
def weights_in_memory(file: Path) -> Iterator[None]:
    """The importer receives the weights without a file: other tests read files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("maskx_tf.importers.torchvision.read", lambda _: oracle.weights(file))
        yield
