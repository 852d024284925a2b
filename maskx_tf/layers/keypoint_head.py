"""The keypoint head: heat maps of pooled regions (Mask R-CNN, section 5)."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from maskx_tf.layers.norm import ConvNorm
from maskx_tf.layers.parts import Layer, Shape

DECONV_SIZE = 4


class KeypointHead(Layer):
    """3x3 convolutions with ReLU, a deconvolution to a map for each keypoint at twice the size, and a bilinear resize.

    All classes share the maps: the meaning of a keypoint does not depend on the class.

    Args:
        keypoints: P.
        channels: the number of channels of the convolutions.
        convs: how many convolutions.
    """

    def __init__(self, keypoints: int, *, channels: int = 512, convs: int = 8, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.keypoints = keypoints
        self.channels = channels
        self.start = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
        self.convs = [
            ConvNorm(
                channels,
                3,
                relu=True,
                kernel_initializer=self.start,
                name=f"conv{index + 1}",
                dtype=self.dtype_policy,
            )
            for index in range(convs)
        ]

    def build(self, input_shape: Shape) -> None:
        channels = input_shape[-1]
        for conv in self.convs:
            conv.build((None, *input_shape[-3:-1], channels))
            channels = self.channels
        # By fan-out, as detectron2 and torchvision start it, which count that of a deconvolution by its inputs.
        spread = (2.0 / (DECONV_SIZE**2 * channels)) ** 0.5
        self.deconv_kernel = self.add_weight(
            name="deconv_kernel",
            shape=(DECONV_SIZE, DECONV_SIZE, self.keypoints, channels),
            initializer=keras.initializers.RandomNormal(stddev=spread),
        )
        self.deconv_bias = self.add_weight(name="deconv_bias", shape=(self.keypoints,), initializer="zeros")
        self.side = 4 * input_shape[-2]

    def call(self, pooled: tf.Tensor) -> tf.Tensor:
        """Logits float32 [B, N, P, 4 size, 4 size] of pooled features [B, N, size, size, C]."""
        size = pooled.shape[2]
        features = tf.reshape(pooled, [-1, *pooled.shape[2:]])
        for conv in self.convs:
            features = conv(features)
        kernel = subpixel_kernel(tf.convert_to_tensor(self.deconv_kernel))
        maps = tf.nn.depth_to_space(tf.nn.conv2d(features, kernel, 1, "SAME"), 2)
        maps = tf.nn.bias_add(maps, tf.convert_to_tensor(self.deconv_bias))
        # Two products with a constant: the gradient of TensorFlow's resize differs from run to run on a GPU. Not by
        # `matmul`, which writes where it should not when it broadcasts to a dimension of 1 (TensorFlow 2.21).
        double = tf.constant(doubling(2 * size))
        maps = tf.einsum("yi,xj,rijp->rpyx", double, double, tf.cast(maps, tf.float32))
        count = pooled.shape[1] or tf.shape(pooled)[1]
        return tf.reshape(maps, [-1, count, self.keypoints, self.side, self.side])

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        side = 4 * input_shape[-2]
        return (*input_shape[:2], self.keypoints, side, side)


def subpixel_kernel(kernel: tf.Tensor) -> tf.Tensor:
    """The 3x3 convolution that makes the four pixels which each pixel becomes in a deconvolution with stride 2.

    Of the four taps along a side, an even output pixel reads two, and the odd one next to it the others.

    Args:
        kernel: [4, 4, P, C] of the deconvolution.

    Returns:
        [3, 3, C, 4 * P], the maps of the upper left pixel first, then of its right, lower, and lower right neighbour.
    """
    taps = np.zeros([3, 2, DECONV_SIZE], np.float32)  # by the input pixel before, at or behind, and the output pixel
    for place, pixel, tap in ((0, 0, 3), (1, 0, 1), (1, 1, 2), (2, 1, 0)):
        taps[place, pixel, tap] = 1.0
    moved = tf.einsum("yak,xbl,klpc->yxcabp", taps, taps, kernel)
    return tf.reshape(moved, [3, 3, kernel.shape[3], 4 * kernel.shape[2]])


def doubling(size: int) -> np.ndarray:
    """The weights of bilinear interpolation to twice the size, float32 [2 size, size]; borders are repeated."""
    at = np.clip((np.arange(2 * size) + 0.5) / 2 - 0.5, 0, size - 1)
    return np.maximum(1 - np.abs(at[:, None] - np.arange(size)), 0).astype(np.float32)
