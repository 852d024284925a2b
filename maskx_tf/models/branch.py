"""The interface of a branch (ARCHITECTURE.md calls it the contract), and the data that the trunk shares with it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import keras
import tensorflow as tf

from maskx_tf.losses import Loss
from maskx_tf.structures import Detections, Proposals, Targets
from maskx_tf.targets import RegionTargets

# What a branch computes from its weights alone, once for all images.
Prepared = tuple[tf.Tensor, ...]


class Scene(NamedTuple):
    """The images of a batch, as every branch sees them.

    Attributes:
        images: [B, H, W, 3], RGB canvases in 0..255.
        image_sizes: float32 [B, 2], height and width of each image inside its canvas.
        features: the pyramid's levels, float [B, H / stride, W / stride, C] each, finest first.
    """

    images: tf.Tensor
    image_sizes: tf.Tensor
    features: list[tf.Tensor]


class Branch(Protocol):
    """A head that adds something to each detection, such as a mask.

    Attributes:
        name: the name by which a stage of training names the branch.
        outputs: the fields of `Detections` that it fills.
        loss_names: the keys of `losses`.
    """

    name: str
    outputs: frozenset[str]

    @property
    def loss_names(self) -> tuple[str, ...]: ...

    def layers(self) -> list[keras.layers.Layer]:
        """The layers that belong to this branch alone: those that a stage of training freezes with it."""
        ...

    def build(self, channels: int) -> None:
        """Makes the variables, for pooled features of so many channels."""
        ...

    def prepare(self) -> Prepared:
        """Returns the values that `predict` needs and that depend on weights alone, such as T's filters."""
        ...

    def losses(self, scene: Scene, regions: RegionTargets, truth: Targets, seed: tf.Tensor) -> dict[str, Loss]:
        """The losses of a batch.

        Args:
            scene: the images and their features.
            regions: the sampled regions, those that can be foreground first.
            truth: the instances of each image.
            seed: int32 [2], or [B, 2] with one for each image.
        """
        ...

    def predict(self, scene: Scene, found: Detections, prepared: Prepared) -> Detections:
        """The detections with the fields of `outputs`; reads boxes and classes alone."""
        ...


class RegionSource(Protocol):
    """A choice of the regions in which the heads learn."""

    def sample(self, proposals: Proposals, truth: Targets, seed: tf.Tensor) -> RegionTargets:
        """Regions of the proposals and of the truth's own boxes, with their targets."""
        ...


class Detector(Protocol):
    """The head that makes detections of proposals.

    Attributes:
        outputs: the fields of `Detections` that it fills.
        loss_names: the keys of `losses`.
    """

    @property
    def outputs(self) -> frozenset[str]: ...

    @property
    def loss_names(self) -> tuple[str, ...]: ...

    def layers(self) -> list[keras.layers.Layer]:
        """The layers of this head: those that a stage of training freezes with it."""
        ...

    def build(self, channels: int) -> None:
        """Makes the variables, for pooled features of so many channels."""
        ...

    def losses(self, scene: Scene, regions: RegionTargets, truth: Targets) -> dict[str, Loss]:
        """The losses of the sampled regions; `truth` has the masks of the instances, for heads that draw them, too."""
        ...

    def detect(self, scene: Scene, proposals: Proposals, score: float | None = None) -> Detections:
        """Detections in canvas pixels with a score above this one; None stands for the model's own threshold."""
        ...

    def classify(self, scene: Scene, boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The best foreground class of given boxes [B, N, 4], int32 [B, N], and its score float32 [B, N]."""
        ...
