"""From a configuration to a model: here, in `build_masks` and in `fcis.family` settings become layers and functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from maskx_tf.config import ModelConfig
from maskx_tf.errors import BadInput, listed
from maskx_tf.layers.applications import NETWORKS, Application
from maskx_tf.layers.box_head import BoxPredictor, FullyConnectedHead, Res5Head, Res5Pool
from maskx_tf.layers.fpn import FPN, LastMap
from maskx_tf.layers.keypoint_head import KeypointHead
from maskx_tf.layers.parts import LayerConfig, Shape, dtype_policy
from maskx_tf.layers.resnet import ResNet
from maskx_tf.layers.roi_pool import RoiPooler
from maskx_tf.layers.rpn import RPNHead
from maskx_tf.models import build_masks
from maskx_tf.models.boxes import BoxBranch, DetectionFilter, RegionSampler
from maskx_tf.models.fcis import family as fcis_family
from maskx_tf.models.keypoints import KeypointBranch
from maskx_tf.models.proposals import AnchorGrid, AnchorSampler, ProposalFilter, ProposalStage
from maskx_tf.models.rcnn import RCNN, Normaliser

# Keyword arguments of a class.
Arguments = dict[str, Any]


def build(config: ModelConfig, *, portable: bool = False) -> RCNN:
    """A model with fresh weights, in Keras' current dtype policy.

    Args:
        config: the `model` section; `class_names` says how many classes there are, `keypoint.names` how many keypoints.
        portable: whether to use only operations that XLA and LiteRT can compile. The model is then slower to train,
            and on a CPU slower without XLA.

    Raises:
        BadInput: no class or no keypoint is named, or a file that the configuration names does not fit.
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
    model.origin = {"settings": config.model_dump_json(), "portable": portable}
    return model


def of_config(origin: LayerConfig, learning_parts: list[str], dtype: str) -> RCNN:
    """The model of `RCNN.get_config`, with fresh weights: those of its file follow."""
    config = ModelConfig.model_validate_json(origin["settings"])
    fresh = config.model_copy(update={"backbone": config.backbone.model_copy(update={"weights": "none"})})
    with dtype_policy(dtype):
        model = build(fresh, portable=origin["portable"])
    model.origin = origin
    model.learn(learning_parts)
    return model


def _faster_rcnn(config: ModelConfig, portable: bool) -> RCNN:
    trunk = _trunk(config, portable)
    return RCNN(**trunk, branches=_keypoints(config, trunk["box"], portable), name=config.family)


def _mask_rcnn(config: ModelConfig, portable: bool) -> RCNN:
    trunk = _trunk(config, portable)
    branch = build_masks.masks_of_classes(config, _mask_pool(config, trunk["box"], portable), trunk["box"], portable)
    return RCNN(**trunk, mask=branch, branches=_keypoints(config, trunk["box"], portable), name=config.family)


def _mask_x_rcnn(config: ModelConfig, portable: bool) -> RCNN:
    trunk = _trunk(config, portable)
    pool = _mask_pool(config, trunk["box"], portable)
    branch, table = build_masks.transferred_masks(config, pool, trunk["box"], portable)
    model = RCNN(**trunk, mask=branch, branches=_keypoints(config, trunk["box"], portable), name=config.family)
    if table is not None:
        model.table = table  # so that Keras keeps it with the weights
    return model


def _fcis(config: ModelConfig, portable: bool) -> RCNN:
    backbone = _backbone(config)
    head = RPNHead(_anchors_a_cell(config), channels=config.fcis.rpn_channels, pair=True, name="rpn")
    proposals = _proposals(config, head, backbone.strides[-1:], portable)
    return fcis_family.model(config, portable, _normaliser(config), backbone, proposals)


FAMILIES: dict[str, Callable[[ModelConfig, bool], RCNN]] = {
    "faster_rcnn": _faster_rcnn,
    "mask_rcnn": _mask_rcnn,
    "mask_x_rcnn": _mask_x_rcnn,
    "fcis": _fcis,
}


def _trunk(config: ModelConfig, portable: bool) -> Arguments:
    """The arguments of `RCNN` that every family has."""
    backbone = _backbone(config)
    neck = config.backbone.neck
    pyramid = neck == "fpn"
    strides = backbone.strides if pyramid else (backbone.strides[-1],)
    sampler = _region_sampler(config)
    channels = config.backbone.fpn_channels if pyramid else backbone.channels[-1]
    head = RPNHead(_anchors_a_cell(config), channels=channels, name="rpn")
    return {
        "normaliser": _normaliser(config),
        "backbone": backbone,
        "neck": FPN(config.backbone.fpn_channels, name="fpn") if pyramid else LastMap(name="last_map"),
        "rpn": _proposals(config, head, (*strides, 2 * strides[-1]) if pyramid else strides, portable),
        "sampler": sampler,
        "box": _box_branch(config, strides, sampler, portable),
    }


def _normaliser(config: ModelConfig) -> Normaliser:
    return Normaliser(config.input.pixel_mean, config.input.pixel_std, config.input.channel_order == "bgr")


def _anchors_a_cell(config: ModelConfig) -> int:
    return len(config.anchors.sizes[0]) * len(config.anchors.ratios)


def _proposals(config: ModelConfig, head: RPNHead, strides: Sequence[int], portable: bool) -> ProposalStage:
    rpn, anchors = config.rpn, config.anchors
    # The kernel that is the fastest on a CPU has no form for GPUs, and would wait for copies of every level.
    portable = portable or bool(tf.config.list_physical_devices("GPU"))
    train, test = (
        ProposalFilter(before, after, rpn.nms_iou, rpn.min_size, portable)
        for before, after in ((rpn.pre_nms_train, rpn.post_nms_train), (rpn.pre_nms_test, rpn.post_nms_test))
    )
    return ProposalStage(
        head,
        AnchorGrid(tuple(strides), anchors.sizes, anchors.ratios, anchors.rounding, anchors.order),
        sampler=AnchorSampler(
            size=rpn.samples,
            foreground_fraction=rpn.positive_fraction,
            foreground_iou=rpn.positive_iou,
            background_iou=rpn.negative_iou,
            ignore_straddling=rpn.ignore_straddling,
        ),
        train=train,
        test=test,
        normaliser=rpn.normaliser,
        beta=rpn.smooth_l1_beta,
    )


def _region_sampler(config: ModelConfig) -> RegionSampler:
    box = config.box
    return RegionSampler(
        size=box.rois,
        foreground_fraction=box.positive_fraction,
        foreground_iou=box.positive_iou,
        background_iou=box.background_iou,
        weights=box.delta_weights,
    )


def _box_branch(config: ModelConfig, strides: Sequence[int], sampler: RegionSampler, portable: bool) -> BoxBranch:
    box = config.box
    head: keras.layers.Layer
    if config.backbone.neck == "c4":
        head = Res5Head(**_resnet_options(config), name="box_head")
    else:
        head = FullyConnectedHead(box.width, layers=box.layers, name="box_head")
    return BoxBranch(
        pool=_pool(config, config.roi.box_size, strides, portable, "box_pool"),
        head=head,
        predictor=BoxPredictor(len(config.class_names), class_agnostic=box.class_agnostic, name="box_predictor"),
        filter=DetectionFilter.of(config.detections),
        delta_weights=box.delta_weights,
        beta=box.smooth_l1_beta,
        foreground=sampler.foreground,
    )


def _keypoints(config: ModelConfig, box: BoxBranch, portable: bool) -> tuple[KeypointBranch, ...]:
    """The keypoint branch, if the model has one."""
    settings = config.keypoint
    if not settings.use:
        return ()
    if not settings.names:
        raise BadInput("model.keypoint.names is empty, expected the names of the keypoints")
    if unknown := set(settings.classes).difference(config.class_names):
        raise BadInput(f"model.keypoint.classes: expected classes of model.class_names, found {listed(unknown)}")
    branch = KeypointBranch(
        pool=_head_pool(config, config.roi.keypoint_size, box, portable, "keypoint"),
        head=KeypointHead(len(settings.names), channels=settings.channels, convs=settings.convs, name="keypoint_head"),
        classes=tuple(number for number, name in enumerate(config.class_names, 1) if name in settings.classes),
        foreground=box.foreground,
        normaliser=settings.normaliser,
        score=settings.score,
        portable=portable,
    )
    return (branch,)


def _resnet_options(config: ModelConfig) -> Arguments:
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
        stem_pool=settings.stem_pool,
        non_local=settings.non_local,
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


def _mask_pool(config: ModelConfig, box: BoxBranch, portable: bool) -> keras.layers.Layer:
    return _head_pool(config, config.roi.mask_size, box, portable, "mask")


def _head_pool(config: ModelConfig, size: int, box: BoxBranch, portable: bool, head: str) -> keras.layers.Layer:
    """The pooler of the mask or keypoint head; without a pyramid, with the box head's res5 behind it."""
    pool = _pool(config, size, box.pool.strides, portable, f"{head}_pool")
    return Res5Pool(pool, box.head, name=f"{head}_res5") if config.backbone.neck == "c4" else pool


def _build_layers(model: RCNN, config: ModelConfig) -> None:
    """Makes all variables, under the names of their layers alone; no forward pass is needed."""
    height, width = config.input.canvas
    model.backbone.build((None, height, width, 3))
    maps = _map_shapes(model.backbone, height, width)
    model.neck.build(maps)
    levels = model.neck.compute_output_shape(maps)
    channels = levels[-1][-1]
    model.rpn.head.build(levels)
    model.box.build(channels)
    for branch in model.branches:
        branch.build(2048 if config.backbone.neck == "c4" else channels)  # there res5 lies between pooling and branch
    model.built = True


def _map_shapes(backbone: keras.layers.Layer, height: int, width: int) -> list[Shape]:
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
