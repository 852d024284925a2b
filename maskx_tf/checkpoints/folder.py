"""Finds model folders and reads their configuration, without building a model or importing TensorFlow.

config.yaml     the resolved configuration; what the folder's model is built from
weights.npz     every variable by its name, each with a checksum
embedding.npy   the table that T reads, if it reads one
model.json      version, origin, ids of the data set, what an importer left out
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from maskx_tf import files
from maskx_tf.config import Config
from maskx_tf.config import load as load_config
from maskx_tf.config.explain import validated
from maskx_tf.errors import BadInput, listed, shorten
from maskx_tf.files import Json

FORMAT = 1  # version of the folder's format; raised if an older reader would misread the folder
CONFIG, WEIGHTS, EMBEDDING, META = "config.yaml", "weights.npz", "embedding.npy", "model.json"
FILES = {CONFIG, WEIGHTS, EMBEDDING, META}
GRAPH = "saved_model.pb"  # what an exported SavedModel has instead of all that
TABLE = "table"  # the variable that EMBEDDING holds, too: a model is built from that file


class _Meta(BaseModel):
    """The keys of model.json that every model folder has and that other rooms read; importers and training add more."""

    model_config = ConfigDict(strict=True, extra="allow")

    format: Annotated[int, Field(ge=1)]
    category_ids: list[int] | None = None
    a_classes: list[str] | None = None
    changes: list[str] = []
    metrics: Json | None = None


def refuse_other(folder: str | os.PathLike[str]) -> None:
    """Raises BadInput if a place holds something other than a model folder.

    Raises:
        BadInput: naming what is in the way.
    """
    target = Path(folder)
    if not target.exists():
        return
    if not target.is_dir():
        raise BadInput(f"{folder}: expected a folder, found a file")
    if target.resolve() == Path.cwd():  # the shell's current folder would be replaced
        raise BadInput(f"{folder}: expected another folder than the one you are in")
    names = {path.name for path in target.iterdir()}
    if names and (META not in names or names - FILES):
        other = listed(names - FILES or names)
        raise BadInput(f"{folder}: expected a new folder, or a model folder to replace, found {other}")


def find(path: str | os.PathLike[str]) -> Path:
    """The model folder that a user means: itself, or the only one inside a run folder.

    Raises:
        BadInput: there is none, or more than one.
    """
    folder = Path(path)
    if (folder / META).is_file():
        return folder
    if not folder.is_dir():
        raise BadInput(f"{path}: {'expected a model folder, found a file' if folder.exists() else 'no such folder'}")
    inside = sorted(found.parent for found in folder.glob(f"*/{META}") if found.parent.name[0] != ".")
    if len(inside) != 1:
        several = f"several: {listed(map(str, inside))}" if inside else f"no {META}"
        raise BadInput(f"{path}: expected a model folder, or a run folder that holds one, found {several}")
    return inside[0]


def open_config(path: str | os.PathLike[str]) -> tuple[Config, Json]:
    """The configuration and history of a model folder or run folder, without its weights.

    Raises:
        BadInput: it is no such folder, or damaged.
    """
    return read_config(find(path))


def open_export(version: str | os.PathLike[str], score: float | None = None) -> Config:
    """The configuration of one version of an exported SavedModel.

    Args:
        version: its folder, which holds GRAPH.
        score: the least score of the detections that are wanted; None for the export's own.

    Raises:
        BadInput: it is damaged, or its graph drops some of these detections.
    """
    config = load_config(Path(version, "assets", CONFIG))
    least = config.model.detections.score
    if score is not None and score < least:
        raise BadInput(f"score: expected at least {least:g}, below which {version} drops detections, found {score:g}")
    return config


def read_config(folder: Path) -> tuple[Config, Json]:
    """The same of a model folder."""
    meta = _read_meta(folder / META)
    config = with_embedding(load_config(folder / CONFIG), str(folder / EMBEDDING))
    ids, count = meta.get("category_ids"), len(config.model.class_names)
    if ids is not None and len(ids) != count:
        raise BadInput(f"{folder / META}: category_ids: expected {count} ids, one a class, found {len(ids)}")
    return config, meta


def _read_meta(path: Path) -> Json:
    meta = files.read_json(path)
    facts = validated(meta, _Meta, path, "the facts of a model")
    if facts.format > FORMAT:
        raise BadInput(
            f"{path}: written in format {facts.format} by maskx_tf {shorten(meta.get('maskx_tf'))}, "
            f"expected at most {FORMAT}: use a newer maskx_tf"
        )
    return {key: value for key, value in meta.items() if key not in ("format", "maskx_tf", "parameters")}


def with_embedding(config: Config, path: str) -> Config:
    """Returns the configuration with another path of the table of embeddings, if it has one."""
    if config.model.transfer.input != "embedding":
        return config
    transfer = config.model.transfer.model_copy(update={"embedding": path})
    return config.model_copy(update={"model": config.model.model_copy(update={"transfer": transfer})})
