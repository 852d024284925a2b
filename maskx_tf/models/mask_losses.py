"""Strategies that turn the regions of a batch into mask losses."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import tensorflow as tf

from maskx_tf import losses as loss_ops
from maskx_tf.losses import Loss
from maskx_tf.ops import boxes as box_ops
from maskx_tf.ops import colour
from maskx_tf.ops import masks as mask_ops

MASK = "loss_mask"
TERMS = {
    "projection": "loss_mask_projection",
    "pairwise": "loss_mask_pairwise",
    "points": "loss_mask_points",
    "teacher": "loss_mask_teacher",
}
RISING = (TERMS["pairwise"], TERMS["teacher"])  # losses whose weight rises in the first part of the training


class PooledRegions(NamedTuple):
    """Regions to learn from, with what the head reads of them.

    Attributes:
        pooled: float [B, N, size, size, C].
        pixels: RGB float [B, N, M, M, 3] in 0..255; None if neither the head nor the loss reads them.
        classes: int32 [B, N], 1..K; 0 for background and padding.
        truth: float32 [B, N, M, M], 0 or 1; means nothing where has_mask is false.
        has_mask: bool [B, N].
        boxes: float32 [B, N, 4], the regions, with their margin.
        truth_boxes: float32 [B, N, 4], the boxes of their truth.
        image_sizes: float32 [B, 2].
        clicks: float32 [B, N, Q, 3], the labelled points of their truth (`Targets.clicks`); None for data without any.
        taught: float32 [B, N, M, M] in 0..1, the masks that the running average of the weights makes; None if no loss
            reads them.
    """

    pooled: tf.Tensor
    pixels: tf.Tensor | None
    classes: tf.Tensor
    truth: tf.Tensor
    has_mask: tf.Tensor
    boxes: tf.Tensor
    truth_boxes: tf.Tensor
    image_sizes: tf.Tensor
    clicks: tf.Tensor | None = None
    taught: tf.Tensor | None = None


class MaskLoss(Protocol):
    """A way to learn masks.

    Attributes:
        reads_boxes: whether regions teach whose truth has a box and no mask.
        reads_pixels: whether it needs `PooledRegions.pixels`.
        reads_taught: whether it needs `PooledRegions.taught`.
    """

    reads_boxes: bool
    reads_pixels: bool
    reads_taught: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The keys of the result."""
        ...

    def __call__(self, logits: tf.Tensor, regions: PooledRegions) -> dict[str, Loss]:
        """The losses of a batch.

        Args:
            logits: float [B, N, M, M], of each region's own class; [B, N, M, M, K + 1] where classes compete.
            regions: N of each image.
        """
        ...


class PixelLoss:
    """Binary cross-entropy of each pixel (Mask R-CNN, section 3)."""

    names = (MASK,)
    reads_boxes = reads_pixels = reads_taught = False

    def __call__(self, logits: tf.Tensor, regions: PooledRegions) -> dict[str, Loss]:
        return {MASK: loss_ops.mask_loss(logits, regions.truth, regions.has_mask)}


class SoftmaxLoss:
    """Cross-entropy among all classes at each pixel (Mask R-CNN, table 2b)."""

    names = (MASK,)
    reads_boxes = reads_pixels = reads_taught = False

    def __call__(self, logits: tf.Tensor, regions: PooledRegions) -> dict[str, Loss]:
        return {MASK: loss_ops.softmax_mask_loss(logits, regions.truth, regions.classes, regions.has_mask)}


class BoxLoss:
    """Pixels where the truth has a mask; its box, and the colours in it, where it has none (BoxInst, Tian et al. 2021).

    Args:
        terms: "projection", the mask reaches to the sides of the box; "pairwise", neighbours of one colour are on
            the same side of the outline; "points", points that someone has labelled; "teacher", the masks that the
            running average of the weights makes, each weighted by how well it fills its box.
    """

    reads_boxes = True

    def __init__(self, terms: tuple[str, ...]) -> None:
        self.terms = terms
        self.reads_pixels = "pairwise" in terms
        self.reads_taught = "teacher" in terms

    @property
    def names(self) -> tuple[str, ...]:
        return (MASK, *(TERMS[term] for term in self.terms))

    def __call__(self, logits: tf.Tensor, regions: PooledRegions) -> dict[str, Loss]:
        losses = PixelLoss()(logits, regions)
        boxed = (regions.classes > 0) & ~regions.has_mask
        inside = mask_ops.cells_inside(regions.boxes, regions.truth_boxes, size=logits.shape[-1])
        if "projection" in self.terms:
            losses[TERMS["projection"]] = loss_ops.projection_loss(logits, inside, boxed)
        if "pairwise" in self.terms:
            corner = regions.image_sizes[:, ::-1]
            image = tf.concat([tf.zeros_like(corner), corner], axis=1)[:, None]
            seen = mask_ops.cells_inside(regions.boxes, image, size=logits.shape[-1])
            similarity = colour.colour_similarity(regions.pixels, seen)
            losses[TERMS["pairwise"]] = loss_ops.pairwise_loss(logits, similarity, inside, boxed)
        if "points" in self.terms:
            if regions.clicks is None:
                raise ValueError("gt_clicks: expected labelled points for model.mask.box_losses: [points], found none")
            clicks = box_ops.points_in_boxes(regions.clicks, regions.boxes)
            places, labels = clicks[..., :2], clicks[..., 2]
            valid = (labels > 0) & boxed[..., None]
            losses[TERMS["points"]] = loss_ops.point_loss(logits, places, labels == 1, valid)
        if self.reads_taught:
            assert regions.taught is not None
            weights = mask_ops.extent_iou(regions.taught >= 0.5, inside)
            losses[TERMS["teacher"]] = loss_ops.teacher_loss(logits, regions.taught, weights, boxed)
        return losses
