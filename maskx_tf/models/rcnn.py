"""The trunk of every family: features, proposals, class scores and boxes; inference and losses."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from maskx_tf import losses as loss_ops
from maskx_tf.losses import Loss
from maskx_tf.models.steps import Steps
from maskx_tf.models.trainable import Batch, Trainable
from maskx_tf.ops import boxes as box_ops
from maskx_tf.ops import images as image_ops
from maskx_tf.ops import sampling
from maskx_tf.ops.batches import targets_of
from maskx_tf.structures import Detections, Proposals, Targets
from maskx_tf.targets import RegionTargets

RPN_LOSSES = ("loss_rpn_objectness", "loss_rpn_box")
BOX_LOSSES = ("loss_class", "loss_box")


class RCNN(Trainable):
    """Faster R-CNN; the families with masks build on it.

    Inputs are RGB canvases [B, H, W, 3] in 0..255 and image sizes float32 [B, 2] (height, width) inside them.

    Args:
        backbone: canvas to feature maps.
        neck: feature maps to the levels that the RPN reads; RoI pooling reads the first of them.
        rpn: levels to logits and deltas.
        box_pool: levels and boxes to pooled features.
        box_head: pooled features to vectors.
        box_predictor: vectors to class logits and deltas.
        steps: the functions in between.
    """

    def __init__(
        self,
        *,
        backbone: keras.layers.Layer,
        neck: keras.layers.Layer,
        rpn: keras.layers.Layer,
        box_pool: keras.layers.Layer,
        box_head: keras.layers.Layer,
        box_predictor: keras.layers.Layer,
        steps: Steps,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # Keras would round image sizes to the compute type on their way in; the layers cast what they compute with.
        self.autocast = False
        self.backbone = backbone
        self.neck = neck
        self.rpn = rpn
        self.box_pool = box_pool
        self.box_head = box_head
        self.box_predictor = box_predictor
        self.steps = steps
        self.stage = "all"

    def set_stage(self, stage: str) -> None:
        """Decides what learns, for good: "all"; "detector", without the mask branch; or "mask", it alone.

        What does not learn is frozen, and the losses that only it would feel are not computed.
        """
        if stage not in ("all", "detector"):
            raise ValueError(f"stage is {stage!r}, expected all or detector: {self.name} has no masks")
        self.stage = stage

    def loss_names(self) -> tuple[str, ...]:
        return RPN_LOSSES + BOX_LOSSES

    def batch_losses(self, batch: Batch, seeds: tf.Tensor) -> dict[str, Loss]:
        return self.losses_of(batch["images"], batch["image_sizes"], targets_of(batch), seeds)

    @contextmanager
    def scores_above(self, threshold: float) -> Iterator[None]:
        """Within, graphs are made that keep detections above another score, such as an evaluation's."""
        plain = self.steps
        self.steps = plain._replace(candidates=functools.partial(plain.candidates, threshold=threshold))
        try:
            yield
        finally:
            self.steps = plain

    def constants(self) -> tuple[tf.Tensor, ...]:
        """What inference needs and the weights alone decide, so that a predictor can work it out once."""
        return ()

    def call(self, inputs: dict[str, tf.Tensor], training: bool = False) -> Detections:
        """Detections in canvas pixels of {"images", "image_sizes"}; masks too, in families that have them."""
        del training
        return self.infer(inputs["images"], inputs["image_sizes"], self.constants())

    def infer(self, images: tf.Tensor, image_sizes: tf.Tensor, constants: tuple[tf.Tensor, ...]) -> Detections:
        """Detections in canvas pixels."""
        del constants
        return self.detect(self.features(images, image_sizes), image_sizes)

    def features(self, images: tf.Tensor, image_sizes: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        """The levels that the heads read, float [B, H / stride, W / stride, C] each.

        Raises:
            ValueError: the canvas is not a multiple of the coarsest stride.
        """
        image_ops.check_canvas(images, multiple=self.backbone.strides[-1])
        return self.neck(self.backbone(self.steps.normalise(images, image_sizes), training=training))

    def detect(self, features: list[tf.Tensor], image_sizes: tf.Tensor) -> Detections:
        """Boxes without masks. Scores come first; deltas are computed for the candidates alone."""
        logits, deltas, anchors = self.rpn_outputs(features)
        proposals = self.steps.propose_test(logits, deltas, anchors, image_sizes=image_sizes)
        vectors = self.vectors(features, proposals.boxes)
        scores = tf.nn.softmax(self.box_predictor(vectors))[..., 1:]
        chosen = self.steps.candidates(scores, proposals.valid)
        own = tf.gather(vectors, chosen.regions, batch_dims=1)
        boxes = box_ops.decode(
            self.box_predictor.deltas(own, chosen.classes),
            tf.gather(proposals.boxes, chosen.regions, batch_dims=1),
            self.steps.delta_weights,
        )
        return self.steps.detections(boxes, chosen, image_sizes=image_sizes)

    def classify(self, features: list[tf.Tensor], boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The best foreground class of given boxes, int32 [B, N], and its score float32 [B, N]."""
        scores = tf.nn.softmax(self.box_predictor(self.vectors(features, boxes)))[..., 1:]
        return tf.argmax(scores, axis=-1, output_type=tf.int32) + 1, tf.reduce_max(scores, axis=-1)

    def losses_of(
        self, images: tf.Tensor, image_sizes: tf.Tensor, targets: Targets, seed: tf.Tensor
    ) -> dict[str, Loss]:
        """Every loss of a batch, as total and count.

        Args:
            images: see the class.
            image_sizes: see the class.
            targets: the truth, in canvas pixels.
            seed: int32 [2] of the sampling, or [B, 2] with one for each image.
        """
        features = self.features(images, image_sizes, training=True)
        losses, proposals = self._rpn_losses(features, image_sizes, targets, seed)
        regions = self.sampled_regions(proposals, targets, seed)
        return {**losses, **self.region_losses(features, regions, targets, seed)}

    def sampled_regions(self, proposals: Proposals, targets: Targets, seed: tf.Tensor) -> RegionTargets:
        """The regions in which the heads learn."""
        # Proposals are inputs to what follows: no loss moves the RPN through their corners.
        fixed = Proposals(tf.stop_gradient(proposals.boxes), proposals.scores, proposals.valid)
        return self.steps.region_targets(fixed, targets, seed=sampling.fold_in(seed, 1))

    def region_losses(
        self, features: list[tf.Tensor], regions: RegionTargets, targets: Targets, seed: tf.Tensor
    ) -> dict[str, Loss]:
        """Losses of the heads on sampled regions."""
        del targets, seed
        return self.box_losses(features, regions)

    def box_losses(self, features: list[tf.Tensor], regions: RegionTargets) -> dict[str, Loss]:
        """Losses of class and box."""
        vectors = self.vectors(features, regions.boxes, training=True)
        first = self.steps.foreground
        logits = self.box_predictor(vectors)
        deltas = self.box_predictor.deltas(vectors[:, :first], regions.classes[:, :first])
        box = self.steps.box_loss(
            deltas,
            regions.deltas[:, :first],
            regions.classes[:, :first] > 0,
            regions.valid[:, :first],
        )
        every = tf.reduce_sum(tf.cast(regions.valid, tf.float32))  # also the regions that cannot be foreground
        loss_class = loss_ops.class_loss(logits, regions.classes, regions.valid)
        return {
            "loss_class": loss_ops.nan_unless_finite(loss_class, [logits]),
            "loss_box": loss_ops.nan_unless_finite(Loss(box.total, every), [deltas]),
        }

    def vectors(self, features: list[tf.Tensor], boxes: tf.Tensor, training: bool = False) -> tf.Tensor:
        """What the box head makes of boxes [B, N, 4]: float [B, N, F]."""
        pooled = self.box_pool(features[: len(self.box_pool.strides)], boxes)
        return self.box_head(pooled, training=training)

    def rpn_outputs(self, features: list[tf.Tensor]) -> tuple[list[tf.Tensor], list[tf.Tensor], list[tf.Tensor]]:
        """Logits [B, A_level], deltas [B, A_level, 4] and anchors [A_level, 4] of each level."""
        logits, deltas = self.rpn(features)
        return logits, deltas, self.steps.anchors([(level.shape[1], level.shape[2]) for level in features])

    def _rpn_losses(
        self, features: list[tf.Tensor], image_sizes: tf.Tensor, targets: Targets, seed: tf.Tensor
    ) -> tuple[dict[str, Loss], Proposals]:
        logits, deltas, anchors = self.rpn_outputs(features)
        chosen = self.steps.anchor_targets(tf.concat(anchors, axis=0), targets, image_sizes, seed=seed)
        objectness, box = self.steps.rpn_losses(
            tf.gather(tf.concat(logits, axis=1), chosen.indices, batch_dims=1),
            tf.gather(tf.concat(deltas, axis=1), chosen.indices, batch_dims=1),
            chosen.deltas,
            chosen.foreground,
            chosen.valid,
        )
        proposals = self.steps.propose_train(logits, deltas, anchors, image_sizes=image_sizes)
        losses = {
            # The features too: a fused convolution with ReLU may turn NaN into 0 on its way to the logits.
            "loss_rpn_objectness": loss_ops.nan_unless_finite(objectness, [*features, *logits]),
            "loss_rpn_box": loss_ops.nan_unless_finite(box, deltas),
        }
        return losses, proposals
