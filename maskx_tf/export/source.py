"""The model that is exported: opened with the export's settings, and the facts that a reader of the export needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from maskx_tf.checkpoints import folder as folder_ops
from maskx_tf.checkpoints import io
from maskx_tf.config import Config, dump
from maskx_tf.config import load as load_config
from maskx_tf.errors import BadInput
from maskx_tf.files import Json, as_json
from maskx_tf.layers.parts import dtype_policy
from maskx_tf.models.build import build
from maskx_tf.models.rcnn import RCNN
from maskx_tf.structures import KeypointSet


class ExportModel(NamedTuple):
    """A model to export.

    Attributes:
        model: the model with its weights.
        config: the configuration, with the settings given for this export.
        meta: its history, from model.json.
    """

    model: RCNN
    config: Config
    meta: Json

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The data set's id of each class, or 1..K where none is known."""
        count = len(self.config.model.class_names)
        return tuple(int(number) for number in self.meta.get("category_ids") or range(1, count + 1))


def open_source(path: Path, overrides: Sequence[str] = (), *, portable: bool = False) -> ExportModel:
    """Opens a model or run folder, with settings that win over its own.

    Args:
        path: the folder.
        overrides: texts such as "model.detections.score=0.3" or "export.bf16=true".
        portable: see `models.build.build`.

    Raises:
        BadInput: it is no such folder, or the weights do not fit the settings.
    """
    folder = folder_ops.find(path)
    stored, meta = folder_ops.read_config(folder)
    given = load_config(folder / folder_ops.CONFIG, overrides)
    config = folder_ops.with_embedding(given, str(folder / folder_ops.EMBEDDING))
    if config.model.class_names != stored.model.class_names:
        raise BadInput("override 'model.class_names': expected the model's own: maskx vocabulary changes classes")
    with dtype_policy("mixed_bfloat16" if config.export.bf16 else "float32"):
        model = build(config.model, portable=portable)
    io.read_weights(model, folder / folder_ops.WEIGHTS)
    return ExportModel(model, config, meta)


def descriptions(source: ExportModel) -> dict[str, str]:
    """Returns the files that describe a model, by name; an export has them next to its graph."""
    config, meta = source.config, source.meta
    known = set(meta.get("a_classes") or ())
    labels = [
        {"index": index, "id": number, "name": name, **({"masks": name in known} if meta.get("a_classes") else {})}
        for index, (number, name) in enumerate(zip(source.category_ids, config.model.class_names, strict=True), start=1)
    ]
    keypoint = config.model.keypoint
    points = KeypointSet.of_names(keypoint.names, keypoint.skeleton, keypoint.flip)
    # The table's place on this machine says nothing elsewhere.
    resolved = dump(folder_ops.with_embedding(config, folder_ops.EMBEDDING))
    return {
        "labels.json": as_json(labels),
        "skeleton.json": as_json(points.skeleton),
        "config.yaml": resolved,
        "versions.json": as_json(io.versions()),
        "metrics.json": as_json(meta.get("metrics") or {}),
        "history.json": as_json(meta),
    }
