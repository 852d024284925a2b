"""The proposal stage: anchors, the RPN's head, its losses, and the choice of the best regions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import keras
import tensorflow as tf

from maskx_tf import losses as loss_ops
from maskx_tf import targets as target_ops
from maskx_tf.losses import Loss
from maskx_tf.ops import anchors as anchor_ops
from maskx_tf.ops import detections as detection_ops
from maskx_tf.ops import nms as nms_ops
from maskx_tf.structures import Proposals, Targets
from maskx_tf.targets import AnchorTargets


class AnchorGrid(NamedTuple):
    """The reference boxes of every level; see `ops.anchors.pyramid` for the fields."""

    strides: tuple[int, ...]
    sizes: tuple[tuple[float, ...], ...]
    ratios: tuple[float, ...]
    rounding: str
    order: str

    def of_levels(self, shapes: list[tuple[int, int]]) -> list[tf.Tensor]:
        """Anchors float32 [A_level, 4] of levels with these heights and widths."""
        return anchor_ops.pyramid(shapes, **self._asdict())


class AnchorSampler(NamedTuple):
    """Which anchors the RPN learns from; see `targets.anchor_targets` for the fields.

    Attributes:
        ignore_straddling: leave out anchors that cross the border of the image.
    """

    size: int
    foreground_fraction: float
    foreground_iou: float
    background_iou: float
    ignore_straddling: bool

    def sample(self, anchors: tf.Tensor, truth: Targets, image_sizes: tf.Tensor, seed: tf.Tensor) -> AnchorTargets:
        """A sample of the anchors [A, 4] of each image, with their targets."""
        inside = target_ops.anchors_inside(anchors, image_sizes) if self.ignore_straddling else None
        return target_ops.anchor_targets(
            anchors,
            truth,
            seed=seed,
            size=self.size,
            foreground_fraction=self.foreground_fraction,
            foreground_iou=self.foreground_iou,
            background_iou=self.background_iou,
            inside=inside,
        )


class ProposalFilter(NamedTuple):
    """Which of the RPN's boxes go on; see `ops.detections.proposals` for the fields.

    Attributes:
        portable: whether to use only operations that GPUs, XLA and LiteRT have.
    """

    candidates_per_level: int
    limit: int
    iou_threshold: float
    min_side: float
    portable: bool

    def choose(self, outputs: RpnOutputs, image_sizes: tf.Tensor) -> Proposals:
        """The best regions of each image."""
        return detection_ops.proposals(
            outputs.logits,
            outputs.deltas,
            outputs.anchors,
            image_sizes=image_sizes,
            candidates_per_level=self.candidates_per_level,
            limit=self.limit,
            iou_threshold=self.iou_threshold,
            min_side=self.min_side,
            suppress=nms_ops.nms_levels_portable if self.portable else nms_ops.nms_levels,
        )


class RpnOutputs(NamedTuple):
    """Outputs of the RPN for every anchor, level by level.

    Attributes:
        logits: float [B, A_level] of each level, objectness.
        deltas: float [B, A_level, 4] of each level.
        anchors: float32 [A_level, 4] of each level.
    """

    logits: list[tf.Tensor]
    deltas: list[tf.Tensor]
    anchors: list[tf.Tensor]


class ProposalChoice(Protocol):
    """A choice of the regions that go on."""

    def choose(self, outputs: RpnOutputs, image_sizes: tf.Tensor) -> Proposals:
        """The best regions of each image."""
        ...


@dataclass(eq=False)
class ProposalStage:
    """Finds regions that may hold an object (Ren et al. 2015).

    Attributes:
        head: levels to logits and deltas.
        anchors: the reference boxes; there are as many levels as these have strides.
        sampler: chooses the anchors that learn.
        train: chooses the proposals in training.
        test: chooses the proposals in inference.
        normaliser: see `losses.rpn_losses`.
        beta: see `losses.rpn_losses`.
        fixed_boxes: see `losses.rpn_losses`.
    """

    loss_names: ClassVar = ("loss_rpn_objectness", "loss_rpn_box")

    head: keras.layers.Layer
    anchors: AnchorGrid
    sampler: AnchorSampler
    train: ProposalChoice
    test: ProposalChoice
    normaliser: str
    beta: float
    fixed_boxes: bool = False

    def outputs(self, features: list[tf.Tensor]) -> RpnOutputs:
        """Returns the head's outputs for the anchors of each level."""
        levels = features[: len(self.anchors.strides)]
        logits, deltas = self.head(levels)
        return RpnOutputs(
            logits, deltas, self.anchors.of_levels([(level.shape[1], level.shape[2]) for level in levels])
        )

    def losses(self, outputs: RpnOutputs, image_sizes: tf.Tensor, truth: Targets, seed: tf.Tensor) -> dict[str, Loss]:
        """Objectness and box loss of a sample of the anchors."""
        chosen = self.sampler.sample(tf.concat(outputs.anchors, axis=0), truth, image_sizes, seed)
        objectness, box = loss_ops.rpn_losses(
            tf.gather(tf.concat(outputs.logits, axis=1), chosen.indices, batch_dims=1),
            tf.gather(tf.concat(outputs.deltas, axis=1), chosen.indices, batch_dims=1),
            chosen.deltas,
            chosen.foreground,
            chosen.valid,
            beta=self.beta,
            normaliser=self.normaliser,
            fixed_boxes=self.fixed_boxes,
        )
        return {
            "loss_rpn_objectness": loss_ops.nan_unless_finite(objectness, outputs.logits),
            "loss_rpn_box": loss_ops.nan_unless_finite(box, outputs.deltas),
        }
