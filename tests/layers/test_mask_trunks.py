"""Trunks for fine masks against loops, what their cells see, and what LiteRT makes of them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.layers.mask_head import FCNMaskHead, TransferredMaskHead
from maskx_tf.layers.mask_parts import MaskPredictor, MaskTrunk, apply_filters
from maskx_tf.layers.mask_trunks import HourglassTrunk, PixelTrunk, ResidualTrunk
from maskx_tf.layers.norm import ConvNorm
from tests import reference_layers as reference
from tests.layers.catalogue import normal, with_pixels
from tests.layers.counting import record_weights, total
from tests.litert import converted


def randomised(layer: keras.layers.Layer, inputs: object) -> keras.layers.Layer:
    layer(inputs)
    for number, variable in enumerate(layer.weights):
        variable.assign(normal(*variable.shape, seed=number) / np.sqrt(max(np.prod(variable.shape[:-1]), 1)))
    return layer


def conv(layer: ConvNorm, maps: np.ndarray) -> np.ndarray:
    """A convolution with its bias and, where it has one, ReLU: in loops."""
    outputs = reference.convolution(maps, np.array(layer.kernel), stride=layer.strides) + np.array(layer.bias)
    return reference.relu(outputs) if layer.relu else outputs


def up(layer: MaskTrunk, maps: np.ndarray) -> np.ndarray:
    return reference.relu(reference.deconvolution(maps, np.array(layer.deconv_kernel)) + np.array(layer.deconv_bias))


def hourglass(layer: HourglassTrunk, maps: np.ndarray) -> np.ndarray:
    """The small map."""
    levels = [conv(layer.across[0], conv(layer.entry, maps))]
    for down, across in zip(layer.down, layer.across[1:], strict=True):
        levels.append(conv(across, conv(down, levels[-1])))
    features = levels.pop()
    while levels:
        skip = levels.pop()
        coarse = reference.nearest_double(conv(layer.narrow[len(levels)], features))
        features = conv(layer.merge[len(levels)], skip + coarse[:, : skip.shape[1], : skip.shape[2]])
    return features


@pytest.mark.parametrize(("size", "widths"), [(8, (3, 5, 6)), (7, (3, 5, 6)), (4, (3,))])
def test_hourglass(size, widths) -> None:
    pooled = normal(2, 2, size, size, 4)
    layer = randomised(HourglassTrunk(5, widths=widths), pooled)
    small, large = layer(pooled)
    for image in range(2):
        expected = hourglass(layer, pooled[image])
        np.testing.assert_allclose(small[image], expected, atol=1e-5)
        np.testing.assert_allclose(large[image], up(layer.up, expected), atol=1e-5)


def test_residual() -> None:
    pooled = normal(2, 2, 4, 4, 6)
    layer = randomised(ResidualTrunk(5, blocks=2), pooled)
    small, large = layer(pooled)
    for image in range(2):
        features = conv(layer.entry, pooled[image])
        for first, second in zip(layer.first, layer.second, strict=True):
            features = reference.relu(features + conv(second, conv(first, features)))
        np.testing.assert_allclose(small[image], features, atol=1e-5)
        np.testing.assert_allclose(large[image], up(layer.up, features), atol=1e-5)


def test_residual_start() -> None:
    """However many blocks there are, the features keep about the size of what enters the first."""
    pooled = normal(1, 4, 16, 16, 32)
    sizes = []
    for blocks in (1, 8):
        keras.utils.set_random_seed(0)
        layer = ResidualTrunk(32, blocks=blocks)
        sizes.append(np.std(layer(pooled)[0]))
    assert sizes[1] < 2 * sizes[0]


def test_pixels() -> None:
    """Joined, averaged, to what the trunk reads, and as they are to what it gives."""
    pooled, pixels = with_pixels()
    layer = randomised(PixelTrunk(HourglassTrunk(5, widths=(4, 6)), stem=3), (pooled, pixels))
    small, large = layer((pooled, pixels))
    for image in range(2):
        fine = pixels[image].astype(np.float64) / 127.5 - 1.0
        for stem in layer.stem:
            fine = conv(stem, fine)
        coarse = fine.reshape(3, 4, 2, 4, 2, 3).mean(axis=(2, 4))
        expected = hourglass(layer.trunk, np.concatenate([pooled[image], coarse], axis=-1))
        joined = np.concatenate([up(layer.trunk.up, expected), fine], axis=-1)
        np.testing.assert_allclose(small[image], expected, atol=1e-5)
        np.testing.assert_allclose(large[image], conv(layer.fuse, joined), atol=1e-5)


@pytest.mark.parametrize(
    ("trunk", "cells"),
    [
        (HourglassTrunk(4, widths=(4, 6, 6)), 25),
        (HourglassTrunk(4, widths=(4, 6, 6, 6)), 32),
        (MaskTrunk(4), 9),
    ],
)
def test_how_much_of_the_region_its_middle_sees(trunk, cells) -> None:
    pooled = tf.ones([1, 1, 32, 32, 3])
    trunk(pooled)
    for variable in trunk.weights:
        variable.assign(tf.abs(variable) + 0.01)  # no ReLU hides a cell
    with tf.GradientTape() as tape:
        tape.watch(pooled)
        middle = tf.reduce_sum(trunk(pooled)[1][:, :, 31, 31])
    seen = np.any(tape.gradient(middle, pooled).numpy() > 0, axis=(0, 1, 4))
    assert seen.any(axis=0).sum() == seen.any(axis=1).sum() == cells


TRUNKS = [
    HourglassTrunk(5, widths=(4, 6, 6)),
    ResidualTrunk(5, blocks=1),
    PixelTrunk(MaskTrunk(5, convs=1), stem=4),
    PixelTrunk(HourglassTrunk(5, widths=(4, 6)), stem=4),
]


@pytest.mark.parametrize("trunk", TRUNKS, ids=lambda trunk: trunk.name)
def test_the_features_suit_every_kind_of_filter(trunk) -> None:
    """One for all classes, one a class, and those that T makes: heads and `apply_filters` agree."""
    pooled, pixels = with_pixels()
    inputs = (pooled, pixels) if isinstance(trunk, PixelTrunk) else pooled
    classes = np.array([[1, 5, 2], [3, 3, 4]], np.int32)
    for outputs in (1, 5):
        head = FCNMaskHead(trunk, MaskPredictor(outputs))
        logits = head(inputs, classes)
        assert head.side == 8
        rows = head.predictor.rows.numpy()[np.zeros_like(classes) if outputs == 1 else classes - 1]
        large = trunk(inputs)[1]
        assert large.shape == (2, 3, 8, 8, trunk.channels)
        np.testing.assert_allclose(logits, apply_filters(large, tf.constant(rows)), atol=1e-6)
        np.testing.assert_allclose(TransferredMaskHead(trunk)(inputs, rows), logits, atol=1e-6)


@pytest.mark.parametrize("trunk", TRUNKS, ids=lambda trunk: trunk.name)
def test_litert_gives_the_same(trunk) -> None:
    pooled, pixels = with_pixels()
    inputs = {"pooled": pooled[:1]} | ({"pixels": pixels[:1]} if isinstance(trunk, PixelTrunk) else {})
    head = FCNMaskHead(trunk, MaskPredictor(1))

    def masks(pooled: tf.Tensor, pixels: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        return {"logits": head(pooled if pixels is None else (pooled, pixels), tf.ones([1, 3], tf.int32))}

    expected = masks(**inputs)["logits"]
    assert np.abs(expected).max() > 0
    found = converted(masks, inputs)["logits"]
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("trunk", "shape", "expected"),
    [
        (MaskTrunk, (14, 14, 256), 2_622_977),
        (HourglassTrunk, (32, 32, 256), 450_913),
        (ResidualTrunk, (32, 32, 256), 187_921),
        (lambda: PixelTrunk(HourglassTrunk()), ((32, 32, 256), (64, 64, 3)), 482_145),
    ],
)
def test_counts(trunk, shape, expected, monkeypatch) -> None:
    """Those of the file's docstring."""
    weights = record_weights(monkeypatch)
    inputs = tuple((None, None, *one) for one in shape) if isinstance(shape[0], tuple) else (None, None, *shape)
    FCNMaskHead(trunk(), MaskPredictor(1)).build(inputs)
    assert total(weights) == expected


def test_an_hourglass_has_the_weights_of_its_widths(monkeypatch) -> None:
    weights = record_weights(monkeypatch)

    def conv3(inputs: int, outputs: int) -> int:
        return 9 * inputs * outputs + outputs

    HourglassTrunk(32).build((None, None, 32, 32, 256))
    expected = 256 * 48 + 48 + 2 * conv3(48, 48) + conv3(48, 96) + 4 * conv3(96, 96)
    assert total(weights) == expected + 96 * 48 + 48 + 96 * 96 + 96 + 4 * 48 * 32 + 32
