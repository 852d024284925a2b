"""The mask branch: a mask for every detection, in parallel to its box (He et al. 2017)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import keras
import tensorflow as tf

from maskx_tf import losses as loss_ops
from maskx_tf import targets as target_ops
from maskx_tf.losses import Loss
from maskx_tf.models.branch import Prepared, Scene
from maskx_tf.models.filters import TransferredFilters
from maskx_tf.models.mask_losses import MaskLoss, PooledRegions
from maskx_tf.ops import boxes as box_ops
from maskx_tf.ops import colour, sampling
from maskx_tf.ops import images as image_ops
from maskx_tf.ops import masks as mask_ops
from maskx_tf.structures import Detections, Targets
from maskx_tf.targets import RegionTargets

# Fewer regions per image than this are not compiled separately, because they cost little.
SMALLEST = 16


class MaskRegions(Protocol):
    """Where the mask branch learns."""

    @property
    def size(self) -> int: ...

    def choose(self, regions: RegionTargets, truth: Targets, seed: tf.Tensor) -> RegionTargets:
        """`size` regions an image, of those sampled for the boxes or of the truth."""
        ...

    def of_every_instance(self) -> MaskRegions:
        """The same, with regions of instances without a mask, too."""
        ...


class SampledRegions(NamedTuple):
    """The sampled regions that can be foreground, of which there are `size`."""

    size: int

    def choose(self, regions: RegionTargets, truth: Targets, seed: tf.Tensor) -> RegionTargets:
        del truth, seed
        return RegionTargets(*(values[:, : self.size] for values in regions))

    def of_every_instance(self) -> SampledRegions:
        return self


class TruthRegions(NamedTuple):
    """The boxes of the truth itself, beyond the papers; see `targets.truth_regions` for the fields."""

    size: int
    jitter: float
    with_boxes: bool
    turn: bool

    def choose(self, regions: RegionTargets, truth: Targets, seed: tf.Tensor) -> RegionTargets:
        del regions
        return target_ops.truth_regions(truth, seed=seed, **self._asdict())

    def of_every_instance(self) -> TruthRegions:
        return self._replace(with_boxes=True)


@dataclass(eq=False, kw_only=True)
class MaskBranch:
    """Pools each box once more and draws the mask of its class.

    Attributes:
        pool: levels and boxes to pooled features.
        head: pooled features, and classes or filters, to one map of logits a region.
        filters: the filters of all classes; None: the head has filters itself.
        softmax: the classes and the background compete for each pixel.
        loss: what the masks learn from.
        regions: chooses the regions in which they learn.
        margin: the head looks beyond each side of a box, by this share of the box's width or height.
        reads_pixels: the head reads the region's pixels next to its features.
        portable: whether to use only operations that XLA and LiteRT can compile.
        averages: gives the running averages of weights, for a loss that reads `PooledRegions.taught`.
    """

    name = "mask"
    outputs = frozenset({"masks"})

    pool: keras.layers.Layer
    head: keras.layers.Layer
    filters: TransferredFilters | None
    softmax: bool
    loss: MaskLoss
    regions: MaskRegions
    margin: float
    reads_pixels: bool
    portable: bool
    averages: Callable[[], Sequence[tuple[keras.Variable, tf.Tensor]]] | None = None

    @property
    def loss_names(self) -> tuple[str, ...]:
        return self.loss.names

    def layers(self) -> list[keras.layers.Layer]:
        return [self.head] if self.filters is None else [self.head, self.filters.transfer]

    def build(self, channels: int) -> None:
        size = self.pool.size
        shape = (None, None, size, size, channels)
        self.head.build((shape, (None, None, 2 * size, 2 * size, 3)) if self.reads_pixels else shape)

    def prepare(self) -> Prepared:
        """The filters of all foreground classes, float32 [K, C], if they come from outside the head."""
        return () if self.filters is None else (self.filters.all(),)

    def predict(self, scene: Scene, found: Detections, prepared: Prepared) -> Detections:
        return found._replace(masks=self.probabilities(scene, found.boxes, found.classes, prepared))

    def probabilities(self, scene: Scene, boxes: tf.Tensor, classes: tf.Tensor, prepared: Prepared) -> tf.Tensor:
        """Masks float32 [B, N, M, M] in 0..1 of boxes with classes 1..K."""
        regions = self.with_margin(boxes)
        logits = self.logits(self.read(scene, regions), classes, prepared)
        masks = _of_class(tf.nn.softmax(logits), classes) if self.softmax else tf.sigmoid(logits)
        return mask_ops.cut_margin(masks, self.margin) if self.margin else masks

    def with_margin(self, boxes: tf.Tensor) -> tf.Tensor:
        """The regions [B, N, 4] that the head looks at for boxes."""
        return box_ops.with_margin(boxes, self.margin) if self.margin else boxes

    def read(self, scene: Scene, regions: tf.Tensor) -> tf.Tensor | tuple[tf.Tensor, tf.Tensor]:
        """Returns the head's input for regions: their features, and their pixels if it uses them."""
        pooled = self.pooled(scene, regions)
        return (pooled, self.pixels(scene, regions)) if self.reads_pixels else pooled

    def pooled(self, scene: Scene, regions: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The features of regions: float [B, N, size, size, C]."""
        return self.pool(scene.features[: len(self.pool.strides)], regions, training=training)

    def pixels(self, scene: Scene, regions: tf.Tensor) -> tf.Tensor:
        """The pixels of regions on the mask's grid: float32 [B, N, M, M, 3] in 0..255, zeros beyond the image."""
        images = image_ops.blank_beyond(scene.images, scene.image_sizes)
        return colour.region_pixels(images, regions, size=self.head.side, gather=self.portable)

    def logits(
        self, read: tf.Tensor | tuple[tf.Tensor, tf.Tensor], classes: tf.Tensor, prepared: Prepared
    ) -> tf.Tensor:
        """Logits float32 [B, N, M, M] of each region's own class; of all, [B, N, M, M, K + 1], where they compete."""
        if self.softmax:
            return self.head.all_outputs(read)
        if self.filters is None:
            return self.head(read, classes)
        (filters,) = prepared
        return self.head(read, tf.gather(filters, tf.maximum(classes - 1, 0)))

    def losses(self, scene: Scene, regions: RegionTargets, truth: Targets, seed: tf.Tensor) -> dict[str, Loss]:
        chosen = self.regions.choose(regions, truth, sampling.fold_in(seed, 2))
        teaches = chosen.has_mask | (chosen.classes > 0) if self.loss.reads_boxes else chosen.has_mask
        order = sampling.flagged_first(teaches)
        ordered = RegionTargets(*(tf.gather(values, order, batch_dims=1) for values in chosen))
        most = tf.reduce_max(tf.reduce_sum(tf.cast(teaches, tf.int32), axis=1))
        # XLA needs one shape for the values that a branch keeps for its gradient.
        sizes = [order.shape[1]] if self.portable else region_sizes(order.shape[1])

        def of_first(size: int) -> dict[str, Loss]:
            first = RegionTargets(*(values[:, :size] for values in ordered))
            return self.losses_of_pooled(self.pool_regions(scene, first, truth))

        if len(sizes) == 1:
            return of_first(sizes[0])
        smallest = tf.reduce_sum(tf.cast(most > tf.constant(sizes[:-1], tf.int32), tf.int32))
        return tf.switch_case(smallest, [functools.partial(of_first, size) for size in sizes])

    def pool_regions(self, scene: Scene, chosen: RegionTargets, truth: Targets) -> PooledRegions:
        """Chosen regions with their features and their truth."""
        boxes = self.with_margin(chosen.boxes)
        return PooledRegions(
            pooled=self.pooled(scene, boxes, training=True),
            pixels=self.pixels(scene, boxes) if self.reads_pixels or self.loss.reads_pixels else None,
            classes=chosen.classes,
            truth=self.targets(chosen._replace(boxes=boxes), truth),
            has_mask=chosen.has_mask,
            boxes=boxes,
            truth_boxes=tf.gather(truth.boxes, chosen.truths, batch_dims=1),
            image_sizes=scene.image_sizes,
            clicks=None if truth.clicks is None else tf.gather(truth.clicks, chosen.truths, batch_dims=1),
        )

    def losses_of_pooled(self, regions: PooledRegions) -> dict[str, Loss]:
        """The losses of regions whose features are pooled already."""
        read = (regions.pooled, regions.pixels) if self.reads_pixels else regions.pooled
        logits = self.logits(read, regions.classes, self.prepare())
        if self.loss.reads_taught:
            regions = regions._replace(taught=self.taught(read, regions.classes))
        losses = self.loss(logits, regions)
        return {name: loss_ops.nan_unless_finite(loss, [logits]) for name, loss in losses.items()}

    def taught(self, read: tf.Tensor | tuple[tf.Tensor, tf.Tensor], classes: tf.Tensor) -> tf.Tensor:
        """The masks float32 [B, N, M, M] in 0..1 that the running averages of the weights make.

        Raises:
            ValueError: the optimizer keeps no averages.
        """
        if self.averages is None:
            raise ValueError("model.mask.box_losses: expected an optimizer with running averages for the teacher")
        with keras.StatelessScope(state_mapping=self.averages()):
            return tf.stop_gradient(tf.sigmoid(self.logits(read, classes, self.prepare())))

    def targets(self, regions: RegionTargets, truth: Targets) -> tf.Tensor:
        """Binary masks float32 [B, N, M, M] that the regions should get."""
        shares = mask_ops.mask_targets(truth.masks, truth.boxes, regions.boxes, regions.truths, size=self.head.side)
        return tf.cast(shares >= 0.5, tf.float32)


def region_sizes(limit: int) -> list[int]:
    """Numbers of regions of an image for which the mask branch is compiled: the smallest that holds all is computed."""
    return [size for size in (limit // 8, limit // 4, limit // 2) if size >= SMALLEST] + [limit]


def pooled_regions_of(batch: dict[str, tf.Tensor], side: int) -> PooledRegions:
    """The regions of a batch that the study pooled before, one an entry; see `study.regions.batches_of`.

    Args:
        batch: the fields of `PooledRegions` without the second dimension; masks packed; no pixels where their array is
            empty.
        side: M.
    """
    one = {name: values[:, None] for name, values in batch.items()}
    truth = tf.reshape(mask_ops.unpack_bits(batch["masks"])[:, : side**2], [-1, 1, side, side])
    pixels = tf.cast(one["pixels"], tf.float32) if batch["pixels"].shape[1] else None
    return PooledRegions(
        pooled=tf.cast(one["pooled"], tf.float32),
        pixels=pixels,
        classes=one["classes"],
        truth=tf.cast(truth, tf.float32),
        has_mask=one["has_mask"] > 0,
        boxes=one["boxes"],
        truth_boxes=one["truth_boxes"],
        image_sizes=batch["image_sizes"],
    )


def _of_class(outputs: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """The map [B, N, M, M] of each region's class, out of [B, N, M, M, K + 1]."""
    own = tf.one_hot(classes, outputs.shape[-1])[..., None, None, :]
    return tf.reduce_sum(outputs * own, axis=-1)
