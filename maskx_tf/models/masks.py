"""The mask branch: a mask for every detection, in parallel to its box (He et al. 2017)."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import keras
import tensorflow as tf

from maskx_tf import losses as loss_ops
from maskx_tf import targets as target_ops
from maskx_tf.losses import Loss
from maskx_tf.models.branch import Prepared, Scene
from maskx_tf.models.filters import TransferredFilters
from maskx_tf.models.mask_losses import MaskLoss, MaskSamples
from maskx_tf.ops import masks as mask_ops
from maskx_tf.ops import sampling
from maskx_tf.structures import Detections, Targets
from maskx_tf.targets import RegionTargets


class MaskRegions(Protocol):
    """Where the mask branch learns."""

    @property
    def size(self) -> int: ...

    def choose(self, regions: RegionTargets, truth: Targets, seed: tf.Tensor) -> RegionTargets:
        """`size` regions an image, of those sampled for the boxes or of the truth."""
        ...


class SampledRegions(NamedTuple):
    """The sampled regions that can be foreground, of which there are `size`."""

    size: int

    def choose(self, regions: RegionTargets, truth: Targets, seed: tf.Tensor) -> RegionTargets:
        del truth, seed
        return RegionTargets(*(values[:, : self.size] for values in regions))


class TruthRegions(NamedTuple):
    """The boxes of the truth itself, beyond the papers; see `targets.truth_regions` for the fields."""

    size: int
    jitter: float

    def choose(self, regions: RegionTargets, truth: Targets, seed: tf.Tensor) -> RegionTargets:
        del regions
        return target_ops.truth_regions(truth, seed=seed, size=self.size, jitter=self.jitter)


class PooledRegions(NamedTuple):
    """Regions to learn from, with what the head reads of them.

    Attributes:
        pooled: float [B, N, size, size, C].
        classes: int32 [B, N], 1..K; 0 for background and padding.
        truth: float32 [B, N, M, M], 0 or 1; means nothing where has_mask is false.
        has_mask: bool [B, N].
    """

    pooled: tf.Tensor
    classes: tf.Tensor
    truth: tf.Tensor
    has_mask: tf.Tensor


class MaskBranch:
    """Pools each box once more and draws the mask of its class.

    Args:
        pool: levels and boxes to pooled features.
        head: pooled features, and classes or filters, to one map of logits a region.
        filters: the filters of all classes; None: the head has filters itself.
        softmax: the classes and the background compete for each pixel.
        loss: what the masks learn from.
        regions: where they learn.
    """

    name = "mask"
    outputs = frozenset({"masks"})

    def __init__(
        self,
        *,
        pool: keras.layers.Layer,
        head: keras.layers.Layer,
        filters: TransferredFilters | None,
        softmax: bool,
        loss: MaskLoss,
        regions: MaskRegions,
    ) -> None:
        self.pool = pool
        self.head = head
        self.filters = filters
        self.softmax = softmax
        self.loss = loss
        self.regions = regions

    @property
    def loss_names(self) -> tuple[str, ...]:
        return self.loss.names

    def layers(self) -> list[keras.layers.Layer]:
        return [self.head] if self.filters is None else [self.head, self.filters.transfer]

    def build(self, channels: int) -> None:
        self.head.build((None, None, self.pool.size, self.pool.size, channels))

    def prepare(self) -> Prepared:
        """The filters of all foreground classes, float32 [K, C], if they come from outside the head."""
        return () if self.filters is None else (self.filters.all(),)

    def predict(self, scene: Scene, found: Detections, prepared: Prepared) -> Detections:
        return found._replace(masks=self.probabilities(scene.features, found.boxes, found.classes, prepared))

    def probabilities(
        self, features: list[tf.Tensor], boxes: tf.Tensor, classes: tf.Tensor, prepared: Prepared
    ) -> tf.Tensor:
        """Masks float32 [B, N, M, M] in 0..1 of boxes with classes 1..K."""
        logits = self.logits(self.pooled(features, boxes), classes, prepared)
        return _of_class(tf.nn.softmax(logits), classes) if self.softmax else tf.sigmoid(logits)

    def pooled(self, features: list[tf.Tensor], boxes: tf.Tensor, training: bool = False) -> tf.Tensor:
        """What the head reads of boxes: float [B, N, size, size, C]."""
        return self.pool(features[: len(self.pool.strides)], boxes, training=training)

    def logits(self, pooled: tf.Tensor, classes: tf.Tensor, prepared: Prepared) -> tf.Tensor:
        """Logits float32 [B, N, M, M] of each region's own class; of all, [B, N, M, M, K + 1], where they compete."""
        if self.softmax:
            return self.head.all_outputs(pooled)
        if self.filters is None:
            return self.head(pooled, classes)
        (filters,) = prepared
        return self.head(pooled, tf.gather(filters, tf.maximum(classes - 1, 0)))

    def losses(self, scene: Scene, regions: RegionTargets, truth: Targets, seed: tf.Tensor) -> dict[str, Loss]:
        return self.losses_of_pooled(self.pool_regions(scene, regions, truth, seed))

    def pool_regions(self, scene: Scene, regions: RegionTargets, truth: Targets, seed: tf.Tensor) -> PooledRegions:
        """The regions in which this branch learns, with their features and their truth; see `losses`."""
        chosen = self.regions.choose(regions, truth, sampling.fold_in(seed, 2))
        pooled = self.pooled(scene.features, chosen.boxes, training=True)
        return PooledRegions(pooled, chosen.classes, self.targets(chosen, truth), chosen.has_mask)

    def losses_of_pooled(self, regions: PooledRegions) -> dict[str, Loss]:
        """The losses of regions whose features are pooled already."""
        logits = self.logits(regions.pooled, regions.classes, self.prepare())
        losses = self.loss(MaskSamples(logits, regions.truth, regions.has_mask, regions.classes))
        return {name: loss_ops.nan_unless_finite(loss, [logits]) for name, loss in losses.items()}

    def targets(self, regions: RegionTargets, truth: Targets) -> tf.Tensor:
        """Binary masks float32 [B, N, M, M] that the regions should get."""
        shares = mask_ops.mask_targets(truth.masks, truth.boxes, regions.boxes, regions.truths, size=self.head.side)
        return tf.cast(shares >= 0.5, tf.float32)


def pooled_regions_of(batch: dict[str, tf.Tensor], side: int) -> PooledRegions:
    """The regions of a batch that the study pooled before, a region an entry, each with a mask.

    Args:
        batch: pooled float [B, size, size, C], classes int32 [B], and masks uint8 [B, side * side / 8], packed.
        side: M.
    """
    classes = batch["classes"][:, None]
    truth = tf.reshape(mask_ops.unpack_bits(batch["masks"]), [-1, 1, side, side])
    pooled = tf.cast(batch["pooled"], tf.float32)[:, None]
    return PooledRegions(pooled, classes, tf.cast(truth, tf.float32), tf.ones_like(classes, tf.bool))


def _of_class(outputs: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """The map [B, N, M, M] of each region's class, out of [B, N, M, M, K + 1]."""
    own = tf.one_hot(classes, outputs.shape[-1])[..., None, None, :]
    return tf.reduce_sum(outputs * own, axis=-1)
