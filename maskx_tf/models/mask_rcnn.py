"""Mask R-CNN: a mask for every detection, in parallel to its box (He et al. 2017)."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from maskx_tf import losses as loss_ops
from maskx_tf.losses import Loss
from maskx_tf.models.rcnn import RCNN
from maskx_tf.models.trainable import Batch
from maskx_tf.ops import masks as mask_ops
from maskx_tf.ops import sampling
from maskx_tf.ops.batches import targets_of
from maskx_tf.structures import Detections, Targets
from maskx_tf.targets import RegionTargets

STAGES = ("all", "detector", "mask")


class MaskRCNN(RCNN):
    """Faster R-CNN and a mask head that reads the detected boxes once more.

    Args:
        mask_pool: levels and boxes to pooled features.
        mask_head: pooled features and classes to one mask logit map a region.
        **kwargs: see `RCNN`.
    """

    def __init__(self, *, mask_pool: keras.layers.Layer, mask_head: keras.layers.Layer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mask_pool = mask_pool
        self.mask_head = mask_head

    def infer(self, images: tf.Tensor, image_sizes: tf.Tensor, constants: tuple[tf.Tensor, ...]) -> Detections:
        features = self.features(images, image_sizes)
        found = self.detect(features, image_sizes)
        return found._replace(masks=self.mask_probs(features, found.boxes, found.classes, constants))

    def segment(
        self,
        images: tf.Tensor,
        image_sizes: tf.Tensor,
        boxes: tf.Tensor,
        classes: tf.Tensor | None,
        constants: tuple[tf.Tensor, ...],
    ) -> Detections:
        """Masks of given boxes [B, N, 4]; without classes, int32 [B, N], the box head's best ones are taken."""
        features = self.features(images, image_sizes)
        if classes is None:
            classes, scores = self.classify(features, boxes)
        else:
            scores = tf.ones_like(boxes[..., 0])
        valid = tf.ones_like(classes, tf.bool)
        return Detections(boxes, scores, classes, valid, self.mask_probs(features, boxes, classes, constants))

    def mask_probs(
        self, features: list[tf.Tensor], boxes: tf.Tensor, classes: tf.Tensor, constants: tuple[tf.Tensor, ...]
    ) -> tf.Tensor:
        """Masks float32 [B, N, M, M] in 0..1 of boxes with classes 1..K."""
        return tf.sigmoid(self.mask_logits(self.mask_features(features, boxes), classes, constants))

    def mask_features(self, features: list[tf.Tensor], boxes: tf.Tensor, training: bool = False) -> tf.Tensor:
        """What the mask head reads of boxes: float [B, N, size, size, C]."""
        return self.mask_pool(features[: len(self.mask_pool.strides)], boxes, training=training)

    def mask_logits(self, pooled: tf.Tensor, classes: tf.Tensor, constants: tuple[tf.Tensor, ...]) -> tf.Tensor:
        """Logits float32 [B, N, M, M] of each region's own class."""
        del constants
        return self.mask_head(pooled, classes)

    def set_stage(self, stage: str) -> None:
        if stage not in STAGES:
            raise ValueError(f"stage is {stage!r}, expected one of {', '.join(STAGES)}")
        self.stage = stage
        if stage == "mask":
            fixed = [self.backbone, self.neck, self.rpn, self.box_head, self.box_predictor]
        else:
            fixed = self.mask_layers() if stage == "detector" else []
        for layer in fixed:
            layer.trainable = False

    def mask_layers(self) -> list[keras.layers.Layer]:
        """The layers of the mask branch alone."""
        return [self.mask_head]

    def loss_names(self) -> tuple[str, ...]:
        return {"all": (*super().loss_names(), "loss_mask"), "detector": super().loss_names(), "mask": ("loss_mask",)}[
            self.stage
        ]

    def batch_losses(self, batch: Batch, seeds: tf.Tensor) -> dict[str, Loss]:
        if self.stage == "mask" and "pooled" in batch:
            return {"loss_mask": self.pooled_loss(batch)}
        if self.stage == "mask":
            targets = targets_of(batch)
            features, regions = self.fixed_regions(batch["images"], batch["image_sizes"], targets, seeds)
            loss = self.mask_loss(features, regions, targets, seeds)
            return {"loss_mask": loss_ops.nan_unless_finite(loss, features)}
        return super().batch_losses(batch, seeds)

    def fixed_regions(
        self, images: tf.Tensor, image_sizes: tf.Tensor, targets: Targets, seed: tf.Tensor
    ) -> tuple[list[tf.Tensor], RegionTargets]:
        """Features, and regions sampled among the proposals, of a detector that does not learn."""
        features = self.features(images, image_sizes)
        logits, deltas, anchors = self.rpn_outputs(features)
        proposals = self.steps.propose_train(logits, deltas, anchors, image_sizes=image_sizes)
        return features, self.sampled_regions(proposals, targets, seed)

    def region_losses(
        self, features: list[tf.Tensor], regions: RegionTargets, targets: Targets, seed: tf.Tensor
    ) -> dict[str, Loss]:
        losses = super().region_losses(features, regions, targets, seed)
        if self.stage == "detector":
            return losses
        return {**losses, "loss_mask": self.mask_loss(features, regions, targets, seed)}

    def mask_loss(self, features: list[tf.Tensor], regions: RegionTargets, targets: Targets, seed: tf.Tensor) -> Loss:
        """The loss of the regions whose truth has a mask."""
        return self.loss_of_masks(*self.mask_samples(features, regions, targets, seed))

    def mask_samples(
        self, features: list[tf.Tensor], regions: RegionTargets, targets: Targets, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """What the mask head learns from: the regions that can be foreground, N of them.

        Returns:
            Pooled features [B, N, size, size, C], classes int32 [B, N], binary masks float32 [B, N, M, M], and whether
            the truth has one, bool [B, N].
        """
        regions = self.steps.mask_regions(regions, targets, sampling.fold_in(seed, 2))
        first = self.steps.foreground
        boxes, classes, has_mask = regions.boxes[:, :first], regions.classes[:, :first], regions.has_mask[:, :first]
        pooled = self.mask_features(features, boxes, training=True)
        return pooled, classes, self.mask_targets(regions, targets), has_mask

    def pooled_loss(self, batch: Batch) -> Loss:
        """The mask loss of regions that were pooled before, of a detector that does not learn.

        Args:
            batch: pooled float [B, size, size, C], classes int32 [B], and masks uint8 [B, M * M / 8], packed; a region
                an entry, each with a mask.
        """
        classes, side = batch["classes"][:, None], self.mask_head.side
        wanted = tf.reshape(mask_ops.unpack_bits(batch["masks"]), [-1, 1, side, side])
        pooled = tf.cast(batch["pooled"], tf.float32)[:, None]
        return self.loss_of_masks(pooled, classes, tf.cast(wanted, tf.float32), tf.ones_like(classes, tf.bool))

    def loss_of_masks(self, pooled: tf.Tensor, classes: tf.Tensor, wanted: tf.Tensor, has_mask: tf.Tensor) -> Loss:
        """The mask loss, of each region's own class."""
        logits = self.mask_logits(pooled, classes, self.constants())
        return loss_ops.nan_unless_finite(loss_ops.mask_loss(logits, wanted, has_mask), [logits])

    def mask_targets(self, regions: RegionTargets, targets: Targets) -> tf.Tensor:
        """Binary masks float32 [B, foreground, M, M] that the regions which can be foreground should get."""
        first = self.steps.foreground
        shares = mask_ops.mask_targets(
            targets.masks, targets.boxes, regions.boxes[:, :first], regions.truths[:, :first], size=self.mask_head.side
        )
        return tf.cast(shares >= 0.5, tf.float32)


class SoftmaxMaskRCNN(MaskRCNN):
    """Mask R-CNN whose classes compete for every pixel (table 2b)."""

    def mask_logits(self, pooled: tf.Tensor, classes: tf.Tensor, constants: tuple[tf.Tensor, ...]) -> tf.Tensor:
        del constants
        return _of_class(self.mask_head.all_outputs(pooled), classes)

    def mask_probs(
        self, features: list[tf.Tensor], boxes: tf.Tensor, classes: tf.Tensor, constants: tuple[tf.Tensor, ...]
    ) -> tf.Tensor:
        del constants
        return _of_class(tf.nn.softmax(self.mask_head.all_outputs(self.mask_features(features, boxes))), classes)

    def loss_of_masks(self, pooled: tf.Tensor, classes: tf.Tensor, wanted: tf.Tensor, has_mask: tf.Tensor) -> Loss:
        outputs = self.mask_head.all_outputs(pooled)
        return loss_ops.nan_unless_finite(loss_ops.softmax_mask_loss(outputs, wanted, classes, has_mask), [outputs])


def _of_class(outputs: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """The map [B, N, M, M] of each region's class, out of [B, N, M, M, K + 1]."""
    own = tf.one_hot(classes, outputs.shape[-1])[..., None, None, :]
    return tf.reduce_sum(outputs * own, axis=-1)
