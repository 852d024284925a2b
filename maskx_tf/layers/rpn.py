"""Region proposal network (Ren et al. 2015): one small head that slides over every level."""

from __future__ import annotations

import keras
import tensorflow as tf

from maskx_tf.layers.norm import ConvNorm
from maskx_tf.layers.parts import Layer, Shape


class RPNHead(Layer):
    """A 3x3 convolution, then objectness and box deltas for the anchors of each cell; the same weights on all levels.

    Args:
        anchors: how many a cell.
        channels: the number of channels of the 3x3 convolution.
        pair: two logits an anchor, background and object, whose softmax is the sigmoid of their difference.
    """

    def __init__(self, anchors: int, *, channels: int = 256, pair: bool = False, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.anchors = anchors
        self.channels = channels
        self.pair = pair
        options = {"kernel_initializer": keras.initializers.RandomNormal(stddev=0.01), "dtype": self.dtype_policy}
        self.conv = ConvNorm(channels, 3, relu=True, name="conv", **options)
        # Of pairs, all backgrounds first, then all objects.
        self.objectness = ConvNorm((2 if pair else 1) * anchors, 1, name="objectness", **options)
        self.deltas = ConvNorm(4 * anchors, 1, name="deltas", **options)

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
            objectness = tf.cast(self.objectness(hidden), tf.float32)
            if self.pair:
                background, foreground = tf.split(objectness, 2, axis=-1)
                objectness = foreground - background
            logits.append(tf.reshape(objectness, [-1, count]))
            deltas.append(tf.cast(tf.reshape(self.deltas(hidden), [-1, count, 4]), tf.float32))
        return logits, deltas
