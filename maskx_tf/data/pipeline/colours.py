"""Photometric distortion."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

LUMA = (0.299, 0.587, 0.114)


def recolour(
    image: tf.Tensor, seed: tf.Tensor, *, brightness: float, contrast: float, saturation: float, hue: float
) -> tf.Tensor:
    """Returns the image after photometric distortion.

    Brightness, contrast and saturation are factors from 1 - x to 1 + x; contrast is taken around the image's mean grey,
    saturation around each pixel's. Hue is turned by at most `hue` of a full turn in the YIQ plane. All four are linear,
    so they are one 3 x 3 matrix, a third of the cost of `tf.image`'s functions in turn. Keras' layers would do the same
    work, but draw from a hidden state, with which no run could be resumed.

    Args:
        image: [h, w, 3] in 0..255.
        seed: int32 [2].
        brightness: the strength in 0..1.
        contrast: the strength in 0..1.
        saturation: the strength in 0..1.
        hue: the strength in 0.. .5.

    Returns:
        float32 [h, w, 3] in 0..255.
    """
    draws = tf.random.stateless_uniform([4], seed, -1.0, 1.0)
    brighter, stronger, richer = 1.0 + brightness * draws[0], 1.0 + contrast * draws[1], 1.0 + saturation * draws[2]
    turn = 2.0 * np.pi * hue * draws[3]
    luma = tf.constant(LUMA)[:, None]
    to_grey = tf.tile(luma, [1, 3])  # a pixel times it is its grey, for each channel
    turned = tf.linalg.diag(tf.stack([1.0, tf.cos(turn), tf.cos(turn)])) + tf.sin(turn) * _QUARTER
    hues = _YIQ @ turned @ np.linalg.inv(_YIQ).astype(np.float32)
    matrix = brighter * (hues @ (richer * tf.eye(3) + (1.0 - richer) * to_grey))
    pixels = tf.reshape(tf.cast(image, tf.float32), [-1, 3])
    mean = brighter * tf.reduce_mean(pixels, axis=0, keepdims=True) @ luma  # hue and saturation leave it
    pixels = tf.clip_by_value(pixels @ (stronger * matrix) + (1.0 - stronger) * mean, 0.0, 255.0)
    return tf.reshape(pixels, tf.shape(image))


# Columns are Y, I and Q of red, green and blue; and the turn by 90 degrees in the plane of I and Q.
_YIQ = np.array([LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)], np.float32).T
_QUARTER = np.array([[0, 0, 0], [0, 0, 1], [0, -1, 0]], np.float32)
