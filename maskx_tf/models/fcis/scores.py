"""How position-sensitive maps become class scores and masks: the joint formulation and what it is compared with.

The channels of a cell of maps are [parts, K + 1], background first. FCIS has two parts, outside and inside.
"""

from __future__ import annotations

from typing import Protocol

import tensorflow as tf


class PositionScores(Protocol):
    """A reading of pooled maps.

    Attributes:
        parts: channels of each class.
        masks: whether there are masks.
    """

    parts: int
    masks: bool

    def class_logits(self, pooled: tf.Tensor) -> tf.Tensor:
        """Logits float32 [B, N, K + 1] of pooled maps [B, N, S, S, parts * (K + 1)]."""
        ...

    def mask_logits(self, pooled: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        """Logits float32 [B, N, S, S] of the masks of classes int32 [B, N]."""
        ...


class JointScores:
    """FCIS: a pixel scores for a class by the larger of inside and outside, and is mask if inside is the larger one."""

    parts = 2
    masks = True

    def class_logits(self, pooled: tf.Tensor) -> tf.Tensor:
        outside, inside = tf.split(pooled, 2, axis=-1)
        return tf.reduce_mean(tf.maximum(outside, inside), axis=[2, 3])

    def mask_logits(self, pooled: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        # The softmax of the pair is the sigmoid of the difference.
        outside, inside = _of_classes(pooled, classes, 2)
        return inside - outside


class SeparateScores:
    """The ablation: half of the maps are averaged to class scores, as in R-FCN, and the others are masks alone."""

    parts = 2
    masks = True

    def class_logits(self, pooled: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.split(pooled, 2, axis=-1)[0], axis=[2, 3])

    def mask_logits(self, pooled: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        return _of_classes(pooled, classes, 2)[1]


class AverageScores:
    """R-FCN: the mean over the region is the class's score; there are no masks."""

    parts = 1
    masks = False

    def class_logits(self, pooled: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(pooled, axis=[2, 3])

    def mask_logits(self, pooled: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        raise TypeError("R-FCN has no masks")


def _of_classes(pooled: tf.Tensor, classes: tf.Tensor, parts: int) -> list[tf.Tensor]:
    """The maps [B, N, S, S] of each part, of each region's class."""
    count = pooled.shape[-1] // parts
    indices = classes[..., None] + tf.range(parts) * count  # [B, N, parts]
    return tf.unstack(tf.gather(pooled, indices, axis=4, batch_dims=2), axis=-1)
