"""The trunk of every family: features, proposals and detections, to which branches add masks and more."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from maskx_tf import losses as loss_ops
from maskx_tf.layers.parts import LayerConfig
from maskx_tf.losses import Loss
from maskx_tf.models.branch import Branch, Detector, Prepared, RegionSource, Scene
from maskx_tf.models.dict_model import Batch
from maskx_tf.models.masks import MaskBranch, pooled_regions_of
from maskx_tf.models.proposals import ProposalStage
from maskx_tf.models.trainable import Trainable
from maskx_tf.ops import images as image_ops
from maskx_tf.ops import sampling
from maskx_tf.ops.batches import targets_of
from maskx_tf.structures import Detections, Proposals, Targets
from maskx_tf.targets import RegionTargets

FEATURES, RPN, BOX = "features", "rpn", "box"


class Normaliser(NamedTuple):
    """How the backbone wants its pixels; see `ops.images.normalise` for the fields."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool

    def apply(self, images: tf.Tensor, image_sizes: tf.Tensor) -> tf.Tensor:
        """Canvases [B, H, W, 3] in 0..255, normalised, zero beyond each image."""
        return image_ops.normalise(images, image_sizes, **self._asdict())


@keras.saving.register_keras_serializable(package="maskx_tf")
class RCNN(Trainable):
    """A two-stage model: Faster R-CNN without branches, Mask R-CNN with the mask branch.

    Inputs are RGB canvases [B, H, W, 3] in 0..255 and image sizes float32 [B, 2] (height, width) inside them.

    Attributes:
        parts: the names of what a stage of training can let learn: features, rpn, box, and the branches' names.
        learning_parts: those that learn; see `learn`.
        proposer: gives the heads' regions for canvases and image sizes; None: the model's own network.
        outputs: the fields of `Detections` that are filled besides scores, classes and flags.
        origin: the arguments of `build` that made it, as plain data, for Keras' files; None for a model made by hand.

    Args:
        normaliser: canvas to the backbone's input.
        backbone: normalised canvas to feature maps.
        neck: feature maps to the levels that the RPN reads; RoI pooling reads the first of them.
        rpn: levels to proposals.
        sampler: proposals to the regions in which the heads learn.
        box: proposals to detections.
        mask: the branch that has a mask head, the first of the branches; None for a family that has none.
        branches: what else is added to each detection, in order.
    """

    def __init__(
        self,
        *,
        normaliser: Normaliser,
        backbone: keras.layers.Layer,
        neck: keras.layers.Layer,
        rpn: ProposalStage,
        sampler: RegionSource,
        box: Detector,
        mask: MaskBranch | None = None,
        branches: tuple[Branch, ...] = (),
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)
        # Keras would round image sizes to the compute type on their way in; the layers cast what they compute with.
        self.autocast = False
        self.normaliser = normaliser
        self.backbone = backbone
        self.neck = neck
        self.rpn = rpn
        self.sampler = sampler
        self.box = box
        self._mask = mask
        self.branches = branches if mask is None else (mask, *branches)
        self.outputs = box.outputs.union(*(branch.outputs for branch in self.branches))
        # Keras does not look for layers inside the branches, which are no layers themselves. This order is the order
        # of the optimizer's variables in checkpoints.
        self.part_layers = {
            FEATURES: [backbone, neck],
            RPN: [rpn.head],
            BOX: box.layers(),
            **{branch.name: branch.layers() for branch in self.branches},
        }
        self.parts = tuple(self.part_layers)
        self.learning_parts = frozenset(self.parts)
        self.origin: LayerConfig | None = None
        self.proposer: Callable[[tf.Tensor, tf.Tensor], Proposals] | None = None

    def learn(self, parts: Collection[str]) -> None:
        """Sets the parts that learn. Freezes the layers of the others permanently, and skips their losses."""
        if unknown := sorted(set(parts) - set(self.parts)):
            raise ValueError(f"{self.name} has no part {unknown[0]}, expected some of {', '.join(self.parts)}")
        self.learning_parts = frozenset(parts)
        for name, layers in self.part_layers.items():
            if name not in parts:
                for layer in layers:
                    layer.trainable = False

    def get_config(self) -> LayerConfig:
        if self.origin is None:
            return super().get_config()
        parts = sorted(self.learning_parts)
        return {"origin": dict(self.origin), "learning_parts": parts, "dtype": self.dtype_policy.name}

    @classmethod
    def from_config(cls, config: LayerConfig, custom_objects: object = None) -> Any:
        from maskx_tf.models.build import of_config  # which imports this file

        del custom_objects
        return of_config(**config)

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.get_config()  # refuses a model made by hand before a file is begun
        keras.Model.save(self, *args, **kwargs)

    def branch(self, name: str) -> Branch:
        """The branch of this name.

        Raises:
            KeyError: the model has no such branch.
        """
        return {branch.name: branch for branch in self.branches}[name]

    @property
    def mask(self) -> MaskBranch:
        """The branch that has a mask head.

        Raises:
            TypeError: the model has none: no masks, or masks of another kind, as FCIS.
        """
        if self._mask is None:
            raise TypeError(f"{self.name} has no mask head")
        return self._mask

    def call(self, inputs: dict[str, tf.Tensor], training: bool = False) -> Detections:
        """Detections in canvas pixels of {"images", "image_sizes"}."""
        del training
        return self.infer(inputs["images"], inputs["image_sizes"], self.prepare())

    def prepare(self) -> tuple[Prepared, ...]:
        """Returns each branch's values that depend on weights alone; a predictor computes them once."""
        return tuple(branch.prepare() for branch in self.branches)

    def infer(
        self,
        images: tf.Tensor,
        image_sizes: tf.Tensor,
        prepared: tuple[Prepared, ...],
        score: float | None = None,
    ) -> Detections:
        """Detections in canvas pixels; `score` replaces the model's own threshold."""
        scene = self.scene(images, image_sizes)
        return self.complete(scene, self.detect(scene, score), prepared)

    def segment(
        self,
        images: tf.Tensor,
        image_sizes: tf.Tensor,
        boxes: tf.Tensor,
        classes: tf.Tensor | None,
        prepared: tuple[Prepared, ...],
    ) -> Detections:
        """Returns the branches' outputs for given boxes [B, N, 4], of classes int32 [B, N] or the likeliest."""
        scene = self.scene(images, image_sizes)
        if classes is None:
            classes, scores = self.box.classify(scene, boxes)
        else:
            scores = tf.ones_like(boxes[..., 0])
        given = Detections(boxes, scores, classes, tf.ones_like(classes, tf.bool))
        return self.complete(scene, given, prepared)

    def scene(self, images: tf.Tensor, image_sizes: tf.Tensor, training: bool = False) -> Scene:
        """The images with their features."""
        return Scene(images, image_sizes, self.features(images, image_sizes, training=training))

    def features(self, images: tf.Tensor, image_sizes: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        """The levels that the heads read, float [B, H / stride, W / stride, C] each.

        Raises:
            ValueError: the canvas is not a multiple of the coarsest stride.
        """
        image_ops.check_canvas(images, multiple=self.backbone.strides[-1])
        return self.neck(self.backbone(self.normaliser.apply(images, image_sizes), training=training))

    def detect(self, scene: Scene, score: float | None = None) -> Detections:
        """Detections without what the branches add."""
        proposals = self.rpn.test.choose(self.rpn.outputs(scene.features), scene.image_sizes)
        return self.box.detect(scene, proposals, score)

    def complete(self, scene: Scene, found: Detections, prepared: tuple[Prepared, ...]) -> Detections:
        """The detections with what every branch adds."""
        for branch, own in zip(self.branches, prepared, strict=True):
            found = branch.predict(scene, found, own)
        return found

    def loss_names(self) -> tuple[str, ...]:
        own = {RPN: self.rpn.loss_names, BOX: self.box.loss_names}
        own |= {branch.name: branch.loss_names for branch in self.branches}
        return tuple(name for part in self.parts if part in self.learning_parts for name in own.get(part, ()))

    def batch_losses(self, batch: Batch, seeds: tf.Tensor) -> dict[str, Loss]:
        if "pooled" in batch:
            return self.mask.losses_of_pooled(pooled_regions_of(batch, self.mask.head.side))
        return self.losses_of(batch["images"], batch["image_sizes"], targets_of(batch), seeds)

    def losses_of(self, images: tf.Tensor, image_sizes: tf.Tensor, truth: Targets, seed: tf.Tensor) -> dict[str, Loss]:
        """Every loss of a batch, as total and count, of the parts that learn.

        Args:
            images: see the class.
            image_sizes: see the class.
            truth: the instances, in canvas pixels.
            seed: int32 [2] of the sampling, or [B, 2] with one for each image.
        """
        scene = self.scene(images, image_sizes, training=FEATURES in self.learning_parts)
        outputs = self.rpn.outputs(scene.features)
        losses: dict[str, Loss] = {}
        if RPN in self.learning_parts:
            losses |= self.rpn.losses(outputs, image_sizes, truth, seed)
        proposals = (
            self.rpn.train.choose(outputs, image_sizes) if self.proposer is None else self.proposer(images, image_sizes)
        )
        regions = self.sampled_regions(proposals, truth, seed)
        if BOX in self.learning_parts:
            losses |= self.box.losses(scene, regions, truth)
        for branch in self.branches:
            if branch.name in self.learning_parts:
                losses |= branch.losses(scene, regions, truth, seed)
        # A fused convolution with ReLU may turn NaN into 0 on its way to what the losses look at.
        first = next(iter(losses))
        return {**losses, first: loss_ops.nan_unless_finite(losses[first], scene.features)}

    def sampled_regions(self, proposals: Proposals, truth: Targets, seed: tf.Tensor) -> RegionTargets:
        """The regions in which the heads learn."""
        # Proposals are inputs: no loss of the heads changes the RPN through their corners.
        fixed = Proposals(tf.stop_gradient(proposals.boxes), proposals.scores, proposals.valid)
        return self.sampler.sample(fixed, truth, sampling.fold_in(seed, 1))
