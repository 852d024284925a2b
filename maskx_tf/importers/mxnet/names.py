"""Which tensor of an MXNet file of FCIS or R-FCN becomes which variable."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import numpy as np

from maskx_tf.config import ModelConfig
from maskx_tf.importers.fill import CONV, UNCHANGED, ArrayShape, Assignment, Layout, VariableTable
from maskx_tf.importers.tables import CAFFE_PARTS, Block, norm_names, resnet_blocks

# The maps of scores and of boxes, of FCIS and of R-FCN.
MXNET_MAPS = {True: ("fcis_cls_seg", "fcis_bbox"), False: ("rfcn_cls", "rfcn_bbox")}
BACKGROUND_BOX = "box deltas of the background: nothing reads them"
STATISTICS = ("gamma", "beta", "moving_mean", "moving_var")


def block_labels(names: Iterable[str]) -> dict[int, list[str]]:
    """Returns a file's names for the blocks of each stage, in order: a, b, c, ... or a, b1, b2, ..."""
    found: dict[int, set[str]] = {}
    for name in names:
        match = re.fullmatch(r"res(\d)([a-z]\d*)_branch2b_weight", name)
        if match:
            found.setdefault(int(match.group(1)), set()).add(match.group(2))
    return {stage: sorted(labels, key=lambda label: (label[0], int(label[1:] or 0))) for stage, labels in found.items()}


def conv_and_norm(block: Block, labels: dict[int, list[str]]) -> tuple[str, str]:
    """The names of a convolution and of its batch norm: res4b3_branch2a and bn4b3_branch2a."""
    if block.part == "stem":
        return "conv1", "bn_conv1"
    rest = f"{block.stage}{labels[block.stage][block.number]}_{CAFFE_PARTS[block.part]}"
    return f"res{rest}", f"bn{rest}"


def table(config: ModelConfig, labels: dict[int, list[str]]) -> VariableTable:
    """Family fcis, with masks or without.

    Args:
        config: the configuration of the model.
        labels: see `block_labels`.
    """
    entries: list[Assignment] = []
    for block in resnet_blocks(config):
        conv, norm = conv_and_norm(block, labels)
        entries.append(Assignment(f"{block.variable}/kernel", f"{conv}_weight", CONV))
        entries += [
            Assignment(f"{block.variable}/{ours}", f"{norm}_{theirs}", UNCHANGED)
            for ours, theirs in zip(norm_names(config), STATISTICS, strict=True)
        ]
    masks = "masks" in config.outputs
    scores, boxes = MXNET_MAPS[masks]
    group = config.fcis.group
    pairs = [
        ("neck/conv", "conv_new_1", CONV, UNCHANGED, ""),
        ("rpn/conv", "rpn_conv_3x3", CONV, UNCHANGED, ""),
        ("rpn/objectness", "rpn_cls_score", CONV, UNCHANGED, ""),
        ("rpn/deltas", "rpn_bbox_pred", CONV, UNCHANGED, ""),
        ("maps/scores", scores, *score_layouts(group, 2 if masks else 1), ""),
        ("maps/deltas", boxes, *box_layouts(group), BACKGROUND_BOX),
    ]
    for variable, tensor, kernel, bias, leaves in pairs:
        entries.append(Assignment(f"{variable}/kernel", f"{tensor}_weight", kernel, leaves))
        entries.append(Assignment(f"{variable}/bias", f"{tensor}_bias", bias, leaves))
    return VariableTable(tuple(entries))


def score_layouts(group: int, parts: int) -> tuple[Layout, Layout]:
    """Kernel and bias of the scores: from channels [class, part, cell] to [cell, part, class]."""

    def convert(array: np.ndarray) -> np.ndarray:
        rest = array.shape[1:]
        grouped = array.reshape(-1, parts, group * group, *rest)
        return grouped.transpose(2, 1, 0, *range(3, grouped.ndim)).reshape(-1, *rest)

    return _through(convert, lambda channels: channels)


def box_layouts(group: int) -> tuple[Layout, Layout]:
    """Kernel and bias of the deltas: the foreground's of channels [background or not, delta, cell] to [cell, delta]."""

    def convert(array: np.ndarray) -> np.ndarray:
        rest = array.shape[1:]
        grouped = array.reshape(2, 4, group * group, *rest)[1]
        return grouped.transpose(1, 0, *range(2, grouped.ndim)).reshape(-1, *rest)

    return _through(convert, lambda channels: 2 * channels)


def _through(convert: Callable[[np.ndarray], np.ndarray], count: Callable[[int], int]) -> tuple[Layout, Layout]:
    """Layouts of a kernel OIHW and of a bias whose channels are sorted otherwise."""

    def kernel_shape(shape: ArrayShape) -> ArrayShape:
        return (count(shape[3]), shape[2], shape[0], shape[1])

    return (
        Layout(lambda array: CONV.convert(convert(array)), kernel_shape),
        Layout(convert, lambda shape: (count(shape[0]),)),
    )
