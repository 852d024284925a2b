"""Mask heads against loops (spec/maskx.md, sections 3 to 5)."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.layers.mask_head import FCNMaskHead, MLPMaskHead, TransferredMaskHead
from maskx_tf.layers.mask_parts import LEAN_CHANNELS, MaskPredictor, MaskTrunk, MLPBranch, apply_filters
from tests import reference_layers as reference
from tests.layers.catalogue import normal

POOLED = normal(2, 3, 3, 3, 4)  # two images, three regions
CLASSES = np.array([[1, 5, 2], [3, 3, 4]], np.int32)


def randomised(layer: keras.layers.Layer, shape) -> keras.layers.Layer:
    layer.build(shape)
    for number, variable in enumerate(layer.weights):
        variable.assign(normal(*variable.shape, seed=number) / np.sqrt(max(np.prod(variable.shape[:-1]), 1)))
    return layer


def weights_of(layer: keras.layers.Layer) -> reference.Layer:
    return np.array(layer.kernel), np.array(layer.bias)


def trunk_maps(trunk: MaskTrunk, pooled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both maps of regions [N, size, size, C], in loops."""
    convs = [weights_of(conv) for conv in trunk.convs]
    return reference.mask_trunk(pooled, convs, np.array(trunk.deconv_kernel), np.array(trunk.deconv_bias))


@pytest.mark.parametrize("convs", [0, 1, 4])
def test_trunk(convs) -> None:
    layer = randomised(MaskTrunk(5, convs=convs), POOLED.shape)
    small, large = layer(POOLED)
    assert small.shape == (2, 3, 3, 3, 5 if convs else 4)
    assert large.shape == (2, 3, 6, 6, 5)
    for image in range(2):
        ours, theirs = trunk_maps(layer, POOLED[image])
        np.testing.assert_allclose(small[image], ours, atol=1e-5)
        np.testing.assert_allclose(large[image], theirs, atol=1e-5)
    assert (np.asarray(large) == 0).any()  # ReLU


def test_the_deconvolution_is_tensorflows() -> None:
    """TensorFlow's transposed convolution, whose kernel is [h, w, out, in]: no flip."""
    layer = randomised(MaskTrunk(5, convs=0), POOLED.shape)
    kernel = tf.transpose(layer.deconv_kernel, [1, 2, 3, 0])
    flat = POOLED.reshape(6, 3, 3, 4)
    expected = tf.nn.relu(tf.nn.conv2d_transpose(flat, kernel, [6, 6, 6, 5], 2, "VALID") + layer.deconv_bias)
    np.testing.assert_allclose(tf.reshape(layer(POOLED)[1], [6, 6, 6, 5]), expected, atol=1e-5)


def test_trunk_start() -> None:
    """MSRAFill: .0295 for a 3x3 convolution of 256 channels, .0442 for the deconvolution; biases 0 (section 5)."""
    layer = MaskTrunk()
    layer.build((None, None, 14, 14, 256))
    for conv in layer.convs:
        np.testing.assert_allclose(np.std(conv.kernel), 0.0295, rtol=0.01)
        np.testing.assert_allclose(np.mean(conv.kernel), 0.0, atol=1e-3)
        # Gaussian, not truncated: some of 590 thousand lie beyond four deviations.
        assert np.abs(conv.kernel).max() > 4 * 0.0295
        np.testing.assert_array_equal(conv.bias, 0.0)
    np.testing.assert_allclose(np.std(layer.deconv_kernel), 0.0442, rtol=0.01)
    np.testing.assert_array_equal(layer.deconv_bias, 0.0)


def test_apply_filters() -> None:
    features, filters = normal(2, 3, 4, 4, 5), normal(2, 3, 5)
    result = apply_filters(tf.constant(features), tf.constant(filters))
    assert result.dtype == tf.float32
    for image in range(2):
        np.testing.assert_allclose(result[image], reference.mask_logits(features[image], filters[image]), atol=1e-5)


@pytest.mark.parametrize("outputs", [5, 1])
def test_predictor(outputs) -> None:
    features = normal(2, 3, 4, 4, 6)
    layer = randomised(MaskPredictor(outputs), features.shape)
    every = layer.all_outputs(tf.constant(features))
    assert every.shape == (2, 3, 4, 4, outputs)
    for number in range(outputs):
        rows = np.broadcast_to(layer.rows.numpy()[number], (3, 6))
        for image in range(2):
            expected = reference.mask_logits(features[image], rows) + layer.bias.numpy()[number]
            np.testing.assert_allclose(every[image, ..., number], expected, atol=1e-5)
    own = layer(features, CLASSES)
    for image, region in np.ndindex(2, 3):
        channel = 0 if outputs == 1 else CLASSES[image, region] - 1
        np.testing.assert_allclose(own[image, region], every[image, region, ..., channel], atol=1e-5)
    np.testing.assert_array_equal(layer(features, 0 * CLASSES), layer(features, 0 * CLASSES + 1))


def test_predictor_start() -> None:
    """MSRAFill is by fan-out, here the number of classes; class-agnostic ones start at .001 (section 4)."""
    layer = MaskPredictor(80)
    layer.build((None, None, 28, 28, 256))
    np.testing.assert_allclose(np.std(layer.rows), (2 / 80) ** 0.5, rtol=0.03)
    layer = MaskPredictor(1, stddev=0.001)
    layer.build((None, None, 28, 28, 1024))
    np.testing.assert_allclose(np.std(layer.rows), 0.001, rtol=0.1)


def test_reference_branch() -> None:
    """One layer on the deconvolved map, flattened row by row (our HWC for Caffe2's CHW)."""
    small, large = normal(2, 3, 2, 2, 3), normal(2, 3, 4, 4, 5)
    layer = MLPBranch(side=4)
    layer.build((small.shape, large.shape))
    for variable in layer.weights:
        variable.assign(normal(*variable.shape))
    result = layer((tf.constant(small), tf.constant(large)))
    for image in range(2):
        np.testing.assert_allclose(
            result[image], reference.mlp_branch(large[image], weights_of(layer.dense)), atol=1e-4
        )
    other = layer((tf.constant(small + 1), tf.constant(large)))
    np.testing.assert_array_equal(result, other)


def test_lean_branch() -> None:
    """A 1x1 convolution with ReLU on the map before the deconvolution, then one layer."""
    small, large = normal(2, 3, 2, 2, 3), normal(2, 3, 4, 4, 5)
    layer = randomised(MLPBranch("lean", side=4), (small.shape, large.shape))
    result = layer((tf.constant(small), tf.constant(large)))
    assert layer.squeeze.kernel.shape == (1, 1, 3, LEAN_CHANNELS)
    kernel, bias = weights_of(layer.squeeze)
    for image in range(2):
        squeezed = reference.relu(reference.convolution(small[image], kernel) + bias)
        np.testing.assert_allclose(result[image], reference.mlp_branch(squeezed, weights_of(layer.dense)), atol=1e-5)
    np.testing.assert_array_equal(result, layer((tf.constant(small), tf.constant(large + 1))))


@pytest.mark.parametrize("branch", ["reference", "lean"])
def test_branch_start(branch) -> None:
    layer = MLPBranch(branch, side=8)
    layer.build(((None, None, 4, 4, 64), (None, None, 8, 8, 64)))
    np.testing.assert_allclose(np.std(layer.dense.kernel), 0.001, rtol=0.05)
    np.testing.assert_array_equal(layer.dense.bias, 0.0)


def test_an_unknown_branch_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of reference, lean"):
        MLPBranch("fat")


def test_fcn_head_adds_its_branches() -> None:
    """The MLP's logits are added to every class's, before the sigmoid and unscaled (section 3)."""
    branches = (MLPBranch(side=6, name="first"), MLPBranch("lean", side=6, name="second"))
    head = randomised(FCNMaskHead(MaskTrunk(5, convs=1), MaskPredictor(5), branches), POOLED.shape)
    assert head.side == 6
    logits = head(POOLED, CLASSES)
    for image in range(2):
        small, large = trunk_maps(head.trunk, POOLED[image])
        rows = head.predictor.rows.numpy()[CLASSES[image] - 1]
        expected = reference.mask_logits(large, rows)
        expected += head.predictor.bias.numpy()[CLASSES[image] - 1][:, None, None]
        expected += reference.mlp_branch(large, weights_of(branches[0].dense))
        kernel, bias = weights_of(branches[1].squeeze)
        squeezed = reference.relu(reference.convolution(small, kernel) + bias)
        expected += reference.mlp_branch(squeezed, weights_of(branches[1].dense))
        np.testing.assert_allclose(logits[image], expected, atol=1e-5)


def test_fcn_head_for_softmax() -> None:
    head = randomised(FCNMaskHead(MaskTrunk(5, convs=1), MaskPredictor(6)), POOLED.shape)
    every = head.all_outputs(tf.constant(POOLED))
    assert every.shape == (2, 3, 6, 6, 6)
    _, large = trunk_maps(head.trunk, POOLED[0])
    expected = large @ head.predictor.rows.numpy().T.astype(np.float64) + head.predictor.bias.numpy()
    np.testing.assert_allclose(every[0], expected, atol=1e-5)


@pytest.mark.parametrize("with_branch", [False, True])
def test_transferred_head(with_branch) -> None:
    """F . w, without a bias, and the MLP's logits (sections 2 and 3)."""
    branches = (MLPBranch(side=6),) if with_branch else ()
    head = randomised(TransferredMaskHead(MaskTrunk(5, convs=2), branches), POOLED.shape)
    filters = normal(2, 3, 5)
    logits = head(POOLED, filters)
    assert logits.dtype == tf.float32
    for image in range(2):
        _, large = trunk_maps(head.trunk, POOLED[image])
        expected = reference.mask_logits(large, filters[image])
        if with_branch:
            expected += reference.mlp_branch(large, weights_of(branches[0].dense))
        np.testing.assert_allclose(logits[image], expected, atol=1e-5)
    if not with_branch:
        np.testing.assert_array_equal(head(POOLED, 0 * filters), 0.0)


@pytest.mark.parametrize("channels", [2, 8])
def test_lean_branch_without_convolutions(channels) -> None:
    """It reads the pooled region itself: all of its channels, not as many groups as happen to divide them."""
    head = TransferredMaskHead(MaskTrunk(channels, convs=0), (MLPBranch("lean", side=6),))
    head.build((None, None, 3, 3, 4))
    assert head.branches[0].squeeze.kernel.shape == (1, 1, 4, LEAN_CHANNELS)
    head(POOLED, normal(2, 3, channels))


@pytest.mark.parametrize("outputs", [5, 1])
@pytest.mark.parametrize("layers", [1, 2])
def test_mlp_head(outputs, layers) -> None:
    head = randomised(MLPMaskHead(outputs, side=4, width=7, layers=layers), POOLED.shape)
    logits = head(POOLED, CLASSES)
    assert logits.dtype == tf.float32
    for image, region in np.ndindex(2, 3):
        row = POOLED[image, region].reshape(-1)
        for dense in head.dense:
            row = reference.relu(reference.dense(row, weights_of(dense)))
        output = 0 if outputs == 1 else CLASSES[image, region] - 1
        expected = head.rows.numpy()[output].astype(np.float64) @ row + head.bias.numpy()[output]
        np.testing.assert_allclose(logits[image, region], expected.reshape(4, 4), atol=1e-5)


def test_mlp_head_start() -> None:
    head = MLPMaskHead(10, side=8, width=64)
    head.build((None, None, 4, 4, 16))
    np.testing.assert_allclose(np.std(head.rows), 0.001, rtol=0.05)
    for dense, fan_in in zip(head.dense, (256, 64), strict=True):
        np.testing.assert_allclose(np.std(dense.kernel), (2 / fan_in) ** 0.5, rtol=0.05)
