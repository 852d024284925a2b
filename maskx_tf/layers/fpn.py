"""Feature pyramid (Lin et al. 2017): P2 to P5 from C2 to C5, and P6 for the RPN."""

from __future__ import annotations

import keras
import tensorflow as tf

from maskx_tf.layers.norm import ConvNorm
from maskx_tf.layers.parts import Layer, Shape

LEVELS = (2, 3, 4, 5)


class FPN(Layer):
    """Lateral 1x1 convolutions, a top-down sum, and 3x3 convolutions; P6 is every other cell of P5.

    Args:
        channels: the number of channels of every level.
    """

    def __init__(self, channels: int = 256, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        # Caffe2's XavierFill.
        options = {
            "kernel_initializer": keras.initializers.VarianceScaling(1.0, "fan_in", "uniform"),
            "dtype": self.dtype_policy,
        }
        self.laterals = [ConvNorm(channels, 1, name=f"lateral{level}", **options) for level in LEVELS]
        self.outputs = [ConvNorm(channels, 3, name=f"output{level}", **options) for level in LEVELS]

    def build(self, input_shape: Shape) -> None:
        for lateral, output, shape in zip(self.laterals, self.outputs, input_shape, strict=True):
            lateral.build(shape)
            output.build((*shape[:-1], self.channels))

    def call(self, features: list[tf.Tensor]) -> list[tf.Tensor]:
        """P2 to P6, float [B, H, W, channels], of C2 to C5, each half the size of the one before it."""
        merged = [lateral(feature) for lateral, feature in zip(self.laterals, features, strict=True)]
        for level in range(len(merged) - 2, -1, -1):
            merged[level] += double_cells(merged[level + 1])
        pyramid = [output(level) for output, level in zip(self.outputs, merged, strict=True)]
        return [*pyramid, pyramid[-1][:, ::2, ::2]]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        last = input_shape[-1]
        shapes = [*input_shape, (last[0], -(-last[1] // 2), -(-last[2] // 2), last[3])]
        return [(*shape[:-1], self.channels) for shape in shapes]


class LastMap(Layer):
    """The neck of models without a pyramid: the coarsest map alone."""

    def call(self, features: list[tf.Tensor]) -> list[tf.Tensor]:
        """A list of one map."""
        return [features[-1]]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return [input_shape[-1]]


def double_cells(features: tf.Tensor) -> tf.Tensor:
    """Every cell of [B, H, W, C] twice along both sides.

    Of concatenations: the gradient of a broadcast takes several times as long, that of a nearest resize cannot be made
    deterministic on a GPU, and LiteRT's quantised operators have no room for six dimensions.
    """
    height, width, channels = features.shape[1:]
    rows = tf.reshape(tf.concat([features, features], axis=-1), [-1, height, 2 * width * channels])
    return tf.reshape(tf.concat([rows, rows], axis=-1), [-1, 2 * height, 2 * width, channels])
