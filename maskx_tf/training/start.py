"""Chooses the first weights of a run: fresh ones, or those of another model as far as they fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras
import tensorflow as tf

from maskx_tf.checkpoints import folder, io, npz
from maskx_tf.checkpoints.variables import assign, named
from maskx_tf.config import Config
from maskx_tf.config.training import LATER_STAGES
from maskx_tf.errors import BadInput, listed
from maskx_tf.layers.parts import dtype_policy
from maskx_tf.models.build import build
from maskx_tf.models.mask_losses import RISING
from maskx_tf.models.rcnn import BOX, FEATURES, RCNN, RPN
from maskx_tf.models.trainable import Learning
from maskx_tf.structures import Proposals

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
# Settings that a branch has to share with the detector below it. Every run with `train.weights` has to share the first.
FIXED = ("backbone", "anchors", "roi", "box")
FREE = {"backbone.weights", "backbone.frozen_stages", "backbone.neck", "backbone.fpn_channels", "backbone.non_local"}
FREE |= {"roi.mask_size", "roi.keypoint_size", "box.rois", "box.positive_fraction"}


# Prefixes of the names of weights that have a part for each class.
OF_CLASSES: tuple[str, ...] = (
    "box_predictor/",
    "maps/scores/",
    "mask_head/predictor/",
    "mask_head/rows",
    "mask_head/bias",
)


def classes(config: Config, of_data: Sequence[str]) -> tuple[str, ...]:
    """The class names of a run: the configuration's, or those of the detector below a branch, or the data's."""
    if config.model.class_names:
        return config.model.class_names
    if config.train.stage in LATER_STAGES and config.train.weights is not None:
        return folder.open_config(config.train.weights)[0].model.class_names
    return tuple(of_data)


def make(config: Config, say: Callable[[str], None] = lambda text: None) -> RCNN:
    """The model of a configuration, with the weights that it starts from, what its stage freezes, and how it learns.

    Args:
        config: the configuration with class names.
        say: receives a line about what was taken from other weights.

    Raises:
        BadInput: the weights do not fit.
    """
    keras.utils.set_random_seed(config.train.seed)
    with precision(config):
        model = build(config.model, portable=config.train.jit)
    if config.train.weights is not None:
        _load(model, config, config.train.weights, say)
    set_up(model, config)
    return model


def set_up(model: RCNN, config: Config) -> None:
    """Sets what a model learns in a run, and how.

    Raises:
        BadInput: there is no model that proposes regions.
    """
    model.learn(parts_of(config.train.stage, model))
    if config.train.proposals is not None:
        model.proposer = proposer(config.train.proposals, portable=config.train.jit)
    train = config.train
    rising = max(round(train.box_warm_up * train.steps), 1)
    warm_up = tuple((name, rising) for name in RISING)
    model.learning = Learning(
        train.seed,
        train.accumulate,
        train.clip_norm,
        train.normaliser,
        warm_up=warm_up,
        jit=train.jit,
    )


def parts_of(stage: str, model: RCNN) -> tuple[str, ...]:
    """The parts of a model that learn in a stage: see `train.stage`."""
    without_heads = (FEATURES, RPN)
    heads = tuple(part for part in model.parts if part not in without_heads)
    parts = {
        "all": model.parts,
        "detector": (*without_heads, BOX),
        "rpn": without_heads,
        "regions": (FEATURES, *heads),
        "rpn_head": (RPN,),
        "heads": heads,
    }
    return parts.get(stage, (stage,))


def proposer(path: str, *, portable: bool) -> Callable[[tf.Tensor, tf.Tensor], Proposals]:
    """Returns the function that proposes regions for canvases and sizes with the model in a folder, as in training.

    Args:
        path: the path of the folder.
        portable: see `models.build.build`.

    Raises:
        BadInput: there is no such model.
    """
    model = io.open_model(path, portable=portable).model

    def propose(images: tf.Tensor, image_sizes: tf.Tensor) -> Proposals:
        return model.rpn.train.choose(model.rpn.outputs(model.features(images, image_sizes)), image_sizes)

    return propose


def loss_weights(config: Config, model: RCNN) -> dict[str, float]:
    """The weights of the losses that have one."""
    return {name: config.train.keypoint_weight for name in model.loss_names() if name == "loss_keypoint"}


def precision(config: Config) -> AbstractContextManager[None]:
    """Within, layers are made that compute in the type of a configuration."""
    return dtype_policy(POLICIES[config.train.precision])


def _load(model: RCNN, config: Config, weights: str, say: Callable[[str], None]) -> None:
    """Sets variables from the weights: the whole detector if one branch learns, otherwise at least the backbone."""
    source, _ = folder.open_config(weights)
    path = folder.find(weights) / folder.WEIGHTS
    same_classes = config.model.class_names == source.model.class_names
    whole = config.train.stage in LATER_STAGES
    if whole and not same_classes:
        raise BadInput(
            f"{weights}: expected the classes of model.class_names in their order, found others; "
            "maskx vocabulary adds, drops and reorders a model's classes"
        )
    if whole and source.model.backbone.neck != config.model.backbone.neck:
        found, expected = source.model.backbone.neck, config.model.backbone.neck
        raise BadInput(f"{weights}: expected model.backbone.neck {expected}, as configured, found {found}")
    for name, found, expected in _differences(source, config, FIXED if whole else FIXED[:1]):
        raise BadInput(f"{weights}: expected model.{name} {expected!r}, as configured, found {found!r}")
    needed = _needed(model, config, whole)
    variables = named(model)
    with npz.reading(path) as archive:
        there = set(archive.names)
        if missing := [name for name in needed if name not in there]:
            raise BadInput(f"{path}: expected a tensor {listed(missing)}, found none")
        others: tuple[str, ...] = (folder.TABLE,) if same_classes else (folder.TABLE, *OF_CLASSES)
        if source.model.keypoint.names != config.model.keypoint.names:
            others += ("keypoint_head/deconv",)
        kept = [name for name in variables if name in there and not name.startswith(others)]
        taken = [name for name in kept if name in needed or archive.header(name).shape == tuple(variables[name].shape)]
        assign(variables, archive, taken)
        fresh = [name for name in variables if name not in (*taken, folder.TABLE)]
    parts = dict.fromkeys(name.rpartition("/")[0] for name in fresh)
    say(f"started from {weights}" + (f"; fresh: {', '.join(parts)}" if parts else ""))


def _needed(model: RCNN, config: Config, whole: bool) -> list[str]:
    """The names of the weights that must be there."""
    layers = [model.backbone]
    if whole:
        layers += [model.neck, *model.part_layers[RPN], *model.part_layers[BOX]]
    elif config.model.backbone.neck == "c4":
        layers += [layer for layer in model.part_layers[BOX] if layer.name == "box_head"]  # res5
    names = [variable.path for layer in layers for variable in layer.weights]
    # A new block changes nothing at first, so a backbone that was trained without one may start it.
    return names if whole else [name for name in names if "/non_local/" not in name]


def _differences(source: Config, config: Config, sections: Sequence[str]) -> list[tuple[str, Any, Any]]:
    """Settings of the detector in which the weights and the configuration differ."""
    names = [("input", key) for key in ("pixel_mean", "pixel_std", "channel_order")]
    names += [(section, key) for section in sections for key in type(getattr(config.model, section)).model_fields]
    compared = [
        (f"{section}.{key}", getattr(getattr(source.model, section), key), getattr(getattr(config.model, section), key))
        for section, key in names
    ]
    return [(name, theirs, ours) for name, theirs, ours in compared if theirs != ours and name not in FREE]
