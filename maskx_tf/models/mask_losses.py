"""What a mask learns from: strategies that turn the samples of a batch into losses."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import tensorflow as tf

from maskx_tf import losses as loss_ops
from maskx_tf.losses import Loss
from maskx_tf.ops import colour

MASK = "loss_mask"
TERMS = {"projection": "loss_mask_projection", "pairwise": "loss_mask_pairwise", "points": "loss_mask_points"}


class MaskSamples(NamedTuple):
    """The N regions of each image in which the mask branch learns.

    Attributes:
        logits: float [B, N, M, M], of each region's own class; [B, N, M, M, K + 1] where classes compete.
        truth: float32 [B, N, M, M], 0 or 1; means nothing where has_mask is false.
        has_mask: bool [B, N], regions whose truth has a mask.
        classes: int32 [B, N], 1..K; 0 for background and padding.
        inside: bool [B, N, M, M], cells in the box of the region's truth.
        pixels: RGB float [B, N, M, M, 3] in 0..255 of the region; None if neither the head nor the loss reads them.
        seen: bool [B, N, M, M], cells that show the image and not what lies beyond it.
        clicks: float32 [B, N, Q, 3], the labelled points of each region's truth: x and y as fractions of the
            region, and 1 on the object, 2 outside it, 0 for none; None for data without any.
    """

    logits: tf.Tensor
    truth: tf.Tensor
    has_mask: tf.Tensor
    classes: tf.Tensor
    inside: tf.Tensor
    pixels: tf.Tensor | None
    seen: tf.Tensor
    clicks: tf.Tensor | None = None


class MaskLoss(Protocol):
    """A way to learn masks.

    Attributes:
        reads_boxes: whether regions teach whose truth has a box and no mask.
        reads_pixels: whether it needs `MaskSamples.pixels`.
    """

    reads_boxes: bool
    reads_pixels: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The keys of the result."""
        ...

    def __call__(self, samples: MaskSamples) -> dict[str, Loss]:
        """The losses of a batch."""
        ...


class PixelLoss:
    """Binary cross-entropy of each pixel (Mask R-CNN, section 3)."""

    names = (MASK,)
    reads_boxes = reads_pixels = False

    def __call__(self, samples: MaskSamples) -> dict[str, Loss]:
        return {MASK: loss_ops.mask_loss(samples.logits, samples.truth, samples.has_mask)}


class SoftmaxLoss:
    """Cross-entropy among all classes at each pixel (Mask R-CNN, table 2b)."""

    names = (MASK,)
    reads_boxes = reads_pixels = False

    def __call__(self, samples: MaskSamples) -> dict[str, Loss]:
        return {MASK: loss_ops.softmax_mask_loss(samples.logits, samples.truth, samples.classes, samples.has_mask)}


class BoxLoss:
    """Pixels where the truth has a mask; its box, and the colours in it, where it has none (BoxInst, Tian et al. 2021).

    Args:
        terms: "projection", the mask reaches to the sides of the box; "pairwise", neighbours of one colour are on
            the same side of the outline; "points", points that someone has labelled.
    """

    reads_boxes = True

    def __init__(self, terms: tuple[str, ...]) -> None:
        self.terms = terms
        self.reads_pixels = "pairwise" in terms

    @property
    def names(self) -> tuple[str, ...]:
        return (MASK, *(TERMS[term] for term in self.terms))

    def __call__(self, samples: MaskSamples) -> dict[str, Loss]:
        losses = PixelLoss()(samples)
        boxed = (samples.classes > 0) & ~samples.has_mask
        if "projection" in self.terms:
            losses[TERMS["projection"]] = loss_ops.projection_loss(samples.logits, samples.inside, boxed)
        if "pairwise" in self.terms:
            similarity = colour.colour_similarity(samples.pixels, samples.seen)
            losses[TERMS["pairwise"]] = loss_ops.pairwise_loss(samples.logits, similarity, samples.inside, boxed)
        if "points" in self.terms:
            if samples.clicks is None:
                raise ValueError("gt_clicks: expected labelled points for model.mask.box_losses: [points], found none")
            places, labels = samples.clicks[..., :2], samples.clicks[..., 2]
            valid = (labels > 0) & boxed[..., None]
            losses[TERMS["points"]] = loss_ops.point_loss(samples.logits, places, labels == 1, valid)
        return losses
