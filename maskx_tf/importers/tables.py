"""Which tensor of a torchvision, detectron2 or Detectron file becomes which variable: one table for each.

The tables follow a model's configuration, so they ask for exactly what that model has. What differs from source to
source is how the parts are called; the structure of a part is written once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from maskx_tf.config import ModelConfig
from maskx_tf.errors import BadInput
from maskx_tf.importers.fill import (
    CONV,
    DECONV,
    DENSE,
    UNCHANGED,
    Assignment,
    Layout,
    VariableTable,
    dense_on_map,
    filters,
    rows,
)
from maskx_tf.layers.resnet import VARIANTS

# Why rows of a tensor are left out.
BACKGROUND = "background rows of boxes and masks: nothing reads them"
TABLE_BACKGROUND = "the background's row of the table that T reads"
Ends = tuple[str, str]  # suffixes of the names of a weight and of a bias
TORCH_ENDS, CAFFE_ENDS = (".weight", ".bias"), ("_w", "_b")
# The convolutions of a bottleneck, as Caffe's models and their heirs call them.
CAFFE_PARTS = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}


class ClassOrder(NamedTuple):
    """Where the classes stand in a file.

    Attributes:
        total: classes in the file, background included.
        background: index of the background.
        foreground: indices of the classes to take, in our order.
        boxes_have_background: boxes and masks have rows for the background too.
        leaves: why rows of boxes and masks are left out; empty if none are.
        class_leaves: the same for class scores.
    """

    total: int
    background: int
    foreground: tuple[int, ...]
    boxes_have_background: bool
    leaves: str = ""
    class_leaves: str = ""


class Block(NamedTuple):
    """One convolution of a ResNet.

    Attributes:
        variable: the path of the variable in our model.
        stage: 2 to 5, or 1 for the stem.
        number: the number of its bottleneck in the stage, from 0.
        part: conv1, conv2, conv3, shortcut, or stem.
    """

    variable: str
    stage: int
    number: int
    part: str


def resnet_blocks(config: ModelConfig) -> Iterator[Block]:
    """Every convolution of the backbone, res5 of the box head included where it stands there.

    Raises:
        BadInput: the backbone is no ResNet, because an override says so.
    """
    if config.backbone.name not in VARIANTS:
        raise BadInput(f"model.backbone.name: expected the ResNet of the file, found {config.backbone.name}")
    yield Block("backbone/stem", 1, 0, "stem")
    for stage, count in enumerate(VARIANTS[config.backbone.name].blocks, start=2):
        home = "box_head" if stage == 5 and config.backbone.neck == "c4" else "backbone"
        for index in range(count):
            for part in ("conv1", "conv2", "conv3", *(("shortcut",) if index == 0 else ())):
                yield Block(f"{home}/res{stage}/block{index}/{part}", stage, index, part)


def norm_names(config: ModelConfig) -> tuple[str, str, str, str]:
    """Returns our names for the scale, shift, mean and variance of a convolution's batch norm."""
    if config.backbone.norm == "batch":
        return "norm/gamma", "norm/beta", "norm/moving_mean", "norm/moving_variance"
    return "gamma", "beta", "mean", "variance"


def torchvision(config: ModelConfig, order: ClassOrder) -> VariableTable:
    """Faster, Mask and Keypoint R-CNN of torchvision, under its names since 0.13."""
    return VariableTable(
        (
            *_torch_resnet(config, _torchvision_block),
            *_fpn("backbone.fpn.inner_blocks.{}.0", "backbone.fpn.layer_blocks.{}.0", first=0),
            *_rpn("rpn.head.conv.0.0", "rpn.head.cls_logits", "rpn.head.bbox_pred"),
            *_box_head(config, [f"roi_heads.box_head.fc{6 + index}" for index in range(config.box.layers)]),
            *_predictor("roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred", config, order),
            *_mask_head(
                config,
                order,
                "roi_heads.mask_head.{}.0",
                "roi_heads.mask_predictor.conv5_mask",
                "roi_heads.mask_predictor.mask_fcn_logits",
                first=0,
            ),
            *_keypoint_head(
                config,
                "roi_heads.keypoint_head.{}",
                "roi_heads.keypoint_predictor.kps_score_lowres",
                first=0,
                step=2,  # ReLUs lie between them
            ),
        )
    )


def detectron2(config: ModelConfig, order: ClassOrder) -> VariableTable:
    """detectron2's R-CNNs with necks FPN, C4 and DC5."""
    body = "backbone.bottom_up" if config.backbone.neck == "fpn" else "backbone"

    def block(block: Block) -> tuple[str, str]:
        home = "roi_heads" if block.variable.startswith("box_head") else body
        conv = f"{body}.stem.conv1" if block.part == "stem" else f"{home}.res{block.stage}.{block.number}.{block.part}"
        return conv, f"{conv}.norm"

    has_fpn, rpn = config.backbone.neck == "fpn", "proposal_generator.rpn_head"
    return VariableTable(
        (
            *_torch_resnet(config, block),
            *(_fpn("backbone.fpn_lateral{}", "backbone.fpn_output{}", first=2) if has_fpn else ()),
            *_rpn(f"{rpn}.conv", f"{rpn}.objectness_logits", f"{rpn}.anchor_deltas"),
            *_box_head(config, [f"roi_heads.box_head.fc{index + 1}" for index in range(config.box.layers)]),
            *_predictor("roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred", config, order),
            *_mask_head(
                config,
                order,
                "roi_heads.mask_head.mask_fcn{}",
                "roi_heads.mask_head.deconv",
                "roi_heads.mask_head.predictor",
                first=1,
            ),
            *_keypoint_head(
                config, "roi_heads.keypoint_head.conv_fcn{}", "roi_heads.keypoint_head.score_lowres", first=1, step=1
            ),
        )
    )


def detectron(config: ModelConfig, order: ClassOrder, embedding: str = "") -> VariableTable:
    """R-CNNs of Detectron and seg_every_thing; affine layers stand for batch norm, whose statistics are folded in.

    Args:
        config: the configuration of the model.
        order: the order of the classes in the file.
        embedding: the blob with the table that T reads; empty if it reads none.
    """
    gamma, beta, mean, variance = norm_names(config)
    entries, constants = [], {}
    for block in resnet_blocks(config):
        conv, norm = detectron_block(block)
        entries.append(Assignment(f"{block.variable}/kernel", f"{conv}_w", CONV))
        entries.append(Assignment(f"{block.variable}/{gamma}", f"{norm}_s", UNCHANGED))
        entries.append(Assignment(f"{block.variable}/{beta}", f"{norm}_b", UNCHANGED))
        # So that variance + epsilon is one and the scale is gamma itself.
        constants[f"{block.variable}/{mean}"] = 0.0
        constants[f"{block.variable}/{variance}"] = 1.0 - config.backbone.norm_epsilon
    pyramid = config.backbone.neck == "fpn"
    level = "_fpn2" if pyramid else ""
    entries += [
        *(_detectron_fpn(config) if pyramid else ()),
        *_rpn(f"conv_rpn{level}", f"rpn_cls_logits{level}", f"rpn_bbox_pred{level}", ends=CAFFE_ENDS),
        *_box_head(config, [f"fc{6 + index}" for index in range(config.box.layers)], ends=CAFFE_ENDS),
        *_predictor("cls_score", "bbox_pred", config, order, ends=CAFFE_ENDS),
        *_mask_head(config, order, "_[mask]_fcn{}", "conv5_mask", "mask_fcn_logits", first=1, ends=CAFFE_ENDS),
        *_transfer(config),
    ]
    if embedding:
        entries.append(Assignment("table", embedding, rows(order.foreground, order.total), TABLE_BACKGROUND))
    return VariableTable(tuple(entries), constants)


def detectron_block(block: Block) -> tuple[str, str]:
    """The names of a convolution and of its affine layer."""
    if block.part == "stem":
        return "conv1", "res_conv1_bn"
    conv = f"res{block.stage}_{block.number}_{CAFFE_PARTS[block.part]}"
    return conv, f"{conv}_bn"


def _torchvision_block(block: Block) -> tuple[str, str]:
    if block.part == "stem":
        return "backbone.body.conv1", "backbone.body.bn1"
    home = f"backbone.body.layer{block.stage - 1}.{block.number}"
    if block.part == "shortcut":
        return f"{home}.downsample.0", f"{home}.downsample.1"
    return f"{home}.{block.part}", f"{home}.{block.part.replace('conv', 'bn')}"


def _torch_resnet(config: ModelConfig, name: Callable[[Block], tuple[str, str]]) -> Iterator[Assignment]:
    for block in resnet_blocks(config):
        conv, norm = name(block)
        yield Assignment(f"{block.variable}/kernel", f"{conv}.weight", CONV)
        for ours, theirs in zip(norm_names(config), ("weight", "bias", "running_mean", "running_var"), strict=True):
            yield Assignment(f"{block.variable}/{ours}", f"{norm}.{theirs}", UNCHANGED)


def _pair(variable: str, tensor: str, layout: Layout, ends: Ends = TORCH_ENDS) -> Iterator[Assignment]:
    """Kernel and bias of a layer."""
    yield Assignment(f"{variable}/kernel", tensor + ends[0], layout)
    yield Assignment(f"{variable}/bias", tensor + ends[1], UNCHANGED)


def _fpn(lateral: str, output: str, first: int) -> Iterator[Assignment]:
    for level in range(2, 6):
        yield from _pair(f"fpn/lateral{level}", lateral.format(level - 2 + first), CONV)
        yield from _pair(f"fpn/output{level}", output.format(level - 2 + first), CONV)


def _detectron_fpn(config: ModelConfig) -> Iterator[Assignment]:
    for level, count in enumerate(VARIANTS[config.backbone.name].blocks, start=2):
        blob = f"res{level}_{count - 1}_sum"
        yield from _pair(f"fpn/lateral{level}", f"fpn_inner_{blob}{'' if level == 5 else '_lateral'}", CONV, CAFFE_ENDS)
        yield from _pair(f"fpn/output{level}", f"fpn_{blob}", CONV, CAFFE_ENDS)


def _rpn(conv: str, objectness: str, deltas: str, ends: Ends = TORCH_ENDS) -> Iterator[Assignment]:
    for variable, tensor in (("conv", conv), ("objectness", objectness), ("deltas", deltas)):
        yield from _pair(f"rpn/{variable}", tensor, CONV, ends)


def _box_head(config: ModelConfig, layers: list[str], ends: Ends = TORCH_ENDS) -> Iterator[Assignment]:
    if config.backbone.neck == "c4":
        return  # it is res5
    for index, tensor in enumerate(layers):
        layout = dense_on_map(config.roi.box_size) if index == 0 else DENSE
        yield from _pair(f"box_head/fc{index + 1}", tensor, layout, ends)


def _own_rows(order: ClassOrder) -> tuple[tuple[int, ...], int]:
    """Indices of our classes among the rows of boxes and masks, and how many rows those have."""
    return order.foreground, order.total if order.boxes_have_background else order.total - 1


def _predictor(
    scores: str, boxes: str, config: ModelConfig, order: ClassOrder, ends: Ends = TORCH_ENDS
) -> Iterator[Assignment]:
    chosen = rows((order.background, *order.foreground), order.total)
    yield Assignment("box_predictor/class_rows", scores + ends[0], chosen, order.class_leaves)
    yield Assignment("box_predictor/class_bias", scores + ends[1], chosen, order.class_leaves)
    own, total = _own_rows(order)
    if config.box.class_agnostic:  # one box, behind one for the background in Detectron
        own, total = ((1,), 2) if order.boxes_have_background else ((0,), 1)
    four = rows(own, total, each=4)
    yield Assignment("box_predictor/box_rows", boxes + ends[0], four, order.leaves)
    yield Assignment("box_predictor/box_bias", boxes + ends[1], four, order.leaves)


def _mask_head(
    config: ModelConfig, order: ClassOrder, conv: str, deconv: str, predictor: str, first: int, ends: Ends = TORCH_ENDS
) -> Iterator[Assignment]:
    if "masks" not in config.outputs:
        return
    for index in range(config.mask.convs):
        yield from _pair(f"mask_head/trunk/conv{index + 1}", conv.format(index + first), CONV, ends)
    yield Assignment("mask_head/trunk/deconv_kernel", deconv + ends[0], DECONV)
    yield Assignment("mask_head/trunk/deconv_bias", deconv + ends[1], UNCHANGED)
    if not config.has_transfer:
        own, total, leaves = ((0,), 1, "") if config.mask.outputs == "agnostic" else (*_own_rows(order), order.leaves)
        yield Assignment("mask_head/predictor/rows", predictor + ends[0], filters(own, total), leaves)
        yield Assignment("mask_head/predictor/bias", predictor + ends[1], rows(own, total), leaves)
    if config.mask.mlp_branch == "reference":
        layout = dense_on_map(config.mask_side)
        yield from _pair("mask_head/mlp_branch/fc", "mask_mlp_logits_raw", layout, ends)


def _keypoint_head(config: ModelConfig, conv: str, deconv: str, first: int, step: int) -> Iterator[Assignment]:
    """The convolutions, whose names have numbers from `first` on, `step` apart, and the deconvolution."""
    if not config.keypoint.use:
        return
    for index in range(config.keypoint.convs):
        yield from _pair(f"keypoint_head/conv{index + 1}", conv.format(first + step * index), CONV)
    yield Assignment("keypoint_head/deconv_kernel", f"{deconv}.weight", CONV)  # inputs first, which is turned around
    yield Assignment("keypoint_head/deconv_bias", f"{deconv}.bias", UNCHANGED)


def _transfer(config: ModelConfig) -> Iterator[Assignment]:
    """T of seg_every_thing: hidden layers under one name, the last under another, whatever their number."""
    if not config.has_transfer:
        return
    hidden = [f"bbox2mask_mlp_l{index + 1}" for index in range(config.transfer.layers - 1)]
    for index, tensor in enumerate([*hidden, "mask_fcn_logits_w_flat"]):
        yield from _pair(f"transfer/fc{index + 1}", tensor, DENSE, CAFFE_ENDS)
