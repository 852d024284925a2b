"""The plan of an import, made before any model is built, and facts read from shapes that all sources share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from maskx_tf.config import ModelConfig
from maskx_tf.errors import BadInput, visible
from maskx_tf.files import Json
from maskx_tf.importers.fill import Rule, VariableTable
from maskx_tf.importers.labels import NamedClasses
from maskx_tf.layers.resnet import VARIANTS
from maskx_tf.names import COCO_FLIP, COCO_KEYPOINTS, COCO_SKELETON

Tensors = dict[str, np.ndarray]


class ImportRequest(NamedTuple):
    """The arguments of an import.

    Attributes:
        path: the file.
        overrides: settings that win over the source's, such as "model.detections.score=0.3".
        classes: a file of class names.
        all_ids: keep the rows of all 90 ids of COCO (torchvision).
        without_rpn: accept a file that has no region proposal network (Detectron's stage-wise training).
    """

    path: Path
    overrides: tuple[str, ...] = ()
    classes: Path | None = None
    all_ids: bool = False
    without_rpn: bool = False


class Plan(NamedTuple):
    """How a file becomes a model.

    Attributes:
        settings: the settings of the `model` section: what the shapes tell, and the conventions of the source.
        labels: the classes.
        tensors: the tensors by the names that the table uses.
        table: a resolved configuration to where everything goes.
        rules: the rules for tensors that are left out.
        settled: tensors that were dealt with before, by reason.
        embedding: the table that T reads, if it reads one.
        may_stay: starts of names of variables for which the file may have nothing.
        anchor_scores: the tensor of the file with a row for each anchor of a cell; empty if it has none.
        notes: what a user should know, a sentence each.
    """

    settings: Json
    labels: NamedClasses
    tensors: Tensors
    table: Callable[[ModelConfig], VariableTable]
    rules: tuple[Rule, ...] = ()
    settled: Mapping[str, Sequence[str]] = {}
    embedding: np.ndarray | None = None
    may_stay: tuple[str, ...] = ()
    anchor_scores: str = ""
    notes: tuple[str, ...] = ()


def refuse(path: Path, tensors: Tensors, known: Sequence[tuple[str, str]]) -> None:
    """Raises BadInput for a model of a known kind that is not supported.

    Args:
        path: the path of the file.
        tensors: the tensors of the file.
        known: a pattern of the start of a name, and what a model with such a tensor is.

    Raises:
        BadInput: naming the tensor and the kind.
    """
    for pattern, kind in known:
        for name in tensors:
            if re.match(pattern, name):
                raise BadInput(f"{path}: {visible(name)}: {kind} cannot be imported")


def tensor(path: Path, tensors: Tensors, name: str, rank: int) -> np.ndarray:
    """A tensor whose shape tells something.

    Raises:
        BadInput: it is not there, or has another number of dimensions.
    """
    if name not in tensors:
        raise BadInput(f"{path}: expected a tensor {name}, found none")
    if tensors[name].ndim != rank:
        raise BadInput(f"{path}: {name}: expected {rank} dimensions, found shape {list(tensors[name].shape)}")
    return tensors[name]


def resnet_name(path: Path, tensors: Tensors, conv2: str) -> str:
    """The name of a ResNet.

    Args:
        path: the path of the file.
        tensors: the tensors of the file.
        conv2: pattern of the names of the 3x3 convolutions, with groups for stage and index of the block.

    Raises:
        BadInput: it is none of `VARIANTS`.
    """
    found: dict[int, int] = {}
    first = None
    for name, array in tensors.items():
        match = re.fullmatch(conv2, name)
        if match:
            stage = int(match.group(1))
            found[stage] = found.get(stage, 0) + 1
            first = array if (stage, match.group(2)) == (min(found), "0") else first
    blocks = tuple(count for _, count in sorted(found.items()))
    if first is None or first.ndim != 4:
        raise BadInput(f"{path}: expected the convolutions of a ResNet, found none")
    width, group_width = first.shape[:2]
    for name, variant in VARIANTS.items():
        if (variant.blocks, variant.groups * variant.group_width) == (blocks, width) and (
            group_width == (variant.group_width if variant.groups > 1 else width)
        ):
            return name
    raise BadInput(
        f"{path}: a ResNet of blocks {blocks} whose first 3x3 convolutions have {width} channels in groups of "
        f"{group_width}, expected one of {', '.join(VARIANTS)}"
    )


def class_count(path: Path, tensors: Tensors, scores: str) -> int:
    """Rows of the class scores, background included."""
    count = len(tensor(path, tensors, scores, 2))
    if count < 2:
        raise BadInput(f"{path}: {scores}: expected a row for the background and one for each class, found {count}")
    return count


def map_side(path: Path, tensors: Tensors, name: str, channels: int) -> int:
    """The side of the map that a fully connected layer reads, flattened.

    Raises:
        BadInput: its inputs are no square map of so many channels.
    """
    inputs = tensor(path, tensors, name, 2).shape[1]
    side = math.isqrt(inputs // channels)
    if side * side * channels != inputs or not side:
        raise BadInput(f"{path}: {name}: {inputs} inputs, expected a square map of {channels} channels")
    return side


def counted(tensors: Tensors, name: str, first: int, step: int = 1) -> int:
    """How many tensors there are of a numbered kind: name has {} for the number."""
    count = 0
    while name.format(first + step * count) in tensors:
        count += 1
    return count


def keypoint_settings(
    path: Path, tensors: Tensors, deconv: str, conv: str, *, first: int, step: int, score: str
) -> Json:
    """The `model.keypoint` section of a file that has a keypoint head.

    Seventeen keypoints are taken for COCO's; no file says what its keypoints are called.

    Args:
        path: the path of the file.
        tensors: the tensors of the file.
        deconv: the weights of the deconvolution.
        conv: those of the convolutions, with {} for the number.
        first: the number of the first one.
        step: the step from one to the next.
        score: the convention of the program.
    """
    channels, count, *_ = tensor(path, tensors, deconv, 4).shape
    names: Json = {"names": [f"keypoint {number + 1}" for number in range(count)]}
    if count == len(COCO_KEYPOINTS):
        names = {"names": COCO_KEYPOINTS, "skeleton": COCO_SKELETON, "flip": COCO_FLIP}
    convs = counted(tensors, conv, first, step)
    return {"use": True, **names, "convs": convs, "channels": channels, "score": score}
