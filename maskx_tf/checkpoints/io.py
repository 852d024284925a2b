"""Model folders written and read; `folder` says what they hold.

The weights are NumPy's .npz rather than Keras' .weights.h5: a zip has a checksum of every member, so damage is
recognised; its names are ours, so a missing or surplus tensor can be named; and NumPy alone reads it.
"""

from __future__ import annotations

import os
import platform
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from maskx_tf import __version__, files
from maskx_tf.checkpoints import npz
from maskx_tf.checkpoints.folder import (
    CONFIG,
    EMBEDDING,
    FORMAT,
    META,
    TABLE,
    WEIGHTS,
    find,
    read_config,
    refuse_other,
    with_embedding,
)
from maskx_tf.checkpoints.variables import arrays, assign, named
from maskx_tf.config import Config, ModelConfig
from maskx_tf.config import write as write_config
from maskx_tf.errors import BadInput, listed
from maskx_tf.files import Json
from maskx_tf.models.build import build
from maskx_tf.models.rcnn import RCNN


class Loaded(NamedTuple):
    """The contents of a model folder.

    Attributes:
        model: the model with its weights.
        config: its configuration.
        meta: its history, as `save` was given it.
    """

    model: RCNN
    config: Config
    meta: Json


def save(model: RCNN, config: Config, folder: str | os.PathLike[str], **meta: Any) -> None:
    """Writes a model folder. At every moment the folder is absent, the old one or the new one, and never incomplete.

    Args:
        model: whose weights are written.
        config: the configuration from which it was built.
        folder: a new or empty folder, or a model folder, which is replaced.
        **meta: plain data for model.json, such as source or category_ids.

    Raises:
        BadInput: the folder holds something else, or cannot be written.
    """
    refuse_other(folder)
    with files.new_folder(folder, replace=True) as unfinished:
        write_into(unfinished, model, config, meta)


def write_into(folder: Path, model: RCNN, config: Config, meta: Json) -> None:
    """Writes the files of a model folder into `files.new_folder`."""
    config = with_embedding(without_download(config), EMBEDDING)
    npz.write(folder / WEIGHTS, arrays(model))
    if config.model.transfer.input == "embedding":
        np.save(folder / EMBEDDING, named(model)[TABLE].numpy())
    write_config(config, folder / CONFIG)
    facts = {"format": FORMAT, "maskx_tf": __version__, "parameters": int(model.count_params()), **meta}
    files.write_json(folder / META, facts)


def versions() -> dict[str, str]:
    """The versions of the software."""
    return {
        "maskx_tf": __version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "python": platform.python_version(),
    }


def without_download(config: Config) -> Config:
    """Returns the configuration without a download of backbone weights: the model's weights come from elsewhere."""
    backbone = config.model.backbone.model_copy(update={"weights": "none"})
    return config.model_copy(update={"model": config.model.model_copy(update={"backbone": backbone})})


def build_with(config: ModelConfig, table: np.ndarray | None, *, portable: bool = False) -> RCNN:
    """Builds a model whose T reads a table that is not in a file yet, if it reads one."""
    if table is None:
        return build(config, portable=portable)
    with tempfile.TemporaryDirectory(prefix="maskx-") as folder:
        path = Path(folder, EMBEDDING)
        np.save(path, table)
        transfer = config.transfer.model_copy(update={"embedding": str(path)})
        return build(config.model_copy(update={"transfer": transfer}), portable=portable)


def open_model(path: str | os.PathLike[str], *, portable: bool = False) -> Loaded:
    """Opens the model of a command's MODEL argument; see `find` and `load`."""
    return load(find(path), portable=portable)


def load(folder: str | os.PathLike[str], *, portable: bool = False, finite: bool = True) -> Loaded:
    """Builds a model folder's model and sets all of its weights.

    Args:
        folder: written by `save`.
        portable: see `models.build.build`.
        finite: see `read_weights`.

    Raises:
        BadInput: the folder is damaged, or its files do not fit together.
    """
    config, meta = read_config(Path(folder))
    model = build(without_download(config).model, portable=portable)
    read_weights(model, Path(folder) / WEIGHTS, finite=finite)
    return Loaded(model, config, meta)


def read_weights(model: keras.Model, path: Path, *, finite: bool = True) -> None:
    """Sets every variable of a model.

    Args:
        model: the model of the configuration next to the weights.
        path: weights.npz.
        finite: refuse weights that are NaN or infinite.

    Raises:
        BadInput: the file is damaged, or is of another model; the model may then have some of its weights.
    """
    variables = named(model)
    with npz.reading(path) as archive:
        missing, extra = set(variables) - set(archive.names), set(archive.names) - set(variables)
        if missing:
            raise BadInput(f"{path}: expected a tensor {listed(missing)}, as {CONFIG} has it, found none")
        if extra:
            raise BadInput(f"{path}: holds {listed(extra)}, which the model of {CONFIG} does not have")
        if TABLE in variables and not np.array_equal(archive.read(TABLE), variables[TABLE].numpy()):
            raise BadInput(f"{path.with_name(EMBEDDING)}: expected the numbers of {TABLE} in {path.name}")
        assign(variables, archive, variables, finite=finite)
