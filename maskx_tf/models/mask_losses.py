"""What a mask learns from: strategies that turn the samples of a batch into losses."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import tensorflow as tf

from maskx_tf import losses as loss_ops
from maskx_tf.losses import Loss


class MaskSamples(NamedTuple):
    """The N regions of each image in which the mask branch learns.

    Attributes:
        logits: float [B, N, M, M], of each region's own class; [B, N, M, M, K + 1] where classes compete.
        truth: float32 [B, N, M, M], 0 or 1; means nothing where has_mask is false.
        has_mask: bool [B, N], regions whose truth has a mask.
        classes: int32 [B, N], 1..K; 0 for background and padding.
    """

    logits: tf.Tensor
    truth: tf.Tensor
    has_mask: tf.Tensor
    classes: tf.Tensor


class MaskLoss(Protocol):
    """A way to learn masks.

    Attributes:
        names: the keys of the result.
    """

    @property
    def names(self) -> tuple[str, ...]: ...

    def __call__(self, samples: MaskSamples) -> dict[str, Loss]:
        """The losses of a batch."""
        ...


class PixelLoss:
    """Binary cross-entropy of each pixel (Mask R-CNN, section 3)."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("loss_mask",)

    def __call__(self, samples: MaskSamples) -> dict[str, Loss]:
        return {"loss_mask": loss_ops.mask_loss(samples.logits, samples.truth, samples.has_mask)}


class SoftmaxLoss:
    """Cross-entropy among all classes at each pixel (Mask R-CNN, table 2b)."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("loss_mask",)

    def __call__(self, samples: MaskSamples) -> dict[str, Loss]:
        return {
            "loss_mask": loss_ops.softmax_mask_loss(samples.logits, samples.truth, samples.classes, samples.has_mask)
        }
