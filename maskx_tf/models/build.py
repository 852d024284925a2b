"""From a configuration to a model: the only place where settings become layers and functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from maskx_tf.config import ModelConfig
from maskx_tf.errors import BadInput
from maskx_tf.layers.applications import NETWORKS, Application
from maskx_tf.layers.box_head import BoxPredictor, FullyConnectedHead, Res5Head, Res5Pool
from maskx_tf.layers.fpn import FPN, LastMap
from maskx_tf.layers.mask_head import FCNMaskHead, MLPMaskHead, TransferredMaskHead
from maskx_tf.layers.mask_parts import MaskPredictor, MaskTrunk, MLPBranch
from maskx_tf.layers.resnet import ResNet
from maskx_tf.layers.roi_pool import RoiPooler
from maskx_tf.layers.rpn import RPNHead
from maskx_tf.layers.transfer import Transfer
from maskx_tf.models.mask_rcnn import MaskRCNN, SoftmaxMaskRCNN
from maskx_tf.models.mask_x_rcnn import MaskXRCNN, TableMaskXRCNN
from maskx_tf.models.rcnn import RCNN
from maskx_tf.models.steps import steps_of

# The scale of class-agnostic filters at the start: the reference found larger ones to diverge.
AGNOSTIC_STDDEV = 0.001


def build(config: ModelConfig, *, portable: bool = False) -> RCNN:
    """A model with fresh weights, in Keras' current dtype policy.

    Args:
        config: the `model` section; `class_names` says how many classes there are.
        portable: of operations that XLA and LiteRT can compile: slower to train, on a CPU slower without XLA.

    Raises:
        BadInput: no class is named, or a file that the configuration names does not fit.
    """
    if not config.class_names:
        raise BadInput("model.class_names is empty, expected the names of the classes")
    if portable and config.roi.op != "align":
        raise BadInput(
            f"model.roi.op is {config.roi.op}, expected align: nothing else compiles under XLA and for LiteRT"
        )
    model = FAMILIES[config.family](config, portable)
    _build_layers(model, config)
    if config.backbone.weights != "none":
        _load_backbone(model, config.backbone.weights)
    return model


def _faster_rcnn(config: ModelConfig, portable: bool) -> RCNN:
    return RCNN(**_trunk(config, portable), name=config.family)


def _mask_rcnn(config: ModelConfig, portable: bool) -> RCNN:
    parts = _trunk(config, portable)
    parts["mask_pool"] = _mask_pool(config, parts, portable)
    mask, classes = config.mask, len(config.class_names)
    outputs = 1 if mask.outputs == "agnostic" else classes
    if mask.head == "mlp":
        head = MLPMaskHead(
            outputs, side=2 * parts["mask_pool"].size, width=mask.mlp_width, layers=mask.mlp_layers, name="mask_head"
        )
        return MaskRCNN(**parts, mask_head=head, name=config.family)
    softmax = mask.activation == "softmax"
    predictor = MaskPredictor(
        outputs + 1 if softmax else outputs, stddev=AGNOSTIC_STDDEV if outputs == 1 else None, name="predictor"
    )
    head = FCNMaskHead(_mask_trunk(config), predictor, _branches(config, parts), name="mask_head")
    return (SoftmaxMaskRCNN if softmax else MaskRCNN)(**parts, mask_head=head, name=config.family)


def _mask_x_rcnn(config: ModelConfig, portable: bool) -> RCNN:
    parts = _trunk(config, portable)
    parts["mask_pool"] = _mask_pool(config, parts, portable)
    parts["mask_head"] = TransferredMaskHead(_mask_trunk(config), _branches(config, parts), name="mask_head")
    settings = config.transfer
    features = 2048 if config.backbone.neck == "c4" else config.box.width
    sizes = {"cls": (features,), "box": (4 * features,), "cls_box": (features, 4 * features)}
    if settings.input == "embedding":
        table = _read_table(str(settings.embedding), len(config.class_names))
        sizes["embedding"] = (table.shape[1],)
        parts["table"] = keras.Variable(table, trainable=False, name="table")
        family: Any = TableMaskXRCNN
    else:
        parts["input"] = settings.input
        family = MaskXRCNN
    transfer = Transfer(
        config.mask.channels,
        layers=settings.layers,
        activation=settings.activation,
        init=settings.init,
        unit_rms=sizes[settings.input] if settings.unit_rms else (),
        name="transfer",
    )
    transfer.build((None, sum(sizes[settings.input])))
    return family(**parts, transfer=transfer, stop_gradient=settings.stop_gradient, name=config.family)


FAMILIES: dict[str, Callable[[ModelConfig, bool], RCNN]] = {
    "faster_rcnn": _faster_rcnn,
    "mask_rcnn": _mask_rcnn,
    "mask_x_rcnn": _mask_x_rcnn,
}


def _trunk(config: ModelConfig, portable: bool) -> dict[str, Any]:
    """The parts that every family has."""
    backbone = _backbone(config)
    neck = config.backbone.neck
    pyramid = neck == "fpn"
    strides = backbone.strides if pyramid else (backbone.strides[-1],)
    anchors = len(config.anchors.sizes[0]) * len(config.anchors.ratios)
    if neck == "c4":
        box_head: keras.layers.Layer = Res5Head(**_resnet_options(config), name="box_head")
    else:
        box_head = FullyConnectedHead(config.box.width, layers=config.box.layers, name="box_head")
    return {
        "backbone": backbone,
        "neck": FPN(config.backbone.fpn_channels, name="fpn") if pyramid else LastMap(name="last_map"),
        "rpn": RPNHead(
            anchors, channels=backbone.channels[-1] if not pyramid else config.backbone.fpn_channels, name="rpn"
        ),
        "box_pool": _pool(config, config.roi.box_size, strides, portable, "box_pool"),
        "box_head": box_head,
        "box_predictor": BoxPredictor(
            len(config.class_names), class_agnostic=config.box.class_agnostic, name="box_predictor"
        ),
        "steps": steps_of(config, (*strides, 2 * strides[-1]) if pyramid else strides, portable),
    }


def _resnet_options(config: ModelConfig) -> dict[str, Any]:
    settings = config.backbone
    return {
        "variant": settings.name,
        "stride_in_1x1": settings.stride_in_1x1,
        "norm": settings.norm,
        "epsilon": settings.norm_epsilon,
    }


def _backbone(config: ModelConfig) -> keras.layers.Layer:
    settings = config.backbone
    if settings.name in NETWORKS:
        return Application(
            settings.name,
            frozen_norm=settings.norm == "frozen_batch",
            frozen_stages=settings.frozen_stages,
            name="backbone",
        )
    return ResNet(
        **_resnet_options(config),
        last_stage=4 if settings.neck == "c4" else 5,
        dilate_last=settings.neck == "dc5",
        frozen_stages=settings.frozen_stages,
        name="backbone",
    )


def _pool(config: ModelConfig, size: int, strides: Sequence[int], portable: bool, name: str) -> RoiPooler:
    roi = config.roi
    return RoiPooler(
        size,
        strides=tuple(strides),
        op=roi.op,
        aligned=roi.aligned,
        samples=roi.samples,
        reduce=roi.reduce,
        level_epsilon=roi.level_epsilon,
        gather=portable,
        name=name,
    )


def _mask_pool(config: ModelConfig, parts: dict[str, Any], portable: bool) -> keras.layers.Layer:
    pool = _pool(config, config.roi.mask_size, parts["box_pool"].strides, portable, "mask_pool")
    return Res5Pool(pool, parts["box_head"], name="mask_res5") if config.backbone.neck == "c4" else pool


def _mask_trunk(config: ModelConfig) -> MaskTrunk:
    return MaskTrunk(config.mask.channels, convs=config.mask.convs, name="trunk")


def _branches(config: ModelConfig, parts: dict[str, Any]) -> tuple[MLPBranch, ...]:
    branch = config.mask.mlp_branch
    return () if branch == "none" else (MLPBranch(branch, side=2 * parts["mask_pool"].size, name="mlp_branch"),)


def _read_table(path: str, classes: int) -> np.ndarray:
    try:
        table = np.load(Path(path), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: no .npy table: {error}") from None
    if table.ndim != 2 or len(table) != classes or not np.issubdtype(table.dtype, np.floating):
        raise BadInput(f"{path}: a {table.dtype} array of shape {table.shape}, expected floats [{classes}, size]")
    if not np.isfinite(table).all():
        raise BadInput(f"{path}: row {int(np.argwhere(~np.isfinite(table))[0, 0])} has a number that is not finite")
    return table.astype(np.float32)


def _build_layers(model: RCNN, config: ModelConfig) -> None:
    """Makes all variables, under the names of their layers alone; no forward pass is needed."""
    height, width = config.input.canvas
    model.backbone.build((None, height, width, 3))
    maps = _map_shapes(model.backbone, height, width)
    if config.backbone.neck == "fpn":
        model.neck.build(maps)
        channels = config.backbone.fpn_channels
    else:
        channels = maps[-1][-1]
    model.rpn.build([(None, None, None, channels)])
    model.box_head.build((None, None, config.roi.box_size, config.roi.box_size, channels))
    width_of_vectors = 2048 if config.backbone.neck == "c4" else config.box.width
    model.box_predictor.build((None, None, width_of_vectors))
    if isinstance(model, MaskRCNN):
        pooled = model.mask_pool.size
        model.mask_head.build((None, None, pooled, pooled, 2048 if config.backbone.neck == "c4" else channels))
    model.built = True


def _map_shapes(backbone: keras.layers.Layer, height: int, width: int) -> list[tuple[Any, ...]]:
    return [
        (None, height // stride, width // stride, channels)
        for stride, channels in zip(backbone.strides, backbone.channels, strict=True)
    ]


def _load_backbone(model: RCNN, weights: str) -> None:
    if not isinstance(model.backbone, Application):
        raise BadInput(f"model.backbone.weights is {weights}, expected none: import a checkpoint and set train.weights")
    if weights != "imagenet" and not Path(weights).is_file():
        raise BadInput(f"model.backbone.weights: expected imagenet, none or a file, found no file {weights}")
    try:
        model.backbone.load_imagenet(weights)
    except Exception as error:
        if not isinstance(error, (OSError, ValueError)) and type(error) is not Exception:  # that is a failed download
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if weights == "imagenet":
            what = f"Keras could not download the weights: {reason}; name their file here, or none"
            raise BadInput(f"model.backbone.weights: imagenet: {what}") from None
        raise BadInput(f"{weights}: not the weights of this backbone: {reason}") from None
