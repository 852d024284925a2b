"""The keypoint branch: a heat map for each keypoint of every detection, in parallel to its box (He et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import tensorflow as tf

from maskx_tf import losses as loss_ops
from maskx_tf.losses import Loss
from maskx_tf.models.branch import Prepared, Scene
from maskx_tf.ops import keypoints as keypoint_ops
from maskx_tf.ops import sampling
from maskx_tf.structures import Detections, Targets
from maskx_tf.targets import RegionTargets


@dataclass(eq=False, kw_only=True)
class KeypointBranch:
    """Pools each box once more and finds the keypoints in it.

    Only regions that can have keypoints go through the head. In training these are foreground regions with a keypoint
    inside; the others would not change the loss.

    Attributes:
        pool: levels and boxes to pooled features.
        head: pooled features to heat maps of logits.
        classes: those of the classes 1..K that have keypoints; empty: all.
        foreground: how many of the sampled regions can be foreground.
        normaliser: what the loss is divided by, "visible" or "fixed": see the configuration.
        score: see `ops.keypoints.decode_keypoints`.
        portable: whether to use only operations that XLA and LiteRT can compile: all regions go through the head.
    """

    name = "keypoint"
    outputs = frozenset({"keypoints", "keypoint_scores"})
    loss_names = ("loss_keypoint",)

    pool: keras.layers.Layer
    head: keras.layers.Layer
    classes: tuple[int, ...]
    foreground: int
    normaliser: str
    score: str
    portable: bool

    def layers(self) -> list[keras.layers.Layer]:
        return [self.head]

    def build(self, channels: int) -> None:
        self.head.build((None, None, self.pool.size, self.pool.size, channels))

    def prepare(self) -> Prepared:
        return ()

    def predict(self, scene: Scene, found: Detections, prepared: Prepared) -> Detections:
        del prepared
        flags = self.can_have(found.classes)
        order = self.chosen(flags)
        boxes = tf.gather(found.boxes, order, batch_dims=1)
        stride = self.pool.strides[0]
        height, width = scene.features[0].shape[1:3]
        points, scores = keypoint_ops.decode_keypoints(
            self.logits(scene, boxes),
            boxes,
            canvas=(height * stride, width * stride),
            score=self.score,
            portable=self.portable,
        )
        return found._replace(keypoints=put_back(points, flags), keypoint_scores=put_back(scores, flags))

    def can_have(self, classes: tf.Tensor) -> tf.Tensor:
        """Which of classes [B, N] of 0..K have keypoints, bool [B, N]; background and padding have none."""
        if not self.classes:
            return classes > 0
        return tf.reduce_any(classes[..., None] == tf.constant(self.classes), axis=-1)

    def chosen(self, flags: tf.Tensor) -> tf.Tensor:
        """The regions that go through the head, int32 [B, M]: those with a flag, bool [B, N], before others.

        M is the largest number of flags in an image, and at least 1, because convolutions fail on 0.
        """
        order = sampling.flagged_first(flags)
        if self.portable:
            return order
        return order[:, : tf.maximum(tf.reduce_max(tf.reduce_sum(tf.cast(flags, tf.int32), axis=1)), 1)]

    def logits(self, scene: Scene, boxes: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Heat maps float32 [B, N, P, S, S] of boxes [B, N, 4]."""
        return self.head(self.pool(scene.features[: len(self.pool.strides)], boxes, training=training))

    def losses(self, scene: Scene, regions: RegionTargets, truth: Targets, seed: tf.Tensor) -> dict[str, Loss]:
        """See `Branch`.

        Raises:
            ValueError: the truth has no keypoints, or another number of them.
        """
        del seed
        if truth.keypoints is None or truth.keypoints.shape[2] != self.head.keypoints:
            found = "none" if truth.keypoints is None else truth.keypoints.shape[2]
            raise ValueError(f"gt_keypoints: expected {self.head.keypoints} keypoints an instance, found {found}")
        boxes, classes, truths = (
            values[:, : self.foreground] for values in (regions.boxes, regions.classes, regions.truths)
        )
        points = tf.gather(truth.keypoints, truths, batch_dims=1)
        cells, valid = keypoint_ops.keypoint_targets(points, boxes, size=self.head.side)
        valid &= self.can_have(classes)[..., None]
        order = self.chosen(tf.reduce_any(valid, axis=-1))
        logits = self.logits(scene, tf.gather(boxes, order, batch_dims=1), training=True)
        loss = loss_ops.keypoint_loss(
            logits, tf.gather(cells, order, batch_dims=1), tf.gather(valid, order, batch_dims=1)
        )
        if self.normaliser == "fixed":
            loss = Loss(loss.total, tf.cast(tf.size(valid), tf.float32))
        return {"loss_keypoint": loss_ops.nan_unless_finite(loss, [logits])}


def put_back(values: tf.Tensor, flags: tf.Tensor) -> tf.Tensor:
    """Values [B, M, ...] of the regions with a flag, bool [B, N], in the places of these regions; zeros elsewhere."""
    places = tf.maximum(tf.cumsum(tf.cast(flags, tf.int32), axis=1) - 1, 0)
    return sampling.where_flagged(flags, tf.gather(values, places, batch_dims=1))
