"""`<name>/<n>/`: a SavedModel that TF Serving loads, and that needs nothing of this package."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from maskx_tf.errors import BadInput
from maskx_tf.export import warmup
from maskx_tf.export.signatures import Labels, Signatures
from maskx_tf.export.source import ExportModel, descriptions
from maskx_tf.files import new_folder
from maskx_tf.protocol.messages import HIGHEST_VERSION, IMAGE_TENSOR, SEGMENT_BOXES, SERVING_DEFAULT, WARM_UP_FILE

HIGHEST_ID = 2**31 - 1  # the signatures' classes are int32


class Written(NamedTuple):
    """The result of an export.

    Attributes:
        path: the path of the version.
        version: its number.
        signatures: their names.
        megabytes: the size in megabytes of all files.
    """

    path: Path
    version: int
    signatures: list[str]
    megabytes: float


def write(source: ExportModel, out: Path, *, version: int | None = None) -> Written:
    """Writes a version next to the others, so that a server that watches sees all of it or nothing.

    Args:
        source: the model.
        out: folder of the versions; its name is the model's.
        version: its number; None for one more than the highest there.

    Raises:
        BadInput: a class's id is beyond int32, or the version stands already or cannot be written.
    """
    for number, name in zip(source.category_ids, source.config.model.class_names, strict=True):
        if not -HIGHEST_ID <= number <= HIGHEST_ID:
            raise BadInput(f"class {name!r} has the id {number}, expected at most {HIGHEST_ID}: answers hold int32")
    out = Path(os.path.abspath(out))
    number = _next_version(out) if version is None else version
    if not 1 <= number <= HIGHEST_VERSION:
        raise BadInput(f"--version {number}: expected 1 or more")
    target = out / str(number)
    if target.exists():
        raise BadInput(f"{target}: this version stands already; expected a new number, or none")
    names = _signatures(source)
    with new_folder(target) as unfinished:
        _write(source, unfinished, out.name, names)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    return Written(target, number, names, round(size / 1e6, 1))


def _next_version(out: Path) -> int:
    if not out.exists():
        return 1
    if not out.is_dir():
        raise BadInput(f"{out}: expected a folder of versions, found a file")
    return 1 + max((int(entry.name) for entry in out.iterdir() if entry.name.isdecimal()), default=0)


def _signatures(source: ExportModel) -> list[str]:
    wanted = source.config.export.signatures
    every = [SERVING_DEFAULT, IMAGE_TENSOR]
    if "masks" in source.config.model.outputs:
        every.append(SEGMENT_BOXES)
    return [name for name in every if wanted is None or name in wanted]


def _write(source: ExportModel, folder: Path, name: str, names: list[str]) -> None:
    settings = source.config.export
    labels = Labels(source.category_ids, source.config.model.class_names)
    module: Any = Signatures(source.model, source.config.model, labels, max_pixels=settings.max_pixels)
    functions = module.functions(names)
    with tempfile.TemporaryDirectory(prefix="maskx-") as scratch:
        for file, text in descriptions(source).items():
            path = Path(scratch, file)
            path.write_text(text, encoding="utf-8")
            setattr(module, path.stem, tf.saved_model.Asset(str(path)))
        tf.saved_model.save(module, str(folder), signatures=functions)
    if settings.warmup:
        warmup.write(folder / WARM_UP_FILE, name, names, source.config.model.input.canvas, settings.warmup)
