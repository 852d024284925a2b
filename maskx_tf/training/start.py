"""What a run starts from: fresh weights, or those of another model as far as they fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from maskx_tf.checkpoints import folder, npz
from maskx_tf.checkpoints.messages import listed
from maskx_tf.checkpoints.variables import named
from maskx_tf.config import Config
from maskx_tf.errors import BadInput
from maskx_tf.models.build import build
from maskx_tf.models.rcnn import RCNN

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
# What a detector was trained with, and a mask branch on top of it has to keep.
FIXED = ("backbone", "anchors", "roi", "box")
FREE = {"backbone.weights", "backbone.frozen_stages", "roi.mask_size", "box.rois", "box.positive_fraction"}


def classes(config: Config, of_data: Sequence[str]) -> tuple[str, ...]:
    """The class names of a run: those of the configuration, or else of the weights it starts from, or of the data."""
    if config.model.class_names:
        return config.model.class_names
    if config.train.weights is not None:
        return folder.open_config(config.train.weights)[0].model.class_names
    return tuple(of_data)


def make(config: Config) -> RCNN:
    """The model of a configuration, with the weights that it starts from and what its stage freezes.

    Raises:
        BadInput: the weights do not fit.
    """
    keras.utils.set_random_seed(config.train.seed)
    keras.config.set_dtype_policy(POLICIES[config.train.precision])
    try:
        model = build(config.model)
    finally:
        keras.config.set_dtype_policy("float32")
    if config.train.weights is not None:
        _load(model, config, config.train.weights)
    model.set_stage(config.train.stage)
    return model


def _load(model: RCNN, config: Config, weights: str) -> None:
    """Sets what the weights have; what they lack stays fresh, where it may."""
    source, _ = folder.open_config(weights)
    path = folder.find(weights) / folder.WEIGHTS
    ours, theirs = config.model.class_names, source.model.class_names
    if ours != theirs:
        raise BadInput(
            f"{weights}: expected the classes of model.class_names in their order, found others; "
            "maskx vocabulary adds, drops and reorders a model's classes"
        )
    for name, found, expected in _differences(source, config):
        raise BadInput(f"{weights}: expected model.{name} {expected!r}, as configured, found {found!r}")
    variables = named(model)
    with npz.reading(path) as archive:
        missing = [name for name in variables if name not in archive.names]
        fixed = [name for name in missing if not _of_masks(name)]
        if fixed:
            raise BadInput(f"{path}: expected a tensor {listed(fixed)}, found none")
        for name in variables:
            if name not in missing:
                array, shape = archive.read(name), tuple(variables[name].shape)
                if array.shape != shape:
                    raise BadInput(f"{path}: {name}: expected shape {list(shape)}, found {list(array.shape)}")
                variables[name].assign(array)


def _of_masks(name: str) -> bool:
    """Whether a variable belongs to the mask branch, which a detector need not have."""
    return name.split("/")[0] in ("mask_head", "transfer", "table")


def _differences(source: Config, config: Config) -> list[tuple[str, Any, Any]]:
    """Settings of the detector in which the weights and the configuration differ."""
    names = [("input", key) for key in ("pixel_mean", "pixel_std", "channel_order")]
    names += [(section, key) for section in FIXED for key in type(getattr(config.model, section)).model_fields]
    compared = [
        (f"{section}.{key}", getattr(getattr(source.model, section), key), getattr(getattr(config.model, section), key))
        for section, key in names
    ]
    return [(name, theirs, ours) for name, theirs, ours in compared if theirs != ours and name not in FREE]
