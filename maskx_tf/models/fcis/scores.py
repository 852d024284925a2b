"""How position-sensitive maps become class scores and masks: the joint formulation and what it is compared with.

The channels of a cell of maps begin with K + 1 for the classes, background first. FCIS' are [outside or inside, K + 1].
"""

from __future__ import annotations

from typing import Protocol

import tensorflow as tf


class PositionScores(Protocol):
    """A reading of pooled maps.

    Attributes:
        masks: whether there are masks.
    """

    masks: bool

    def channels(self, rows: int) -> int:
        """The channels D of a cell of maps, for K + 1 rows of scores."""
        ...

    def class_logits(self, pooled: tf.Tensor) -> tf.Tensor:
        """Logits float32 [B, N, K + 1] of pooled maps [B, N, S, S, D]."""
        ...

    def mask_logits(self, pooled: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        """Logits float32 [B, N, S, S] of the masks of classes int32 [B, N]."""
        ...


class JointScores:
    """FCIS: a pixel scores for a class by the larger of inside and outside, and is mask if inside is the larger one."""

    masks = True

    def channels(self, rows: int) -> int:
        return 2 * rows

    def class_logits(self, pooled: tf.Tensor) -> tf.Tensor:
        outside, inside = tf.split(pooled, 2, axis=-1)
        return tf.reduce_mean(tf.maximum(outside, inside), axis=[2, 3])

    def mask_logits(self, pooled: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        # The softmax of the pair is the sigmoid of the difference.
        outside, inside = _of_classes(pooled, classes)
        return inside - outside


class SeparateScores:
    """The ablation: half of the maps are averaged to class scores, as in R-FCN, and the others are masks alone."""

    masks = True

    def channels(self, rows: int) -> int:
        return 2 * rows

    def class_logits(self, pooled: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.split(pooled, 2, axis=-1)[0], axis=[2, 3])

    def mask_logits(self, pooled: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        return _of_classes(pooled, classes)[1]


class AgnosticScores:
    """InstanceFCN with R-FCN: the maps of classes are averaged to scores, and one map of all classes is the mask."""

    masks = True

    def channels(self, rows: int) -> int:
        return rows + 1

    def class_logits(self, pooled: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(pooled[..., :-1], axis=[2, 3])

    def mask_logits(self, pooled: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        del classes
        return pooled[..., -1]


class AverageScores:
    """R-FCN: the mean over the region is the class's score; there are no masks."""

    masks = False

    def channels(self, rows: int) -> int:
        return rows

    def class_logits(self, pooled: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(pooled, axis=[2, 3])

    def mask_logits(self, pooled: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        raise TypeError("R-FCN has no masks")


def _of_classes(pooled: tf.Tensor, classes: tf.Tensor) -> list[tf.Tensor]:
    """The maps [B, N, S, S] of both halves of the channels, of each region's class."""
    indices = classes[..., None] + [0, pooled.shape[-1] // 2]  # [B, N, 2]
    return tf.unstack(tf.gather(pooled, indices, axis=4, batch_dims=2), axis=-1)
