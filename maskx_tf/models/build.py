"""From a configuration to a model: the only place where settings become layers and functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from maskx_tf.config import ModelConfig
from maskx_tf.errors import BadInput, reason
from maskx_tf.files import open_regular
from maskx_tf.layers.applications import NETWORKS, Application
from maskx_tf.layers.box_head import BoxPredictor, FullyConnectedHead, Res5Head, Res5Pool
from maskx_tf.layers.fpn import FPN, LastMap
from maskx_tf.layers.keypoint_head import KeypointHead
from maskx_tf.layers.mask_head import FCNMaskHead, MLPMaskHead, TransferredMaskHead
from maskx_tf.layers.mask_parts import MaskPredictor, MaskTrunk, MLPBranch
from maskx_tf.layers.mask_trunks import HourglassTrunk, PixelTrunk, ResidualTrunk, Trunk
from maskx_tf.layers.parts import Shape
from maskx_tf.layers.resnet import ResNet
from maskx_tf.layers.roi_pool import RoiPooler
from maskx_tf.layers.rpn import RPNHead
from maskx_tf.layers.transfer import Transfer
from maskx_tf.models.boxes import BoxBranch, DetectionFilter, RegionSampler
from maskx_tf.models.fcis import family as fcis_family
from maskx_tf.models.filters import BoxWeights, Embeddings, Table, TransferredFilters
from maskx_tf.models.keypoints import KeypointBranch
from maskx_tf.models.mask_losses import BoxLoss, MaskLoss, PixelLoss, SoftmaxLoss
from maskx_tf.models.masks import MaskBranch, MaskRegions, SampledRegions, TruthRegions
from maskx_tf.models.proposals import AnchorGrid, AnchorSampler, ProposalFilter, ProposalStage
from maskx_tf.models.rcnn import RCNN, Normaliser

# Keyword arguments of a class.
Arguments = dict[str, Any]
# The scale of class-agnostic filters at the start: the reference found larger ones to diverge.
AGNOSTIC_STDDEV = 0.001


def build(config: ModelConfig, *, portable: bool = False) -> RCNN:
    """A model with fresh weights, in Keras' current dtype policy.

    Args:
        config: the `model` section; `class_names` says how many classes there are, `keypoint.names` how many keypoints.
        portable: of operations that XLA and LiteRT can compile: slower to train, on a CPU slower without XLA.

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
    return model


def _faster_rcnn(config: ModelConfig, portable: bool) -> RCNN:
    trunk = _trunk(config, portable)
    return RCNN(**trunk, branches=_keypoints(config, trunk["box"], portable), name=config.family)


def _mask_rcnn(config: ModelConfig, portable: bool) -> RCNN:
    trunk = _trunk(config, portable)
    mask, classes = config.mask, len(config.class_names)
    pool = _head_pool(config, config.roi.mask_size, trunk["box"], portable, "mask")
    outputs = 1 if mask.outputs == "agnostic" else classes
    softmax = mask.activation == "softmax"
    head: keras.layers.Layer
    if mask.head == "mlp":
        side = mask.mlp_side or 2 * pool.size
        head = MLPMaskHead(outputs, side=side, width=mask.mlp_width, layers=mask.mlp_layers, name="mask_head")
    else:
        predictor = MaskPredictor(
            outputs + 1 if softmax else outputs, stddev=AGNOSTIC_STDDEV if outputs == 1 else None, name="predictor"
        )
        head = FCNMaskHead(_mask_trunk(config), predictor, _mlp_branches(config, pool), name="mask_head")
    branch = _mask_branch(config, pool, head, None, portable)
    return RCNN(**trunk, branches=(branch, *_keypoints(config, trunk["box"], portable)), name=config.family)


def _mask_x_rcnn(config: ModelConfig, portable: bool) -> RCNN:
    trunk = _trunk(config, portable)
    box: BoxBranch = trunk["box"]
    pool = _head_pool(config, config.roi.mask_size, box, portable, "mask")
    settings = config.transfer
    features = 2048 if config.backbone.neck == "c4" else config.box.width
    sizes = {"cls": (features,), "box": (4 * features,), "cls_box": (features, 4 * features)}
    table = None
    embeddings: Embeddings
    if settings.input == "embedding":
        rows = _read_table(str(settings.embedding), len(config.class_names))
        sizes["embedding"] = (rows.shape[1],)
        table = keras.Variable(rows, trainable=False, name="table")
        embeddings = Table(table)
    else:
        embeddings = BoxWeights(box.predictor, input=settings.input, stop_gradient=settings.stop_gradient)
    transfer = Transfer(
        config.mask.channels,
        layers=settings.layers,
        activation=settings.activation,
        init=settings.init,
        unit_rms=sizes[settings.input] if settings.unit_rms else (),
        name="transfer",
    )
    transfer.build((None, sum(sizes[settings.input])))
    head = TransferredMaskHead(_mask_trunk(config), _mlp_branches(config, pool), name="mask_head")
    branch = _mask_branch(config, pool, head, TransferredFilters(transfer, embeddings), portable)
    model = RCNN(**trunk, branches=(branch, *_keypoints(config, box, portable)), name=config.family)
    if table is not None:
        model.table = table  # so that Keras keeps it with the weights
    return model


def _fcis(config: ModelConfig, portable: bool) -> RCNN:
    backbone = _backbone(config)
    proposals = _proposals(config, backbone, backbone.strides[-1:], portable)
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
    return {
        "normaliser": _normaliser(config),
        "backbone": backbone,
        "neck": FPN(config.backbone.fpn_channels, name="fpn") if pyramid else LastMap(name="last_map"),
        "rpn": _proposals(config, backbone, (*strides, 2 * strides[-1]) if pyramid else strides, portable),
        "sampler": sampler,
        "box": _box_branch(config, strides, sampler, portable),
    }


def _normaliser(config: ModelConfig) -> Normaliser:
    return Normaliser(config.input.pixel_mean, config.input.pixel_std, config.input.channel_order == "bgr")


def _proposals(
    config: ModelConfig, backbone: keras.layers.Layer, strides: Sequence[int], portable: bool
) -> ProposalStage:
    rpn, anchors = config.rpn, config.anchors
    channels = config.backbone.fpn_channels if config.backbone.neck == "fpn" else backbone.channels[-1]
    train, test = (
        ProposalFilter(before, after, rpn.nms_iou, rpn.min_size, portable)
        for before, after in ((rpn.pre_nms_train, rpn.post_nms_train), (rpn.pre_nms_test, rpn.post_nms_test))
    )
    return ProposalStage(
        RPNHead(len(anchors.sizes[0]) * len(anchors.ratios), channels=channels, name="rpn"),
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
    box, found = config.box, config.detections
    head: keras.layers.Layer
    if config.backbone.neck == "c4":
        head = Res5Head(**_resnet_options(config), name="box_head")
    else:
        head = FullyConnectedHead(box.width, layers=box.layers, name="box_head")
    return BoxBranch(
        pool=_pool(config, config.roi.box_size, strides, portable, "box_pool"),
        head=head,
        predictor=BoxPredictor(len(config.class_names), class_agnostic=box.class_agnostic, name="box_predictor"),
        filter=DetectionFilter(found.score, found.nms_iou, found.limit),
        delta_weights=box.delta_weights,
        beta=box.smooth_l1_beta,
        foreground=sampler.foreground,
    )


def _mask_branch(
    config: ModelConfig,
    pool: keras.layers.Layer,
    head: keras.layers.Layer,
    filters: TransferredFilters | None,
    portable: bool,
) -> MaskBranch:
    mask = config.mask
    loss: MaskLoss
    if mask.activation == "softmax":
        loss = SoftmaxLoss()
    else:
        loss = BoxLoss(mask.box_losses) if mask.box_losses else PixelLoss()
    return MaskBranch(
        pool=pool,
        head=head,
        filters=filters,
        softmax=mask.activation == "softmax",
        loss=loss,
        regions=_mask_regions(config, loss.reads_boxes),
        margin=mask.margin,
        reads_pixels=mask.pixels,
        portable=portable,
    )


def _keypoints(config: ModelConfig, box: BoxBranch, portable: bool) -> tuple[KeypointBranch, ...]:
    """The keypoint branch, if the model has one."""
    settings = config.keypoint
    if not settings.use:
        return ()
    if not settings.names:
        raise BadInput("model.keypoint.names is empty, expected the names of the keypoints")
    branch = KeypointBranch(
        pool=_head_pool(config, config.roi.keypoint_size, box, portable, "keypoint"),
        head=KeypointHead(len(settings.names), channels=settings.channels, convs=settings.convs, name="keypoint_head"),
        classes=[number for number, name in enumerate(config.class_names, 1) if name in settings.classes],
        foreground=box.foreground,
        normaliser=settings.normaliser,
        score=settings.score,
        portable=portable,
    )
    return (branch,)


def _mask_regions(config: ModelConfig, with_boxes: bool) -> MaskRegions:
    size = config.mask.rois or _region_sampler(config).foreground
    if config.mask.regions == "proposals":
        return SampledRegions(size)
    jitter = config.mask.jitter if config.mask.regions == "jittered" else 0.0
    return TruthRegions(size, jitter, with_boxes, turn=config.mask.rois is not None)


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


def _head_pool(config: ModelConfig, size: int, box: BoxBranch, portable: bool, head: str) -> keras.layers.Layer:
    """The pooler of the mask or keypoint head; without a pyramid, with the box head's res5 behind it."""
    pool = _pool(config, size, box.pool.strides, portable, f"{head}_pool")
    return Res5Pool(pool, box.head, name=f"{head}_res5") if config.backbone.neck == "c4" else pool


def _mask_trunk(config: ModelConfig) -> Trunk:
    mask = config.mask
    name = "inner" if mask.pixels else "trunk"
    trunk: MaskTrunk | HourglassTrunk | ResidualTrunk
    if mask.trunk == "hourglass":
        trunk = HourglassTrunk(mask.channels, widths=(mask.channels, 2 * mask.channels, 2 * mask.channels), name=name)
    elif mask.trunk == "residual":
        trunk = ResidualTrunk(mask.channels, blocks=mask.convs, name=name)
    else:
        trunk = MaskTrunk(mask.channels, convs=mask.convs, name=name)
    return PixelTrunk(trunk, name="trunk") if mask.pixels else trunk


def _mlp_branches(config: ModelConfig, pool: keras.layers.Layer) -> tuple[MLPBranch, ...]:
    branch = config.mask.mlp_branch
    return () if branch == "none" else (MLPBranch(branch, side=2 * pool.size, name="mlp_branch"),)


def _read_table(path: str, classes: int) -> np.ndarray:
    try:
        with open_regular(path) as file:
            table = np.load(file, allow_pickle=False)
    except (OSError, EOFError, MemoryError, ValueError) as error:
        raise BadInput(f"{path}: no .npy table: {reason(error)}") from None
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
    channels = rpn_channels = maps[-1][-1]
    if config.backbone.neck == "fpn":
        model.neck.build(maps)
        channels = rpn_channels = config.backbone.fpn_channels
    elif config.family == "fcis":
        model.neck.build(maps)
        channels, rpn_channels = config.fcis.channels, maps[-2][-1]
    model.rpn.head.build([(None, None, None, rpn_channels)])
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
