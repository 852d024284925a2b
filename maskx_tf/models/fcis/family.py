"""From a configuration to FCIS, to its ablations, and to R-FCN."""

from __future__ import annotations

from dataclasses import replace

import keras

from maskx_tf.config import ModelConfig
from maskx_tf.errors import BadInput
from maskx_tf.layers.position import PositionMaps, PositionNeck
from maskx_tf.models.boxes import DetectionFilter
from maskx_tf.models.fcis.head import PositionDetector, PositionMasks, PositionPool
from maskx_tf.models.fcis.proposals import WholeCells
from maskx_tf.models.fcis.scores import AgnosticScores, AverageScores, JointScores, PositionScores, SeparateScores
from maskx_tf.models.fcis.targets import PositionSampler
from maskx_tf.models.fcis.voting import Voting
from maskx_tf.models.proposals import ProposalStage
from maskx_tf.models.rcnn import RCNN, Normaliser

SCORES: dict[str, type[PositionScores]] = {
    "joint": JointScores,
    "separate": SeparateScores,
    "agnostic": AgnosticScores,
    "average": AverageScores,
}


def model(
    config: ModelConfig, portable: bool, normaliser: Normaliser, backbone: keras.layers.Layer, proposals: ProposalStage
) -> RCNN:
    """A model of family fcis.

    Args:
        config: the `model` section.
        portable: see `models.build.build`.
        normaliser: canvas to the backbone's input.
        backbone: normalised canvas to feature maps.
        proposals: the stage as other families have it.

    Raises:
        BadInput: there are masks, and the model has to be portable.
    """
    settings, box = config.fcis, config.box
    scores = SCORES[settings.scores]()
    if portable and scores.masks:
        raise BadInput(
            "model.family is fcis, whose masks are voted for in windows as large as their boxes, but XLA and LiteRT "
            "need shapes that do not depend on what is found; model.fcis.scores=average, R-FCN, has no masks"
        )
    stride = backbone.strides[-1]
    detector = PositionDetector(
        maps=PositionMaps(scores.channels(len(config.class_names) + 1), group=settings.group, name="maps"),
        scores=scores,
        pool=PositionPool(stride, settings.group, settings.size, settings.pooling == "bilinear"),
        filter=DetectionFilter.of(config.detections),
        voting=Voting(settings.merge_iou, settings.threshold, settings.prebinarize, settings.voters == "own_class"),
        delta_weights=box.delta_weights,
        beta=box.smooth_l1_beta,
        mask_weight=settings.mask_weight,
        hardest=box.rois if settings.ohem else None,
        passes=settings.passes,
        min_side=settings.min_side,
    )
    return RCNN(
        normaliser=normaliser,
        backbone=backbone,
        neck=PositionNeck(settings.channels, name="neck"),
        rpn=replace(
            proposals,
            train=WholeCells(proposals.train, stride),
            test=WholeCells(proposals.test, stride),
            fixed_boxes=True,
        ),
        sampler=PositionSampler(
            size=None if settings.ohem else box.rois,
            foreground_fraction=box.positive_fraction,
            foreground_iou=box.positive_iou,
            background_iou=box.background_iou,
            weights=box.delta_weights,
        ),
        box=detector,
        branches=(PositionMasks(detector),) if scores.masks else (),
        name=config.family,
    )
