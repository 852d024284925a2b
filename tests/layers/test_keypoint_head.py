"""The keypoint head against loops over single numbers."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from maskx_tf.layers.keypoint_head import KeypointHead, doubling
from tests import reference_layers as reference
from tests.layers.catalogue import normal


def deconvolution(inputs: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """PyTorch's ConvTranspose2d with stride 2 and padding 1 of maps [N, H, W, C] by a kernel [4, 4, P, C]."""
    count, height, width, _ = inputs.shape
    full = np.zeros([count, 2 * height + 2, 2 * width + 2, kernel.shape[2]])
    for y, x, i, j in np.ndindex(height, width, 4, 4):
        full[:, 2 * y + i, 2 * x + j] += inputs[:, y, x] @ kernel[i, j].T
    return full[:, 1:-1, 1:-1]


def bilinear(cells: np.ndarray) -> np.ndarray:
    """A map at twice the size: each pixel between the four cells around it, borders repeated."""
    result = np.zeros([2 * side for side in cells.shape])
    for pixel in np.ndindex(*result.shape):
        at = [min(max((place + 0.5) / 2 - 0.5, 0), side - 1) for place, side in zip(pixel, cells.shape, strict=True)]
        low = [int(place) for place in at]
        high = [min(place + 1, side - 1) for place, side in zip(low, cells.shape, strict=True)]
        v, u = (place - int(place) for place in at)
        upper = cells[low[0], low[1]] * (1 - u) + cells[low[0], high[1]] * u
        lower = cells[high[0], low[1]] * (1 - u) + cells[high[0], high[1]] * u
        result[pixel] = upper * (1 - v) + lower * v
    return result


def test_head() -> None:
    pooled = normal(2, 3, 4, 4, 5)
    layer = KeypointHead(3, channels=6, convs=2)
    layer.build(pooled.shape)
    for variable in layer.weights:
        variable.assign(normal(*variable.shape, seed=1))
    maps = pooled.reshape(6, 4, 4, 5)
    for conv in layer.convs:
        maps = reference.relu(reference.convolution(maps, conv.kernel.numpy()) + conv.bias.numpy())
    maps = deconvolution(maps, layer.deconv_kernel.numpy()) + layer.deconv_bias.numpy()
    expected = np.stack([[bilinear(maps[region, ..., part]) for part in range(3)] for region in range(6)])
    result = layer(tf.constant(pooled))
    assert (result.dtype, result.shape, layer.side) == (tf.float32, (2, 3, 3, 16, 16), 16)
    np.testing.assert_allclose(tf.reshape(result, expected.shape), expected, atol=1e-4 * np.abs(expected).max())


def test_resize_is_tensorflows_with_half_pixels() -> None:
    cells = normal(7, 7)
    expected = tf.image.resize(cells[..., None], [14, 14])[..., 0]
    np.testing.assert_allclose(doubling(7) @ cells @ doubling(7).T, expected, atol=1e-5)


def test_start() -> None:
    """He by fan-out: .0208 for a 3x3 convolution of 512 channels; .0156 for the deconvolution, as PyTorch counts it."""
    layer = KeypointHead(17)
    layer.build((None, None, 14, 14, 256))
    assert len(layer.convs) == 8
    for conv in layer.convs:
        np.testing.assert_allclose(np.std(conv.kernel), (2 / (9 * 512)) ** 0.5, rtol=0.01)
        np.testing.assert_array_equal(conv.bias, 0.0)
    assert layer.deconv_kernel.shape == (4, 4, 17, 512)
    np.testing.assert_allclose(np.std(layer.deconv_kernel), (2 / (16 * 512)) ** 0.5, rtol=0.01)
    np.testing.assert_array_equal(layer.deconv_bias, 0.0)
