"""Layers, one output number at a time: what `maskx_tf.layers` has to agree with.

Plain loops in float64, written from spec/mask_rcnn.md, section 1, and spec/maskx.md, sections 1 to 5. Kernels are
[k, k, in / groups, out], maps [B, H, W, C].
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Layer = tuple[Array, Array]  # a fully connected layer: weights [in, out] and bias [out]
LEAK = 0.1


class Statistics(NamedTuple):
    """What batch norm multiplies with, adds, and has measured: each [C]."""

    gamma: Array
    beta: Array
    mean: Array
    variance: Array


def relu(values: Array) -> Array:
    """What is above zero."""
    return np.maximum(values, 0.0)


def sigmoid(values: Array) -> Array:
    """To 0..1."""
    return 1.0 / (1.0 + np.exp(-np.asarray(values, np.float64)))


def convolution(inputs: Array, kernel: Array, *, stride: int = 1, dilation: int = 1, groups: int = 1) -> Array:
    """As PyTorch and Caffe2: dilation * (k // 2) zeros on every side, outputs at 0, stride, 2 stride, ..."""
    inputs, kernel = np.asarray(inputs, np.float64), np.asarray(kernel, np.float64)
    taps, per_group, outputs = kernel.shape[0], kernel.shape[2], kernel.shape[3]
    reach = dilation * (taps // 2)
    padded = np.pad(inputs, [(0, 0), (reach, reach), (reach, reach), (0, 0)])
    height, width = (
        (size + 2 * reach - dilation * (taps - 1) - 1) // stride + 1 for size in (inputs.shape[1], inputs.shape[2])
    )
    result = np.zeros([len(inputs), height, width, outputs])
    for y, x, output in itertools.product(range(height), range(width), range(outputs)):
        first = (output // (outputs // groups)) * per_group
        for i, j in itertools.product(range(taps), repeat=2):
            cells = padded[:, y * stride + i * dilation, x * stride + j * dilation, first : first + per_group]
            result[:, y, x, output] += cells @ kernel[i, j, :, output]
    return result


def batch_norm(values: Array, statistics: Statistics, epsilon: float) -> Array:
    """With fixed statistics, after the convolution."""
    deviation = np.sqrt(np.asarray(statistics.variance, np.float64) + epsilon)
    return (values - statistics.mean) / deviation * statistics.gamma + statistics.beta


def measured(values: Array, statistics: Statistics) -> Statistics:
    """The same with the mean and variance of the values themselves, over all but the channels."""
    return statistics._replace(mean=values.mean(axis=(0, 1, 2)), variance=values.var(axis=(0, 1, 2)))


def group_norm(values: Array, gamma: Array, beta: Array, groups: int, epsilon: float) -> Array:
    """Each image and each group of neighbouring channels to mean 0 and variance 1."""
    result = np.zeros_like(values)
    size = values.shape[-1] // groups
    for image, group in itertools.product(range(len(values)), range(groups)):
        part = values[image, ..., group * size : (group + 1) * size]
        result[image, ..., group * size : (group + 1) * size] = (part - part.mean()) / np.sqrt(part.var() + epsilon)
    return result * gamma + beta


def deconvolution(inputs: Array, kernel: Array) -> Array:
    """2x2 with stride 2, kernel [in, 2, 2, out]: each pixel paints its own 2x2 block, row by row, without a flip."""
    batch, height, width, _ = inputs.shape
    result = np.zeros([batch, 2 * height, 2 * width, kernel.shape[-1]])
    for y, x, i, j in itertools.product(range(height), range(width), range(2), range(2)):
        result[:, 2 * y + i, 2 * x + j] = inputs[:, y, x] @ kernel[:, i, j]
    return result


def nearest_double(values: Array) -> Array:
    """Every cell twice along both sides."""
    batch, height, width, channels = values.shape
    result = np.zeros([batch, 2 * height, 2 * width, channels])
    for y, x in itertools.product(range(2 * height), range(2 * width)):
        result[:, y, x] = values[:, y // 2, x // 2]
    return result


def max_pool(values: Array) -> Array:
    """3x3 with stride 2, one ring of cells that never win around the map (spec/maskx.md, section 10)."""
    padded = np.pad(values, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=-np.inf)
    height, width = ((size - 1) // 2 + 1 for size in values.shape[1:3])
    result = np.zeros([len(values), height, width, values.shape[-1]])
    for y, x in itertools.product(range(height), range(width)):
        result[:, y, x] = padded[:, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3].max(axis=(1, 2))
    return result


def dense(rows: Array, layer: Layer) -> Array:
    """Fully connected."""
    weights, bias = (np.asarray(part, np.float64) for part in layer)
    return np.asarray(rows, np.float64) @ weights + bias


def embeddings(class_rows: Array, box_rows: Array, parts: str) -> Array:
    """What T reads of the foreground classes (section 1): w_cls; w_box as dx, dy, dw, dh; cls first.

    Args:
        class_rows: [K + 1, F], background first.
        box_rows: [K, 4, F].
        parts: "cls", "box" or "cls_box".
    """
    rows = []
    for number in range(1, len(class_rows)):
        row = []
        if "cls" in parts:
            row += [float(value) for value in class_rows[number]]
        if "box" in parts:
            for coordinate in range(4):
                row += [float(value) for value in box_rows[number - 1, coordinate]]
        rows.append(row)
    return np.array(rows)


def unit_rms(row: Array, sizes: Sequence[int]) -> Array:
    """Each part of an embedding divided by its root mean square."""
    parts, first = [], 0
    for size in sizes:
        part = np.asarray(row[first : first + size], np.float64)
        parts.append(part / math.sqrt(float((part**2).mean())))
        first += size
    return np.concatenate(parts)


def transfer(rows: Array, layers: Sequence[Layer], activation: str) -> Array:
    """T (section 2): fully connected layers, with the activation between them alone."""
    slope = {"relu": 0.0, "leaky_relu": LEAK}[activation]
    for index, layer in enumerate(layers):
        if index > 0:
            rows = np.where(rows > 0, rows, slope * rows)
        rows = dense(rows, layer)
    return rows


def mask_logits(features: Array, filters: Array) -> Array:
    """F . w of one region each: [N, M, M] of [N, M, M, C] and [N, C] (section 2, the last line)."""
    result = np.zeros(features.shape[:-1])
    for region, y, x in np.ndindex(*result.shape):
        result[region, y, x] = float(np.dot(features[region, y, x].astype(np.float64), filters[region]))
    return result


def mlp_branch(features: Array, layer: Layer) -> Array:
    """The MLP's logits (section 3): each region's map flattened row by row, one layer, back to a square: [N, M, M]."""
    logits = dense(features.reshape(len(features), -1), layer)
    side = math.isqrt(logits.shape[-1])
    return logits.reshape(-1, side, side)


def mask_trunk(features: Array, convs: Sequence[Layer], kernel: Array, bias: Array) -> tuple[Array, Array]:
    """Maps [N, size, size, C] before and [N, 2 size, 2 size, C] after the deconvolution (section 5)."""
    for weights, offsets in convs:
        features = relu(convolution(features, weights) + offsets)
    return features, relu(deconvolution(features, kernel) + bias)


def non_local(inputs: Array, theta: Layer, phi: Layer, g: Layer, out: Layer) -> Array:
    """Each cell plus what it reads of the others, halved by maxima (Wang et al. 2018, equations 2 to 6)."""

    def linear(cells: Array, layer: Layer) -> Array:
        return cells @ layer[0] + layer[1]

    result = np.array(inputs, np.float64)
    height, width = inputs.shape[1:3]
    for image, pixels in enumerate(np.array(inputs, np.float64)):
        keys, values = (
            [
                mapped[row : row + 2, column : column + 2].max(axis=(0, 1))
                for row in range(0, height, 2)
                for column in range(0, width, 2)
            ]
            for mapped in (linear(pixels, phi), linear(pixels, g))
        )
        for row, column in np.ndindex(height, width):
            query = linear(pixels[row, column], theta)
            weights = np.exp([query @ key / np.sqrt(len(query)) for key in keys])
            mean = sum(weight * value for weight, value in zip(weights, values, strict=True)) / weights.sum()
            result[image, row, column] += linear(mean, out)
    return result
