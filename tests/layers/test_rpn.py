"""The RPN's head against loops: one head on all levels, its outputs in the order of the anchors."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from maskx_tf.layers.rpn import RPNHead
from maskx_tf.ops import anchors as anchor_ops
from tests import reference_layers as reference
from tests.layers.catalogue import normal


def test_values() -> None:
    keras.utils.set_random_seed(0)
    layer = RPNHead(3, channels=5)
    levels = [normal(2, 4, 6, 4), normal(2, 2, 3, 4)]
    layer.build([level.shape for level in levels])
    for variable in layer.weights:
        variable.assign(normal(*variable.shape))
    logits, deltas = layer([tf.constant(level) for level in levels])
    for level, ours, moves in zip(levels, logits, deltas, strict=True):
        hidden = reference.relu(reference.convolution(level, layer.conv.kernel) + np.array(layer.conv.bias))
        scores = reference.convolution(hidden, layer.objectness.kernel) + np.array(layer.objectness.bias)
        shifts = reference.convolution(hidden, layer.deltas.kernel) + np.array(layer.deltas.bias)
        height, width = level.shape[1:3]
        for y, x, anchor in np.ndindex(height, width, 3):
            row = (y * width + x) * 3 + anchor
            np.testing.assert_allclose(ours[:, row], scores[:, y, x, anchor], atol=1e-4)
            np.testing.assert_allclose(moves[:, row], shifts[:, y, x, 4 * anchor : 4 * anchor + 4], atol=1e-4)


def test_one_row_for_each_anchor() -> None:
    layer = RPNHead(6)
    levels = [(8, 12), (4, 6)]
    logits, deltas = layer([tf.zeros([1, height, width, 4]) for height, width in levels])
    anchors = anchor_ops.pyramid(levels, strides=(4, 8), sizes=((8.0, 16.0), (32.0, 64.0)), ratios=(0.5, 1.0, 2.0))
    assert [level.shape[1] for level in logits] == [len(level) for level in anchors]
    assert [level.shape[1:] for level in deltas] == [level.shape for level in anchors]


def test_start() -> None:
    layer = RPNHead(15, channels=64)
    layer.build([(None, None, None, 64)])
    for convolution in (layer.conv, layer.objectness, layer.deltas):
        np.testing.assert_allclose(np.std(convolution.kernel), 0.01, rtol=0.1)
        np.testing.assert_array_equal(convolution.bias, 0.0)
