"""Models with the oracle's weights, through the project's own torchvision importer."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np

from maskx_tf.checkpoints.variables import named
from maskx_tf.importers.plan import ImportRequest
from maskx_tf.importers.run import Imported, convert
from maskx_tf.importers.torchvision import plan
from maskx_tf.models.build import build
from maskx_tf.models.rcnn import RCNN
from tests import oracle

# The oracle's images are 256 pixels wide, where torchvision's are 800.
SIZE = ("model.input.canvas=[256, 256]", "model.input.short_side=256", "model.input.long_side=256")


@functools.cache
def torchvision_model(*overrides: str, portable: bool = False, file: Path = oracle.FILE) -> RCNN:
    """The oracle's model, with settings of its own where it was run with others than torchvision's."""
    imported = _imported(*overrides, file=file)
    if not portable:
        return imported.model
    model = build(imported.config.model, portable=True)
    sources = named(imported.model)
    for name, variable in named(model).items():
        variable.assign(sources[name])
    return model


def size(file: Path) -> tuple[str, ...]:
    """The sizes of a file's images, for files that say."""
    facts = oracle.meta(file)
    if "max_size" not in facts:
        return SIZE
    short, long = facts["min_size"], facts["max_size"]
    side = -(-long // 32) * 32
    return (f"model.input.canvas=[{side}, {side}]", f"model.input.short_side={short}", f"model.input.long_side={long}")


@functools.cache
def _imported(*overrides: str, file: Path = oracle.FILE) -> Imported:
    with tempfile.TemporaryDirectory() as folder:
        return convert("torchvision", ImportRequest(_weights(Path(folder), file), (*size(file), *overrides)))


def _weights(folder: Path, file: Path) -> Path:
    path = folder / "weights.npz"
    np.savez(path, **oracle.weights(file))
    return path


@functools.cache
def sources(file: Path = oracle.FILE) -> dict[str, str]:
    """torchvision's name for each variable."""
    with tempfile.TemporaryDirectory() as folder:
        request = ImportRequest(_weights(Path(folder), file), size(file))
        order = plan(request).table(_imported(file=file).config.model)
    return {entry.variable: entry.tensor for entry in order.entries}
