"""The trunk of every family: features, proposals, class scores and boxes; inference and losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from maskx_tf import losses as loss_ops
from maskx_tf.losses import Loss
from maskx_tf.ops import boxes as box_ops
from maskx_tf.ops.detections import Candidates
from maskx_tf.structures import Detections, Proposals, Targets
from maskx_tf.targets import AnchorTargets, RegionTargets


class Steps(NamedTuple):
    """The functions between the layers, with a checkpoint's conventions and settings already filled in.

    Attributes:
        normalise: `ops.images.normalise`.
        anchors: shapes of the levels -> anchors of each.
        propose_train: `ops.detections.proposals`.
        propose_test: the same, with the numbers of inference.
        anchor_targets: `targets.anchor_targets`, given the image sizes too.
        region_targets: `targets.region_targets`.
        candidates: `ops.detections.candidates`.
        detections: `ops.detections.detections`.
        rpn_losses: `losses.rpn_losses`.
        box_loss: `losses.box_loss`.
        delta_weights: of the box head's coding.
        foreground: how many of the sampled regions can be foreground; they come first.
    """

    normalise: Callable[..., tf.Tensor]
    anchors: Callable[[list[tuple[int, int]]], list[tf.Tensor]]
    propose_train: Callable[..., Proposals]
    propose_test: Callable[..., Proposals]
    anchor_targets: Callable[..., AnchorTargets]
    region_targets: Callable[..., RegionTargets]
    candidates: Callable[..., Candidates]
    detections: Callable[..., Detections]
    rpn_losses: Callable[..., tuple[Loss, Loss]]
    box_loss: Callable[..., Loss]
    delta_weights: tuple[float, float, float, float]
    foreground: int


class RCNN(keras.Model):
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
        """The levels that the heads read, float [B, H / stride, W / stride, C] each."""
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
            seed: int32 [2], of the sampling.
        """
        features = self.features(images, image_sizes, training=True)
        losses, proposals = self._rpn_losses(features, image_sizes, targets, seed)
        # Proposals are inputs to what follows: no loss moves the RPN through their corners.
        fixed = Proposals(tf.stop_gradient(proposals.boxes), proposals.scores, proposals.valid)
        regions = self.steps.region_targets(fixed, targets, seed=tf.random.experimental.stateless_fold_in(seed, 1))
        return {**losses, **self.region_losses(features, regions, targets)}

    def region_losses(self, features: list[tf.Tensor], regions: RegionTargets, targets: Targets) -> dict[str, Loss]:
        """Losses of the heads on sampled regions."""
        del targets
        vectors = self.vectors(features, regions.boxes, training=True)
        first = self.steps.foreground
        box = self.steps.box_loss(
            self.box_predictor.deltas(vectors[:, :first], regions.classes[:, :first]),
            regions.deltas[:, :first],
            regions.classes[:, :first] > 0,
            regions.valid[:, :first],
        )
        every = tf.reduce_sum(tf.cast(regions.valid, tf.float32))  # also the regions that cannot be foreground
        return {
            "loss_class": loss_ops.class_loss(self.box_predictor(vectors), regions.classes, regions.valid),
            "loss_box": Loss(box.total, every),
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
        return {"loss_rpn_objectness": objectness, "loss_rpn_box": box}, proposals
