"""A model of a few weights that learns as every family does: a sampled loss, a second one, and a batch norm."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from maskx_tf.losses import Loss, nan_unless_finite
from maskx_tf.models.trainable import Batch, Trainable

NAMES = ("loss_shift", "loss_size")


class Toy(Trainable):
    """Means of features, moved by a number that each image's seed draws; canvases must be multiples of 4."""

    def __init__(self) -> None:
        super().__init__(name="toy")
        keras.utils.set_random_seed(0)
        self.conv = keras.layers.Conv2D(4, 4, strides=4, name="conv")
        self.conv.build((None, None, None, 3))
        self.norm = keras.layers.BatchNormalization(name="norm")
        self.norm.build((None, None, None, 4))
        self.built = True

    def features(self, images: tf.Tensor, training: bool) -> tf.Tensor:
        if images.shape[1] % 4 or images.shape[2] % 4:  # also fails where they are None, as those of the families
            raise ValueError("canvas")
        return self.norm(self.conv(tf.cast(images, tf.float32) / 255), training=training)

    def call(self, inputs: Batch, training: bool = False) -> dict[str, tf.Tensor]:
        return {"means": tf.reduce_mean(self.features(inputs["images"], training), axis=[1, 2])}

    def loss_names(self) -> tuple[str, ...]:
        return NAMES

    def batch_losses(self, batch: Batch, seeds: tf.Tensor) -> dict[str, Loss]:
        # The norm has no part in the losses: batch statistics are those of each device.
        features = tf.cast(self.conv(tf.cast(batch["images"], tf.float32) / 255), tf.float32)
        self.features(batch["images"], training=True)
        drawn = tf.map_fn(lambda seed: tf.random.stateless_uniform([4], seed), seeds, fn_output_signature=tf.float32)
        moved = tf.reduce_mean(features, axis=[1, 2]) - drawn - batch["shift"][:, None]
        count = tf.cast(tf.size(moved), tf.float32)
        losses = Loss(tf.reduce_sum(moved**2), count), Loss(tf.reduce_sum(features[:, 0, 0] ** 2), count)
        return dict(zip(NAMES, (nan_unless_finite(loss, [features]) for loss in losses), strict=True))


def batch(images: int = 4, side: int = 8) -> dict[str, np.ndarray]:
    """Random images, each with a shift."""
    rng = np.random.default_rng(images * side)
    pixels = rng.integers(0, 256, (images, side, side, 3), np.uint8)
    return {"images": pixels, "shift": np.arange(images, dtype=np.float32)}


def broken(images: int = 4, *, only_last: bool = False) -> dict[str, np.ndarray]:
    """A batch whose gradient is not finite, because of all images or of the last one."""
    good = batch(images)
    bad = np.arange(images) >= (images - 1 if only_last else 0)
    return {**good, "shift": np.where(bad, np.nan, good["shift"]).astype(np.float32)}
