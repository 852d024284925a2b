"""Runs an importer: a file and a request in, a model folder and a summary out."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras

from maskx_tf.checkpoints.folder import refuse_other
from maskx_tf.checkpoints.io import build_with, save
from maskx_tf.checkpoints.settings import resolve
from maskx_tf.config import Config, ModelConfig
from maskx_tf.config.model import STRIDES
from maskx_tf.config.text import dotted
from maskx_tf.errors import BadInput
from maskx_tf.files import Json
from maskx_tf.importers import detectron, detectron2, keras_applications, torchvision
from maskx_tf.importers.fill import fill
from maskx_tf.importers.mxnet import plan as mxnet
from maskx_tf.importers.plan import ImportRequest, Plan
from maskx_tf.models.rcnn import RCNN

CANVAS = "model.input.canvas"
SOURCES: dict[str, Callable[[ImportRequest], Plan]] = {
    "torchvision": torchvision.plan,
    "detectron2": detectron2.plan,
    "detectron": detectron.plan,
    "keras": keras_applications.plan,
    "mxnet": mxnet.plan,
}


class Imported(NamedTuple):
    """A model made of a file.

    Attributes:
        model: the model with its weights.
        config: its configuration.
        meta: the facts for model.json, and for the summary.
    """

    model: RCNN
    config: Config
    meta: Json


def convert(source: str, request: ImportRequest) -> Imported:
    """Makes a model of a file.

    Raises:
        BadInput: the file is damaged or unsupported, or the request does not fit it.
    """
    if request.all_ids and source != "torchvision":
        raise BadInput(f"only torchvision's files have rows for all ids of COCO, not those of {source}")
    if request.without_rpn and source != "detectron":
        raise BadInput(f"only Detectron's files may lack a region proposal network, not those of {source}")
    plan = SOURCES[source](request)
    config = _configure(plan, request)
    _check_anchors(plan, config.model, request.path)
    model = build_with(config.model, plan.embedding)
    filled = fill(model, plan.tensors, plan.table(config.model), plan.rules, path=request.path, may_stay=plan.may_stay)
    skipped: dict[str, list[str]] = {reason: list(names) for reason, names in plan.settled.items()}
    for reason, names in filled.skipped.items():
        skipped.setdefault(reason, []).extend(names)
    ids, resolved = plan.labels.category_ids, config.model.model_dump(mode="json")
    conventions = {CANVAS, *dotted({"model": plan.settings})}
    meta = {
        "source": {"program": source, "file": request.path.name, "bytes": os.path.getsize(request.path)},
        "category_ids": None if ids is None else list(ids),
        "used": len(filled.used),
        "skipped": skipped,
        "fresh": list(filled.fresh),
        "conventions": {key: value for key, value in dotted({"model": resolved}).items() if key in conventions},
        "notes": list(plan.notes),
    }
    return Imported(model, config, meta)


def import_file(source: str, request: ImportRequest, out: str | os.PathLike[str]) -> Imported:
    """Makes a model of a file and writes its folder.

    Raises:
        BadInput: as `convert` and `io.save` raise it.
    """
    refuse_other(out)
    keras.utils.set_random_seed(0)  # for the weights that the file does not have, so that an import can be repeated
    imported = convert(source, request)
    save(imported.model, imported.config, out, **imported.meta)
    return imported


def _configure(plan: Plan, request: ImportRequest) -> Config:
    settings: Json = {**plan.settings, "class_names": list(plan.labels.names)}
    if plan.embedding is not None:
        # The path of a file that `save` will write; until then it says where the table comes from.
        settings["transfer"] = {**settings["transfer"], "embedding": str(request.path)}
    config = resolve({"model": settings}, request.overrides, origin=str(request.path))
    if not any(CANVAS.startswith(override.partition("=")[0]) for override in request.overrides):
        # The smallest square that holds every image which the limits of its sides allow, upright and lying.
        step = STRIDES[config.model.backbone.neck]
        side = math.ceil(config.model.input.long_side / step) * step
        settings["input"] = {**settings.get("input", {}), "canvas": [side, side]}
        config = resolve({"model": settings}, request.overrides, origin=str(request.path))
    if len(config.model.class_names) != len(plan.labels.names):
        raise BadInput(
            f"model.class_names: expected the {len(plan.labels.names)} classes of {request.path}, "
            f"found {len(config.model.class_names)}"
        )
    return config


def _check_anchors(plan: Plan, model: ModelConfig, path: Path) -> None:
    """Raises BadInput where the file has another number of anchors than the settings, which shapes do not tell."""
    if not plan.anchor_scores or plan.anchor_scores not in plan.tensors:
        return
    ratios, sizes = len(model.anchors.ratios), len(model.anchors.sizes[0])
    found = len(plan.tensors[plan.anchor_scores])
    if found != ratios * sizes:
        raise BadInput(
            f"{path}: {plan.anchor_scores}: expected {ratios * sizes} anchors a cell, of {ratios} ratios and {sizes} "
            f"sizes, found {found}; set model.anchors.ratios and model.anchors.sizes as the model was trained"
        )
