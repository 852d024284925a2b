"""The non-local block (Wang et al. 2018): every cell of a map also reads all others."""

from __future__ import annotations

import keras
import tensorflow as tf

from maskx_tf.layers.norm import ConvNorm
from maskx_tf.layers.parts import Layer, LayerConfig, Shape


class NonLocal(Layer):
    """Adds to each cell a mean of all cells, weighted by how much they resemble it (embedded Gaussian).

    Cells are compared and averaged in half of the channels, and averages are taken of a map that 2x2 maxima have
    halved. The last convolution starts at zero, so that a new block changes nothing.

    Args:
        channels: of the map.
    """

    def __init__(self, channels: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        options: LayerConfig = {"kernel_initializer": keras.initializers.RandomNormal(stddev=0.01)}
        options["dtype"] = self.dtype_policy
        self.theta, self.phi, self.g = (
            ConvNorm(channels // 2, 1, name=name, **options) for name in ("theta", "phi", "g")
        )
        self.out = ConvNorm(channels, 1, kernel_initializer="zeros", name="out", dtype=self.dtype_policy)

    def build(self, input_shape: Shape) -> None:
        for part in (self.theta, self.phi, self.g):
            part.build(input_shape)
        self.out.build((*input_shape[:-1], self.channels // 2))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        theta = self.theta(inputs)
        shape, width = tf.shape(theta), theta.shape[-1]
        keys, values = (
            tf.reshape(tf.nn.max_pool2d(part(inputs), 2, 2, "SAME"), [shape[0], -1, width])
            for part in (self.phi, self.g)
        )
        alike = tf.matmul(tf.reshape(theta, [shape[0], -1, width]), keys, transpose_b=True)
        weights = tf.nn.softmax(tf.cast(alike, tf.float32) * width**-0.5)
        return inputs + self.out(tf.reshape(tf.matmul(tf.cast(weights, values.dtype), values), shape))
