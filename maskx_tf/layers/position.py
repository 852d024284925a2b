"""The layers of FCIS and R-FCN: all of them convolutions over the whole image."""

from __future__ import annotations

import keras
import tensorflow as tf

from maskx_tf.layers.norm import ConvNorm
from maskx_tf.layers.parts import Layer, LayerConfig, Shape


def _initializer() -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=0.01)


class PositionNeck(Layer):
    """The neck: res4 as it is, for the proposals, and res5 after a 1x1 convolution with ReLU, for the maps.

    Args:
        channels: the number of channels of the convolution.
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

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return [input_shape[-2], (*input_shape[-1][:-1], self.channels)]


class PositionMaps(Layer):
    """1x1 convolutions to position-sensitive maps of scores and of box deltas.

    Args:
        scores: channels of scores a cell of maps.
        group: cells along each side.
        deltas: channels of deltas a cell of maps.
    """

    def __init__(self, scores: int, *, group: int, deltas: int = 4, **kwargs: object) -> None:
        super().__init__(**kwargs)
        options: LayerConfig = {"kernel_initializer": _initializer(), "dtype": self.dtype_policy}
        self.scores = ConvNorm(group**2 * scores, 1, name="scores", **options)
        self.deltas = ConvNorm(group**2 * deltas, 1, name="deltas", **options)

    def build(self, input_shape: Shape) -> None:
        self.scores.build(input_shape)
        self.deltas.build(input_shape)

    def call(self, features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Scores [B, H, W, group * group * scores] and deltas [B, H, W, group * group * deltas]."""
        return self.scores(features), self.deltas(features)
