"""The layers of FCIS and R-FCN: all of them convolutions over the whole image."""

from __future__ import annotations

import keras
import tensorflow as tf

from maskx_tf.layers.norm import ConvNorm
from maskx_tf.layers.parts import LayerConfig, Shape


def _initializer() -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=0.01)


@keras.saving.register_keras_serializable(package="maskx_tf")
class PositionNeck(keras.layers.Layer):
    """The neck: res4 as it is, for the proposals, and res5 after a 1x1 convolution with ReLU, for the maps.

    Args:
        channels: of the convolution.
    """

    def __init__(self, channels: int = 1024, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.conv = ConvNorm(
            channels, 1, relu=True, kernel_initializer=_initializer(), name="conv", dtype=self.dtype_policy
        )

    def build(self, input_shape: list[Shape]) -> None:
        self.conv.build(input_shape[-1])

    def call(self, features: list[tf.Tensor]) -> list[tf.Tensor]:
        """Two maps of one resolution."""
        return [features[-2], self.conv(features[-1])]

    def get_config(self) -> LayerConfig:
        return {**super().get_config(), "channels": self.channels}


@keras.saving.register_keras_serializable(package="maskx_tf")
class PairRPNHead(keras.layers.Layer):
    """A 3x3 convolution, then two logits, background and object, and box deltas for the anchors of each cell.

    Args:
        anchors: how many a cell.
        channels: of the 3x3 convolution.
    """

    def __init__(self, anchors: int, *, channels: int = 512, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.anchors = anchors
        self.channels = channels
        options: LayerConfig = {"kernel_initializer": _initializer(), "dtype": self.dtype_policy}
        self.conv = ConvNorm(channels, 3, relu=True, name="conv", **options)
        self.objectness = ConvNorm(2 * anchors, 1, name="objectness", **options)  # all backgrounds, then all objects
        self.deltas = ConvNorm(4 * anchors, 1, name="deltas", **options)

    def build(self, input_shape: list[Shape]) -> None:
        self.conv.build(input_shape[0])
        inner = (*input_shape[0][:-1], self.channels)
        self.objectness.build(inner)
        self.deltas.build(inner)

    def call(self, features: list[tf.Tensor]) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Logits float32 [B, A], object less background, and deltas float32 [B, A, 4], of the first map alone.

        The softmax of the two is the sigmoid of their difference.
        """
        hidden = self.conv(features[0])
        background, foreground = tf.split(tf.cast(self.objectness(hidden), tf.float32), 2, axis=-1)
        count = hidden.shape[1] * hidden.shape[2] * self.anchors
        deltas = tf.cast(tf.reshape(self.deltas(hidden), [-1, count, 4]), tf.float32)
        return [tf.reshape(foreground - background, [-1, count])], [deltas]

    def get_config(self) -> LayerConfig:
        return {**super().get_config(), "anchors": self.anchors, "channels": self.channels}


@keras.saving.register_keras_serializable(package="maskx_tf")
class PositionMaps(keras.layers.Layer):
    """1x1 convolutions to position-sensitive maps of scores and of box deltas.

    Args:
        scores: channels of scores a cell of maps.
        group: cells along each side.
        deltas: channels of deltas a cell of maps.
    """

    def __init__(self, scores: int, *, group: int, deltas: int = 4, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.options: LayerConfig = {"scores": scores, "group": group, "deltas": deltas}
        options: LayerConfig = {"kernel_initializer": _initializer(), "dtype": self.dtype_policy}
        self.scores = ConvNorm(group**2 * scores, 1, name="scores", **options)
        self.deltas = ConvNorm(group**2 * deltas, 1, name="deltas", **options)

    def build(self, input_shape: Shape) -> None:
        self.scores.build(input_shape)
        self.deltas.build(input_shape)

    def call(self, features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Scores [B, H, W, group * group * scores] and deltas [B, H, W, group * group * deltas]."""
        return self.scores(features), self.deltas(features)

    def get_config(self) -> LayerConfig:
        return {**super().get_config(), **self.options}
