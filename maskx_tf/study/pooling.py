"""Pools the regions of a detector that does not learn, from images as they are and mirrored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from maskx_tf.data.pipeline.batches import Batch
from maskx_tf.models.branch import Scene
from maskx_tf.models.rcnn import RCNN
from maskx_tf.ops import sampling
from maskx_tf.ops.batches import targets_of
from maskx_tf.structures import Targets


class Regions(NamedTuple):
    """Regions of instances, without their masks.

    Attributes:
        pooled: float16 [n, size, size, C].
        pixels: uint8 [n, M, M, 3]; [n, 0] where the branches read none.
        classes: int32 [n].
        boxes: float32 [n, 4], in pixels of the canvas, with the branch's margin.
        truth_boxes: float32 [n, 4], the box of each region's instance.
        truths: int32 [n], the place of the instance in its image.
        image_sizes: float32 [n, 2].
        images: int64 [n], the number of each region's image.
        mirrored: uint8 [n], whether the image was looked at mirrored.
    """

    pooled: np.ndarray
    pixels: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    truth_boxes: np.ndarray
    truths: np.ndarray
    image_sizes: np.ndarray
    images: np.ndarray
    mirrored: np.ndarray


def mirrored(batch: Batch) -> tuple[tf.Tensor, Targets]:
    """The images of a batch left to right, each within its own width, and the truth about them."""
    widths = batch["image_sizes"][:, 1]
    images = tf.reverse_sequence(batch["images"], tf.cast(widths, tf.int32), seq_axis=2, batch_axis=0)
    return images, mirrored_truth(targets_of(batch), batch["image_sizes"])


def mirrored_truth(truth: Targets, image_sizes: tf.Tensor) -> Targets:
    """The truth about images that were mirrored left to right, each within its own width."""
    widths = image_sizes[:, 1, None]
    x1, y1, x2, y2 = tf.unstack(truth.boxes, axis=-1)
    boxes = tf.where(truth.valid[..., None], tf.stack([widths - x2, y1, widths - x1, y2], axis=-1), 0.0)
    return truth._replace(boxes=boxes, masks=tf.reverse(truth.masks, [-1]))


def pooled_regions(model: RCNN, batches: Iterable[Batch], views: int, seed: int) -> Iterator[Regions]:
    """The regions of the instances in each batch, as it is and, with two views, mirrored."""
    seeds = tf.constant([seed % 2**31, 0])
    branch = model.mask
    chooser = branch.regions.of_every_instance()

    def pool(images: tf.Tensor, sizes: tf.Tensor, truth: Targets, own: tf.Tensor) -> tuple[tf.Tensor, ...]:
        scene = model.scene(images, sizes)
        proposals = model.rpn.train.choose(model.rpn.outputs(scene.features), sizes)
        regions = chooser.choose(model.sampled_regions(proposals, truth, own), truth, sampling.fold_in(own, 2))
        boxes = branch.with_margin(regions.boxes)
        truth_boxes = tf.gather(truth.boxes, regions.truths, batch_dims=1)
        features = tf.cast(branch.pooled(scene, boxes, training=True), tf.float16)
        return features, _bytes(model, scene, boxes), regions.classes, boxes, truth_boxes, regions.truths

    @tf.function(autograph=False)
    def plain(batch: Batch, own: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return pool(batch["images"], batch["image_sizes"], targets_of(batch), own)

    @tf.function(autograph=False)
    def turned(batch: Batch, own: tf.Tensor) -> tuple[tf.Tensor, ...]:
        images, truth = mirrored(batch)
        return pool(images, batch["image_sizes"], truth, own)

    for number, batch in enumerate(batches):
        for way, view in enumerate((plain, turned)[:views]):
            own = sampling.fold_in(sampling.fold_in(seeds, number), way)
            arrays = [part.numpy() for part in view(batch, own)]
            kept = arrays[2] > 0
            if kept.any():
                numbers = np.broadcast_to(batch["image_ids"].numpy()[:, None], kept.shape)[kept]
                sizes = np.broadcast_to(batch["image_sizes"].numpy()[:, None], (*kept.shape, 2))[kept]
                of_image = [sizes, numbers, np.full(len(numbers), way, np.uint8)]
                yield Regions(*[part[kept] for part in arrays] + of_image)


def _bytes(model: RCNN, scene: Scene, boxes: tf.Tensor) -> tf.Tensor:
    """The pixels of regions uint8 [B, N, M, M, 3]; [B, N, 0] where the branch reads none."""
    branch = model.mask
    if not (branch.reads_pixels or branch.loss.reads_pixels):
        return tf.zeros([tf.shape(boxes)[0], boxes.shape[1], 0], tf.uint8)
    return tf.cast(tf.round(branch.pixels(scene, boxes)), tf.uint8)
