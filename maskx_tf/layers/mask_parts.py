"""Parts of mask heads: the trunk, the rows that make masks of its features, and the MLP branch."""

from __future__ import annotations

import keras
import tensorflow as tf

from maskx_tf.layers.norm import ConvNorm
from maskx_tf.layers.parts import Layer, Shape

BRANCHES = ("reference", "lean")
# Channels that the lean branch keeps before it flattens.
LEAN_CHANNELS = 32


class MaskTrunk(Layer):
    """3x3 convolutions with ReLU at the pooled size, then a deconvolution to twice it.

    Args:
        channels: the number of channels of every layer.
        convs: how many convolutions; 0 on the features of res5.
    """

    def __init__(self, channels: int = 256, *, convs: int = 4, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        options = {
            "kernel_initializer": keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
            "dtype": self.dtype_policy,
        }
        self.convs = [ConvNorm(channels, 3, relu=True, name=f"conv{index + 1}", **options) for index in range(convs)]

    def build(self, input_shape: Shape) -> None:
        channels = input_shape[-1]
        for conv in self.convs:
            conv.build((None, *input_shape[-3:-1], channels))
            channels = self.channels
        # A deconvolution of 2x2 with stride 2 is a 1x1 convolution to the four pixels that each pixel becomes.
        # Caffe2's MSRAFill: by fan-out, 4 * channels.
        start = keras.initializers.RandomNormal(stddev=(2.0 / (4 * self.channels)) ** 0.5)
        self.deconv_kernel = self.add_weight(
            name="deconv_kernel", shape=(channels, 2, 2, self.channels), initializer=start
        )
        self.deconv_bias = self.add_weight(name="deconv_bias", shape=(self.channels,), initializer="zeros")

    def call(self, pooled: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Convolved [B, N, size, size, C] and deconvolved [B, N, 2 size, 2 size, C] maps of pooled features."""
        count, size = pooled.shape[1], pooled.shape[2]
        small = tf.reshape(pooled, [-1, *pooled.shape[2:]])
        for conv in self.convs:
            small = conv(small)
        kernel = tf.reshape(self.deconv_kernel, [small.shape[-1], 4 * self.channels])
        large = tf.matmul(tf.reshape(small, [-1, small.shape[-1]]), kernel)
        large = tf.reshape(large, [-1, size, size, 2, 2, self.channels])
        large = tf.reshape(tf.transpose(large, [0, 1, 3, 2, 4, 5]), [-1, count, 2 * size, 2 * size, self.channels])
        large = tf.nn.relu(large + self.deconv_bias)
        return tf.reshape(small, [-1, count, *small.shape[1:]]), large

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, count, size, _, channels = input_shape
        # Without convolutions the small map is the pooled region itself.
        small = (batch, count, size, size, self.channels if self.convs else channels)
        return small, (batch, count, 2 * size, 2 * size, self.channels)


class MaskPredictor(Layer):
    """A filter and a bias for each class, or one for all.

    Args:
        outputs: K; K + 1 where classes compete by softmax, background first; 1 for a class-agnostic mask.
        stddev: of the initial filters; None: by fan-out, as in the reference for class-specific masks.
    """

    def __init__(self, outputs: int, *, stddev: float | None = None, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.outputs = outputs
        self.stddev = stddev

    def build(self, input_shape: Shape) -> None:
        start = keras.initializers.RandomNormal(stddev=self.stddev or (2.0 / self.outputs) ** 0.5)
        self.rows = self.add_weight(name="rows", shape=(self.outputs, input_shape[-1]), initializer=start)
        self.bias = self.add_weight(name="bias", shape=(self.outputs,), initializer="zeros")

    def call(self, features: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        """Logits float32 [B, N, M, M] of features [B, N, M, M, C] for the class, 1..K, of each region: int32 [B, N]."""
        index = output_index(classes, self.outputs)
        bias = tf.cast(tf.gather(self.bias, index), tf.float32)[..., None, None]
        return apply_filters(features, tf.gather(self.rows, index)) + bias

    def all_outputs(self, features: tf.Tensor) -> tf.Tensor:
        """Logits float32 [B, N, M, M, outputs]: for the softmax among classes."""
        rows = tf.cast(self.rows, features.dtype)
        logits = tf.einsum("bnhwc,kc->bnhwk", features, rows)
        return tf.cast(logits, tf.float32) + tf.cast(self.bias, tf.float32)


def output_index(classes: tf.Tensor, outputs: int) -> tf.Tensor:
    """Index of each class's output; background gets the first, which means nothing."""
    return tf.zeros_like(classes) if outputs == 1 else tf.maximum(classes - 1, 0)


def apply_filters(features: tf.Tensor, filters: tf.Tensor) -> tf.Tensor:
    """One 1x1 filter a region: float32 [B, N, M, M] of features [B, N, M, M, C] and filters [B, N, C]."""
    count, side, channels = features.shape[1], features.shape[2], features.shape[-1]
    flat = tf.reshape(features, [-1, count, side * side, channels])
    logits = tf.linalg.matvec(flat, tf.cast(filters, features.dtype))  # [B, N, M * M]
    return tf.cast(tf.reshape(logits, [-1, count, side, side]), tf.float32)


class MLPBranch(Layer):
    """The class-agnostic mask of a fully connected layer, added to the FCN's (Mask^X R-CNN, section 3.4).

    Args:
        branch: "reference", one layer on the flattened deconvolved map, 157 million weights at full size; "lean"
            (ours), a 1x1 convolution to 32 channels on the map before the deconvolution, then one layer: 5 million.
            It sees the same region whole, which is what the branch is for, at a thirtieth of the weights.
        side: M.
    """

    def __init__(self, branch: str = "reference", *, side: int = 28, **kwargs: object) -> None:
        super().__init__(**kwargs)
        if branch not in BRANCHES:
            raise ValueError(f"branch is {branch!r}, expected one of {', '.join(BRANCHES)}")
        self.branch = branch
        self.side = side
        self.squeeze = (
            ConvNorm(LEAN_CHANNELS, 1, relu=True, name="squeeze", dtype=self.dtype_policy) if branch == "lean" else None
        )
        self.dense = keras.layers.Dense(
            side**2,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.001),
            name="fc",
            dtype=self.dtype_policy,
        )

    def build(self, input_shape: Shape) -> None:
        small, large = input_shape
        source = large
        if self.squeeze is not None:
            self.squeeze.build((None, *small[-3:]))
            source = (*small[:-1], LEAN_CHANNELS)
        self.dense.build((None, source[-3] * source[-2] * source[-1]))

    def call(self, maps: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """Logits float32 [B, N, M, M] of the two maps of `MaskTrunk`."""
        small, large = maps
        source = large
        if self.squeeze is not None:
            source = self.squeeze(tf.reshape(small, [-1, *small.shape[2:]]))
        size = source.shape[-3] * source.shape[-2] * source.shape[-1]
        logits = self.dense(tf.reshape(source, [-1, size]))
        return tf.cast(tf.reshape(logits, [-1, large.shape[1], self.side, self.side]), tf.float32)
