"""Region proposal network (Ren et al. 2015): one small head that slides over every level."""

from __future__ import annotations

import keras
import tensorflow as tf

from maskx_tf.layers.norm import ConvNorm
from maskx_tf.layers.parts import LayerConfig, Shape


@keras.saving.register_keras_serializable(package="maskx_tf")
class RPNHead(keras.layers.Layer):
    """A 3x3 convolution, then objectness and box deltas for the anchors of each cell; the same weights on all levels.

    Args:
        anchors: how many a cell.
        channels: of the 3x3 convolution.
    """

    def __init__(self, anchors: int, *, channels: int = 256, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.anchors = anchors
        self.channels = channels
        options = {"kernel_initializer": keras.initializers.RandomNormal(stddev=0.01), "dtype": self.dtype_policy}
        self.conv = ConvNorm(channels, 3, relu=True, name="conv", **options)
        self.objectness = ConvNorm(self.anchors, 1, name="objectness", **options)
        self.deltas = ConvNorm(4 * self.anchors, 1, name="deltas", **options)

    def build(self, input_shape: Shape) -> None:
        self.conv.build(input_shape[0])
        inner = (*input_shape[0][:-1], self.channels)
        self.objectness.build(inner)
        self.deltas.build(inner)

    def call(self, features: list[tf.Tensor]) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Logits float32 [B, A_level] and deltas float32 [B, A_level, 4] of each level, cell by cell as the anchors."""
        logits, deltas = [], []
        for level in features:
            hidden = self.conv(level)
            count = level.shape[1] * level.shape[2] * self.anchors
            logits.append(tf.cast(tf.reshape(self.objectness(hidden), [-1, count]), tf.float32))
            deltas.append(tf.cast(tf.reshape(self.deltas(hidden), [-1, count, 4]), tf.float32))
        return logits, deltas

    def get_config(self) -> LayerConfig:
        return {**super().get_config(), "anchors": self.anchors, "channels": self.channels}
