"""The head of FCIS and R-FCN: every region reads maps that are computed once for the image (Li et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import keras
import tensorflow as tf

from maskx_tf import losses as loss_ops
from maskx_tf.losses import Loss
from maskx_tf.models.boxes import DetectionFilter
from maskx_tf.models.branch import Prepared, Scene
from maskx_tf.models.fcis import losses as fcis_losses
from maskx_tf.models.fcis.scores import PositionScores
from maskx_tf.models.fcis.targets import position_mask_targets
from maskx_tf.models.fcis.voting import Voters, Voting, with_half
from maskx_tf.ops import boxes as box_ops
from maskx_tf.ops import ps_roi as ps_roi_ops
from maskx_tf.structures import Detections, Proposals, Targets
from maskx_tf.targets import RegionTargets


class PositionPool(NamedTuple):
    """How a region reads maps; see `ops.ps_roi` for the fields.

    Attributes:
        bilinear: samples rather than whole cells.
    """

    stride: int
    group: int
    size: int
    bilinear: bool

    def __call__(self, maps: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        """Float32 [B, N, size, size, D] of maps [B, H, W, group * group * D]."""
        pool = ps_roi_ops.ps_roi_pool_bilinear if self.bilinear else ps_roi_ops.ps_roi_pool
        return pool(maps, boxes, stride=self.stride, group=self.group, size=self.size)


class RegionReading(NamedTuple):
    """Scores and deltas that the maps give for regions.

    Attributes:
        pooled: float32 [B, N, S, S, D], the maps of scores.
        logits: float32 [B, N, K + 1].
        deltas: float32 [B, N, 4].
    """

    pooled: tf.Tensor
    logits: tf.Tensor
    deltas: tf.Tensor


@dataclass(eq=False, kw_only=True)
class PositionDetector:
    """Makes detections of proposals by position-sensitive maps.

    Attributes:
        maps: features to maps of scores and of deltas.
        scores: how maps become scores and masks.
        pool: how regions read maps.
        filter: decides which pairs of region and class become detections.
        voting: how the masks of detections are drawn.
        delta_weights: the weights of the coding of boxes.
        beta: the beta of the smooth L1 loss.
        mask_weight: the weight of the mask loss.
        hardest: how many regions of an image learn, those with the largest losses; None: all that are sampled.
        passes: how often regions read the maps.
        min_side: the least side of regions, in pixels.
    """

    maps: keras.layers.Layer
    scores: PositionScores
    pool: PositionPool
    filter: DetectionFilter
    voting: Voting
    delta_weights: tuple[float, float, float, float]
    beta: float
    mask_weight: float
    hardest: int | None
    passes: int
    min_side: float

    @property
    def outputs(self) -> frozenset[str]:
        return frozenset({"boxes", "masks"} if self.scores.masks else {"boxes"})

    @property
    def loss_names(self) -> tuple[str, ...]:
        return ("loss_class", "loss_mask", "loss_box") if self.scores.masks else ("loss_class", "loss_box")

    def layers(self) -> list[keras.layers.Layer]:
        return [self.maps]

    def build(self, channels: int) -> None:
        self.maps.build((None, None, None, channels))

    def read(self, maps: tuple[tf.Tensor, tf.Tensor], boxes: tf.Tensor) -> RegionReading:
        """Reads the maps of scores and of deltas at boxes [B, N, 4]."""
        pooled, moves = (self.pool(part, boxes) for part in maps)
        return RegionReading(pooled, self.scores.class_logits(pooled), tf.reduce_mean(moves, axis=[2, 3]))

    def losses(self, scene: Scene, regions: RegionTargets, truth: Targets) -> dict[str, Loss]:
        reading = self.read(self.maps(scene.features[-1]), regions.boxes)
        masks = targets = None
        if self.scores.masks:
            masks = self.scores.mask_logits(reading.pooled, regions.classes)
            targets = position_mask_targets(
                truth.masks, truth.boxes, truth.boxes, regions.boxes, regions.truths, size=self.pool.size
            )
        losses = fcis_losses.region_losses(
            reading.logits, masks, reading.deltas, regions, targets, mask_weight=self.mask_weight, beta=self.beta
        )
        kept = regions.valid
        if self.hardest is not None:
            kept = fcis_losses.hardest(losses, regions.valid, self.hardest)
        outputs = [reading.logits, reading.deltas]
        return {
            name: loss_ops.nan_unless_finite(loss, outputs) for name, loss in fcis_losses.sums(losses, kept).items()
        }

    def detect(self, scene: Scene, proposals: Proposals, score: float | None = None) -> Detections:
        return self.detect_on(self.maps(scene.features[-1]), scene, proposals, score)

    def detect_on(
        self, maps: tuple[tf.Tensor, tf.Tensor], scene: Scene, proposals: Proposals, score: float | None = None
    ) -> Detections:
        """Does the work of `detect` on finished maps: all that is computed for each region."""
        if not self.scores.masks:
            return self._scored(scene, proposals, self.read(maps, proposals.boxes), score)
        boxes, found = proposals.boxes, []
        for number in range(self.passes):
            reading = self.read(maps, boxes)
            scores = tf.nn.softmax(reading.logits)
            masks = tf.sigmoid(self.scores.mask_logits(reading.pooled, best_classes(scores)))
            found.append(self.voters(boxes, scores, masks, proposals.valid))
            if number < self.passes - 1:
                boxes = self.moved(boxes, reading.deltas, scene.image_sizes)
        return self.vote(joined(found), scene.image_sizes, score)

    def voters(self, boxes: tf.Tensor, scores: tf.Tensor, masks: tf.Tensor, valid: tf.Tensor) -> Voters:
        """The regions of one pass, with the masks of their best classes; small ones do not vote."""
        width, height = box_ops.sides(boxes)
        large = tf.minimum(width, height) >= max(self.min_side, 1.0)
        return Voters(boxes, scores, best_classes(scores), masks, valid & large)

    def vote(self, voters: Voters, image_sizes: tf.Tensor, score: float | None) -> Detections:
        """The detections that the regions of all passes make, with the masks that they vote for."""
        chosen = self.filter.candidates(voters.scores[..., 1:], voters.valid, score)
        own = tf.gather(voters.boxes, chosen.regions, batch_dims=1)
        kept = self.filter.detections(own, chosen, image_sizes, score)
        return self.voting.draw(kept, voters, image_sizes)

    def classify(self, scene: Scene, boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        scores = tf.nn.softmax(self.read(self.maps(scene.features[-1]), boxes).logits)[..., 1:]
        return tf.argmax(scores, axis=-1, output_type=tf.int32) + 1, tf.reduce_max(scores, axis=-1)

    def masks_of(self, scene: Scene, boxes: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        """Masks float32 [B, N, M, M] of given boxes and classes, without a vote."""
        scores, _ = self.maps(scene.features[-1])
        logits = self.scores.mask_logits(self.pool(scores, boxes), classes)
        return with_half(tf.sigmoid(logits), self.voting.threshold)

    def moved(self, boxes: tf.Tensor, deltas: tf.Tensor, image_sizes: tf.Tensor) -> tf.Tensor:
        """The boxes that deltas make, inside the images."""
        moved = box_ops.decode(deltas, boxes, self.delta_weights)
        return box_ops.clip(moved, image_sizes[:, None, 0], image_sizes[:, None, 1])

    def _scored(self, scene: Scene, proposals: Proposals, reading: RegionReading, score: float | None) -> Detections:
        """The detections of R-FCN: scores of the proposals, boxes that are moved once."""
        scores = tf.nn.softmax(reading.logits)[..., 1:]
        chosen = self.filter.candidates(scores, proposals.valid, score)
        boxes = self.moved(proposals.boxes, reading.deltas, scene.image_sizes)
        own = tf.gather(boxes, chosen.regions, batch_dims=1)
        return self.filter.detections(own, chosen, scene.image_sizes, score)


def best_classes(scores: tf.Tensor) -> tf.Tensor:
    """The foreground class int32 [B, N], 1..K, with the highest of scores [B, N, K + 1]."""
    return tf.argmax(scores[..., 1:], axis=-1, output_type=tf.int32) + 1


def joined(passes: Sequence[Voters]) -> Voters:
    """The regions of several passes as one set of voters."""
    return Voters(*(tf.concat(parts, axis=1) for parts in zip(*passes, strict=True)))


class PositionMasks:
    """Masks for given boxes. The detector draws those of its own detections; this branch learns with it.

    Args:
        detector: whose maps it reads.
    """

    name = "mask"
    outputs = frozenset({"masks"})
    loss_names: tuple[str, ...] = ()

    def __init__(self, detector: PositionDetector) -> None:
        self.detector = detector

    def layers(self) -> list[keras.layers.Layer]:
        return []

    def build(self, channels: int) -> None:
        del channels

    def prepare(self) -> Prepared:
        return ()

    def losses(self, scene: Scene, regions: RegionTargets, truth: Targets, seed: tf.Tensor) -> dict[str, Loss]:
        del scene, regions, truth, seed
        return {}

    def predict(self, scene: Scene, found: Detections, prepared: Prepared) -> Detections:
        del prepared
        if found.masks is not None:
            return found
        return found._replace(masks=self.detector.masks_of(scene, found.boxes, found.classes))
