"""The functions between the layers, with a checkpoint's conventions and settings filled in."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from maskx_tf import losses, targets
from maskx_tf.config import ModelConfig
from maskx_tf.losses import Loss
from maskx_tf.ops import anchors as anchor_ops
from maskx_tf.ops import detections as detection_ops
from maskx_tf.ops import images as image_ops
from maskx_tf.ops import nms as nms_ops
from maskx_tf.ops.detections import Candidates
from maskx_tf.structures import Detections, Proposals, Targets
from maskx_tf.targets import AnchorTargets, RegionTargets

# Candidates for the detections of an image. A hundred detections are found among the first few hundred.
CANDIDATES = 2000


class Steps(NamedTuple):
    """What `RCNN` does between its layers.

    Attributes:
        normalise: `ops.images.normalise`.
        anchors: shapes of the levels -> anchors of each.
        propose_train: `ops.detections.proposals`.
        propose_test: the same, with the numbers of inference.
        anchor_targets: `targets.anchor_targets`, given the image sizes too.
        region_targets: `targets.region_targets`.
        mask_regions: sampled regions, truth and seed -> the regions in which the mask head learns.
        candidates: `ops.detections.candidates`.
        detections: `ops.detections.detections`.
        rpn_losses: `losses.rpn_losses`.
        box_loss: `losses.box_loss`.
        delta_weights: of the box head's coding.
        foreground: how many of the sampled regions can be foreground; they come first.
    """

    normalise: Callable[..., tf.Tensor]
    anchors: Callable[[list[tuple[int, int]]], list[tf.Tensor]]
    propose_train: Callable[..., Proposals]
    propose_test: Callable[..., Proposals]
    anchor_targets: Callable[..., AnchorTargets]
    region_targets: Callable[..., RegionTargets]
    mask_regions: Callable[..., RegionTargets]
    candidates: Callable[..., Candidates]
    detections: Callable[..., Detections]
    rpn_losses: Callable[..., tuple[Loss, Loss]]
    box_loss: Callable[..., Loss]
    delta_weights: tuple[float, float, float, float]
    foreground: int


def steps_of(config: ModelConfig, strides: Sequence[int], portable: bool) -> Steps:
    """The functions of a configuration; `portable` as for `models.build.build`."""
    rpn, box, found = config.rpn, config.box, config.detections
    propose = functools.partial(
        detection_ops.proposals,
        iou_threshold=rpn.nms_iou,
        min_side=rpn.min_size,
        suppress=nms_ops.nms_levels_portable if portable else nms_ops.nms_levels,
    )
    return Steps(
        normalise=functools.partial(
            image_ops.normalise,
            mean=config.input.pixel_mean,
            std=config.input.pixel_std,
            bgr=config.input.channel_order == "bgr",
        ),
        anchors=functools.partial(
            anchor_ops.pyramid,
            strides=tuple(strides),
            sizes=config.anchors.sizes,
            ratios=config.anchors.ratios,
            rounding=config.anchors.rounding,
            order=config.anchors.order,
        ),
        propose_train=functools.partial(propose, candidates_per_level=rpn.pre_nms_train, limit=rpn.post_nms_train),
        propose_test=functools.partial(propose, candidates_per_level=rpn.pre_nms_test, limit=rpn.post_nms_test),
        anchor_targets=functools.partial(
            _anchor_targets,
            ignore_straddling=rpn.ignore_straddling,
            size=rpn.samples,
            foreground_fraction=rpn.positive_fraction,
            foreground_iou=rpn.positive_iou,
            background_iou=rpn.negative_iou,
        ),
        region_targets=functools.partial(
            targets.region_targets,
            size=box.rois,
            foreground_fraction=box.positive_fraction,
            foreground_iou=box.positive_iou,
            background_iou=box.background_iou,
            weights=box.delta_weights,
        ),
        mask_regions=_mask_regions(config),
        candidates=functools.partial(detection_ops.candidates, threshold=found.score, limit=CANDIDATES),
        detections=functools.partial(detection_ops.detections, iou_threshold=found.nms_iou, limit=found.limit),
        rpn_losses=functools.partial(losses.rpn_losses, beta=rpn.smooth_l1_beta, normaliser=rpn.normaliser),
        box_loss=functools.partial(losses.box_loss, beta=box.smooth_l1_beta),
        delta_weights=box.delta_weights,
        foreground=int(box.rois * box.positive_fraction),
    )


def _mask_regions(config: ModelConfig) -> Callable[..., RegionTargets]:
    mask = config.mask
    if mask.regions == "proposals":
        return _as_sampled
    size = int(config.box.rois * config.box.positive_fraction)
    jitter = mask.jitter if mask.regions == "jittered" else 0.0
    return functools.partial(_of_truth, size=size, jitter=jitter)


def _as_sampled(regions: RegionTargets, truth: Targets, seed: tf.Tensor) -> RegionTargets:
    del truth, seed
    return regions


def _of_truth(regions: RegionTargets, truth: Targets, seed: tf.Tensor, *, size: int, jitter: float) -> RegionTargets:
    del regions
    return targets.truth_regions(truth, seed=seed, size=size, jitter=jitter)


def _anchor_targets(
    anchors: tf.Tensor, truth: Targets, image_sizes: tf.Tensor, *, ignore_straddling: bool, **options: Any
) -> targets.AnchorTargets:
    inside = targets.anchors_inside(anchors, image_sizes) if ignore_straddling else None
    return targets.anchor_targets(anchors, truth, inside=inside, **options)
