"""The box branch: class scores and boxes of regions, in training and as detections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import keras
import tensorflow as tf

from maskx_tf import losses as loss_ops
from maskx_tf import targets as target_ops
from maskx_tf.config.model import DetectionsConfig
from maskx_tf.losses import Loss
from maskx_tf.models.branch import Scene
from maskx_tf.ops import boxes as box_ops
from maskx_tf.ops import detections as detection_ops
from maskx_tf.ops.detections import HARD, Candidates, Suppression
from maskx_tf.structures import Detections, Proposals, Targets
from maskx_tf.targets import RegionTargets

# Candidates for the detections of an image, at least. A hundred detections are found among the first few hundred.
CANDIDATES = 2000


class RegionSampler(NamedTuple):
    """Which regions the heads learn from; see `targets.region_targets` for the fields."""

    size: int
    foreground_fraction: float
    foreground_iou: float
    background_iou: tuple[float, float]
    weights: tuple[float, float, float, float]

    @property
    def foreground(self) -> int:
        """How many of the sampled regions can be foreground; they come first."""
        return int(self.size * self.foreground_fraction)

    def sample(self, proposals: Proposals, truth: Targets, seed: tf.Tensor) -> RegionTargets:
        """A sample of the proposals and of the truth's own boxes, with their targets."""
        return target_ops.region_targets(proposals, truth, seed=seed, **self._asdict())


class DetectionFilter(NamedTuple):
    """Which pairs of a region and a class become detections.

    Attributes:
        score: a detection has to score more than this.
        nms_iou: a detection that overlaps a better one of its class by more than this is suppressed.
        limit: the most detections of an image.
        suppression: what that means.
    """

    score: float
    nms_iou: float
    limit: int
    suppression: Suppression = HARD

    @classmethod
    def of(cls, settings: DetectionsConfig) -> DetectionFilter:
        """The filter of these settings."""
        soft = None if settings.soft_nms == "none" else settings.soft_nms
        suppression = Suppression(soft, settings.soft_sigma, settings.box_voting)
        return cls(settings.score, settings.nms_iou, settings.limit, suppression)

    def candidates(self, scores: tf.Tensor, valid: tf.Tensor, score: float | None = None) -> Candidates:
        """The best pairs of scores [B, N, K]; `score` replaces the threshold."""
        threshold = self.score if score is None else score
        return detection_ops.candidates(scores, valid, threshold=threshold, limit=max(CANDIDATES, 20 * self.limit))

    def detections(
        self, boxes: tf.Tensor, chosen: Candidates, image_sizes: tf.Tensor, score: float | None = None
    ) -> Detections:
        """Suppresses candidates with boxes [B, C, 4] and returns the detections; see `candidates` for the score."""
        return detection_ops.detections(
            boxes,
            chosen,
            image_sizes=image_sizes,
            iou_threshold=self.nms_iou,
            limit=self.limit,
            suppression=self.suppression,
            least=self.score if score is None else score,
        )


@dataclass(eq=False, kw_only=True)
class BoxBranch:
    """Fast R-CNN's head: pools each region, scores its classes, and moves its box.

    Attributes:
        pool: levels and boxes to pooled features.
        head: pooled features to vectors.
        predictor: vectors to class logits and deltas.
        filter: decides which pairs of region and class become detections.
        delta_weights: the weights of the coding of boxes.
        beta: the beta of the smooth L1 loss.
        foreground: how many of the sampled regions can be foreground.
    """

    outputs: ClassVar = frozenset({"boxes"})
    loss_names: ClassVar = ("loss_class", "loss_box")

    pool: keras.layers.Layer
    head: keras.layers.Layer
    predictor: keras.layers.Layer
    filter: DetectionFilter
    delta_weights: tuple[float, float, float, float]
    beta: float
    foreground: int

    def layers(self) -> list[keras.layers.Layer]:
        return [self.head, self.predictor]

    def build(self, channels: int) -> None:
        shape = (None, None, self.pool.size, self.pool.size, channels)
        self.head.build(shape)
        self.predictor.build(self.head.compute_output_shape(shape))

    def vectors(self, features: list[tf.Tensor], boxes: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the head's vectors of boxes [B, N, 4]: float [B, N, F]."""
        pooled = self.pool(features[: len(self.pool.strides)], boxes)
        return self.head(pooled, training=training)

    def scores(self, vectors: tf.Tensor) -> tf.Tensor:
        """Scores float32 [B, N, K] of the foreground classes."""
        return tf.nn.softmax(self.predictor(vectors))[..., 1:]

    def losses(self, scene: Scene, regions: RegionTargets, truth: Targets) -> dict[str, Loss]:
        del truth
        vectors = self.vectors(scene.features, regions.boxes, training=True)
        first = self.foreground
        logits = self.predictor(vectors)
        deltas = self.predictor.deltas(vectors[:, :first], regions.classes[:, :first])
        counts = regions.valid & (regions.classes > 0)
        errors = loss_ops.box_errors(deltas, regions.deltas[:, :first], counts[:, :first], self.beta)
        every = tf.reduce_sum(tf.cast(regions.valid, tf.float32))  # also the regions that cannot be foreground
        loss_class = loss_ops.class_loss(logits, regions.classes, regions.valid)
        return {
            "loss_class": loss_ops.nan_unless_finite(loss_class, [logits]),
            "loss_box": loss_ops.nan_unless_finite(Loss(tf.reduce_sum(errors), every), [deltas]),
        }

    def detect(self, scene: Scene, proposals: Proposals, score: float | None = None) -> Detections:
        """Scores come first; deltas are computed for the candidates alone, so the cost does not depend on K."""
        vectors = self.vectors(scene.features, proposals.boxes)
        chosen = self.filter.candidates(self.scores(vectors), proposals.valid, score)
        boxes = box_ops.decode(
            self.predictor.deltas_of_pairs(vectors, chosen.regions, chosen.classes),
            tf.gather(proposals.boxes, chosen.regions, batch_dims=1),
            self.delta_weights,
        )
        return self.filter.detections(boxes, chosen, scene.image_sizes, score)

    def classify(self, scene: Scene, boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        scores = self.scores(self.vectors(scene.features, boxes))
        return tf.argmax(scores, axis=-1, output_type=tf.int32) + 1, tf.reduce_max(scores, axis=-1)
