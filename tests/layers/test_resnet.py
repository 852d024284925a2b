"""Bottlenecks against loops, and the shape of the networks: where strides and dilation sit, and what learns."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.layers.norm import ConvNorm
from maskx_tf.layers.resnet import VARIANTS, Bottleneck, NonLocal, ResNet, Stage
from tests import reference_layers as reference
from tests.layers.catalogue import normal


def randomise(layer: keras.layers.Layer) -> None:
    rng = np.random.default_rng(0)
    for variable in layer.weights:
        if variable.name in ("variance", "gamma"):
            variable.assign(rng.uniform(0.5, 2.0, variable.shape))
        elif len(variable.shape) == 1:
            variable.assign(rng.normal(size=variable.shape))


def conv_norm(inputs: np.ndarray, layer: ConvNorm, relu: bool, **where: int) -> np.ndarray:
    """A ConvNorm in loops, with stride, dilation and groups as the caller has them, not as the layer does."""
    numbers = reference.Statistics(*(np.array(part) for part in (layer.gamma, layer.beta, layer.mean, layer.variance)))
    outputs = reference.batch_norm(reference.convolution(inputs, layer.kernel, **where), numbers, layer.epsilon)
    return reference.relu(outputs) if relu else outputs


@pytest.mark.parametrize("stride_in_1x1", [False, True])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize(("dilation", "groups"), [(1, 1), (2, 1), (1, 2)])
def test_bottleneck(stride_in_1x1, strides, dilation, groups) -> None:
    keras.utils.set_random_seed(0)
    layer = Bottleneck(
        6,
        4,
        project=True,
        strides=strides,
        dilation=dilation,
        groups=groups,
        stride_in_1x1=stride_in_1x1,
        epsilon=1e-3,
    )
    inputs = normal(2, 7, 8, 3)
    layer.build(inputs.shape)
    randomise(layer)
    first, second = (strides, 1) if stride_in_1x1 else (1, strides)
    hidden = conv_norm(inputs, layer.conv1, relu=True, stride=first)
    hidden = conv_norm(hidden, layer.conv2, relu=True, stride=second, dilation=dilation, groups=groups)
    hidden = conv_norm(hidden, layer.conv3, relu=False)
    shortcut = conv_norm(inputs, layer.shortcut, relu=False, stride=strides)
    np.testing.assert_allclose(layer(inputs), reference.relu(hidden + shortcut), atol=1e-4)


def test_non_local_block() -> None:
    """Against loops over cells; a new block changes nothing, and res4 has it before its last bottleneck."""
    keras.utils.set_random_seed(0)
    layer, inputs = NonLocal(6), normal(2, 5, 4, 6)
    np.testing.assert_array_equal(layer(inputs), inputs)
    rng = np.random.default_rng(0)
    for variable in layer.weights:
        variable.assign(rng.normal(size=variable.shape))
    linear = [(part.kernel.numpy()[0, 0], part.bias.numpy()) for part in (layer.theta, layer.phi, layer.g, layer.out)]
    np.testing.assert_allclose(layer(inputs), reference.non_local(inputs, *linear), atol=1e-3)
    network = ResNet("resnet_small", norm="group", non_local=True, name="backbone")
    network.build((None, 64, 64, 3))
    assert [stage.non_local is not None for stage in network.stages] == [False, False, True, False]
    plain = ResNet("resnet_small", norm="group", name="backbone")
    plain.build((None, 64, 64, 3))
    kept = {variable.path: variable for variable in network.weights}
    for variable in plain.weights:
        variable.assign(kept.pop(variable.path))
    assert {name.split("/")[-3] for name in kept} == {"non_local"}
    pixels = normal(1, 64, 64, 3)
    for one, other in zip(network(pixels), plain(pixels), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_place_of_the_stride_matters() -> None:
    inputs, results = normal(1, 8, 8, 3), []
    for stride_in_1x1 in (False, True):
        keras.utils.set_random_seed(0)
        results.append(Bottleneck(6, 4, project=True, strides=2, stride_in_1x1=stride_in_1x1)(inputs))
    assert results[0].shape == results[1].shape
    assert np.abs(results[0] - results[1]).max() > 0.1


def test_bottleneck_without_projection() -> None:
    layer = Bottleneck(3, 4, project=False)
    inputs = normal(1, 5, 5, 3)
    layer.build(inputs.shape)
    randomise(layer)
    hidden = conv_norm(conv_norm(inputs, layer.conv1, relu=True), layer.conv2, relu=True)
    np.testing.assert_allclose(
        layer(inputs), reference.relu(conv_norm(hidden, layer.conv3, relu=False) + inputs), atol=1e-4
    )


def test_small_network_has_half_the_width() -> None:
    layer = ResNet("resnet_small", norm="group")
    assert [len(stage.blocks) for stage in layer.stages] == [1, 1, 1, 1]
    assert layer.channels == (128, 256, 512, 1024)
    assert [stage.blocks[0].conv2.filters for stage in layer.stages] == [32, 64, 128, 256]


def test_stem() -> None:
    """7x7 with stride 2 and 3 pixels around, then a 3x3 maximum with stride 2 and one pixel around."""
    layer = ResNet("resnet50", last_stage=2)
    images = normal(1, 18, 21, 3)  # sides on which symmetric padding differs from TensorFlow's
    layer.build((None, None, None, 3))
    randomise(layer.stem)
    expected = reference.max_pool(conv_norm(images, layer.stem, relu=True, stride=2))
    (result,) = layer(tf.constant(images))
    np.testing.assert_allclose(result, layer.stages[0](tf.constant(expected, tf.float32)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "resnet_small"])
def test_widths(variant) -> None:
    """spec/mask_rcnn.md, section 8: p = 64 * 2^(s - 2), outputs 4 p, width p * (width / 64) * groups."""
    groups, group_width = {"32x8d": (32, 8), "64x4d": (64, 4)}.get(variant.partition("_")[2], (1, 64))
    depths = {"50": (3, 4, 6, 3), "101": (3, 4, 23, 3), "152": (3, 8, 36, 3)}
    layer = ResNet(variant)
    assert (
        tuple(len(stage.blocks) for stage in layer.stages)
        == depths[variant.partition("_")[0].removeprefix("resnext").removeprefix("resnet")]
    )
    for number, stage in zip((2, 3, 4, 5), layer.stages, strict=True):
        planes = 64 * 2 ** (number - 2)
        for index, block in enumerate(stage.blocks):
            assert block.filters == 4 * planes
            assert block.conv1.filters == block.conv2.filters == planes * group_width * groups // 64
            assert block.conv2.groups == groups
            assert (block.shortcut is not None) == (index == 0)
    assert layer.channels == (256, 512, 1024, 2048)
    assert layer.strides == (4, 8, 16, 32)


@pytest.mark.parametrize("stride_in_1x1", [False, True])
def test_strides(stride_in_1x1) -> None:
    """Res3 to res5 halve in their first block: in its 3x3 or its first 1x1, and in the shortcut."""
    layer = ResNet("resnet50", stride_in_1x1=stride_in_1x1)
    for number, stage in zip((2, 3, 4, 5), layer.stages, strict=True):
        for index, block in enumerate(stage.blocks):
            strides = 2 if index == 0 and number > 2 else 1
            inside = (strides, 1) if stride_in_1x1 else (1, strides)
            assert (block.conv1.strides, block.conv2.strides, block.conv3.strides) == (*inside, 1)
            assert block.shortcut is None or block.shortcut.strides == strides


def test_dilated_last_stage() -> None:
    layer = ResNet("resnet50", dilate_last=True)
    assert layer.strides == (4, 8, 16, 16)
    for stage in layer.stages:
        last = stage is layer.stages[-1]
        assert {block.conv2.dilation for block in stage.blocks} == {2 if last else 1}
        assert not last or all(block.conv1.strides == block.conv2.strides == 1 for block in stage.blocks)


def test_without_the_last_stage() -> None:
    layer = ResNet("resnet50", last_stage=4)
    assert layer.strides == (4, 8, 16)
    assert layer.channels == (256, 512, 1024)


@pytest.mark.parametrize(("dilate_last", "sides"), [(False, (16, 8, 4, 2)), (True, (16, 8, 4, 4))])
def test_shapes(dilate_last, sides) -> None:
    layer = ResNet("resnet_small", dilate_last=dilate_last)
    maps = layer(tf.zeros([1, 64, 64, 3]))
    assert [level.shape for level in maps] == [
        (1, side, side, channels) for side, channels in zip(sides, layer.channels, strict=True)
    ]


@pytest.mark.parametrize("frozen", range(6))
def test_frozen_stages(frozen) -> None:
    layer = ResNet("resnet_small", frozen_stages=frozen)
    layer.build((None, 64, 64, 3))
    learning = {variable.path.split("/")[1] for variable in layer.trainable_variables}
    assert learning == set(["stem", "res2", "res3", "res4", "res5"][frozen:])


def test_frozen_stages_keep_their_batch_statistics() -> None:
    layer = ResNet("resnet50", last_stage=3, frozen_stages=2, norm="batch")
    images = normal(1, 32, 32, 3)
    layer(images)
    norm = {part: layer.stages[index].blocks[0].conv1.norm_layer for index, part in enumerate(("res2", "res3"))}
    before = {part: np.array(batch.moving_mean) for part, batch in norm.items()}
    layer(images, training=True)
    np.testing.assert_array_equal(norm["res2"].moving_mean, before["res2"])
    assert np.abs(norm["res3"].moving_mean - before["res3"]).max() > 0


def test_stage_is_its_blocks() -> None:
    layer = Stage(2, variant="resnet50", strides=2)
    inputs = tf.constant(normal(1, 4, 4, 8))
    expected = inputs
    layer.build(inputs.shape)
    for block in layer.blocks:
        expected = block(expected)
    np.testing.assert_array_equal(layer(inputs), expected)
