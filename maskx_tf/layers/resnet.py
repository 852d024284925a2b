"""ResNet and ResNeXt backbones: a stem and four stages of bottlenecks (He et al. 2016, Xie et al. 2017)."""

from __future__ import annotations

from typing import NamedTuple

import keras
import tensorflow as tf

from maskx_tf.layers.norm import ConvNorm
from maskx_tf.layers.parts import Layer, LayerConfig, Shape


class Variant(NamedTuple):
    """Blocks of res2 to res5, groups of the 3x3 convolutions, channels a group in res2, and channels that it gives."""

    blocks: tuple[int, int, int, int]
    groups: int = 1
    group_width: int = 64
    filters: int = 256


VARIANTS = {
    "resnet_small": Variant((1, 1, 1, 1), group_width=32, filters=128),  # ours, for experiments on small images
    "resnet50": Variant((3, 4, 6, 3)),
    "resnet101": Variant((3, 4, 23, 3)),
    "resnet152": Variant((3, 8, 36, 3)),
    "resnext101_32x8d": Variant((3, 4, 23, 3), groups=32, group_width=8),
    "resnext101_64x4d": Variant((3, 4, 23, 3), groups=64, group_width=4),
    "resnext152_32x8d": Variant((3, 8, 36, 3), groups=32, group_width=8),
}


class Bottleneck(Layer):
    """1x1, 3x3 and 1x1 convolutions, and a shortcut around them.

    Args:
        filters: output channels.
        width: channels of the 3x3 convolution.
        project: the shortcut is a 1x1 convolution, because the shape changes.
        strides: the stride of the block.
        dilation: the dilation of the 3x3 convolution.
        groups: the number of groups of the 3x3 convolution.
        stride_in_1x1: the first 1x1 convolution has the stride rather than the 3x3.
        norm: see `ConvNorm`.
        epsilon: see `ConvNorm`.
    """

    def __init__(
        self,
        filters: int,
        width: int,
        *,
        project: bool,
        strides: int = 1,
        dilation: int = 1,
        groups: int = 1,
        stride_in_1x1: bool = False,
        norm: str = "frozen_batch",
        epsilon: float = 1e-5,
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        first, second = (strides, 1) if stride_in_1x1 else (1, strides)
        norms: LayerConfig = {"norm": norm, "epsilon": epsilon, "dtype": self.dtype_policy}
        self.conv1 = ConvNorm(width, 1, strides=first, relu=True, name="conv1", **norms)
        self.conv2 = ConvNorm(
            width, 3, strides=second, dilation=dilation, groups=groups, relu=True, name="conv2", **norms
        )
        self.conv3 = ConvNorm(filters, 1, name="conv3", **norms)
        self.shortcut = ConvNorm(filters, 1, strides=strides, name="shortcut", **norms) if project else None

    def build(self, input_shape: Shape) -> None:
        if self.shortcut is not None:
            self.shortcut.build(input_shape)
        inner = (*input_shape[:-1], self.conv1.filters)
        self.conv1.build(input_shape)
        self.conv2.build(inner)
        self.conv3.build(inner)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        outputs = self.conv3(self.conv2(self.conv1(inputs, training=training), training=training), training=training)
        shortcut = inputs if self.shortcut is None else self.shortcut(inputs, training=training)
        return tf.nn.relu(outputs + shortcut)


class NonLocal(Layer):
    """Adds to each cell a mean of all cells, weighted by how much they resemble it (embedded Gaussian).

    This is the non-local block of Wang et al. (2018). Cells are compared and averaged in half of the channels, and
    averages are taken of a map that 2x2 maxima have halved. The last convolution starts at zero, so that a new block
    changes nothing.

    Args:
        channels: the number of channels of the map.
    """

    def __init__(self, channels: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        options: LayerConfig = {"kernel_initializer": keras.initializers.RandomNormal(stddev=0.01)}
        options["dtype"] = self.dtype_policy
        self.theta, self.phi, self.g = (
            ConvNorm(channels // 2, 1, name=name, **options) for name in ("theta", "phi", "g")
        )
        self.out = ConvNorm(channels, 1, kernel_initializer="zeros", name="out", dtype=self.dtype_policy)

    def build(self, input_shape: Shape) -> None:
        for part in (self.theta, self.phi, self.g):
            part.build(input_shape)
        self.out.build((*input_shape[:-1], self.channels // 2))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        theta = self.theta(inputs)
        shape, width = tf.shape(theta), theta.shape[-1]
        keys, values = (
            tf.reshape(tf.nn.max_pool2d(part(inputs), 2, 2, "SAME"), [shape[0], -1, width])
            for part in (self.phi, self.g)
        )
        alike = tf.matmul(tf.reshape(theta, [shape[0], -1, width]), keys, transpose_b=True)
        weights = tf.nn.softmax(tf.cast(alike, tf.float32) * width**-0.5)
        return inputs + self.out(tf.reshape(tf.matmul(tf.cast(weights, values.dtype), values), shape))


class Stage(Layer):
    """Bottlenecks of one resolution, the first of which changes it: res2 to res5.

    Args:
        number: 2 to 5.
        variant: a name in `VARIANTS`.
        strides: the stride of the first block.
        dilation: the dilation of all blocks.
        stride_in_1x1: see `Bottleneck`.
        norm: see `ConvNorm`.
        epsilon: see `ConvNorm`.
        non_local: whether a non-local block stands before the last bottleneck.
    """

    def __init__(
        self,
        number: int,
        *,
        variant: str,
        strides: int,
        dilation: int = 1,
        stride_in_1x1: bool = False,
        norm: str = "frozen_batch",
        epsilon: float = 1e-5,
        non_local: bool = False,
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)
        blocks, groups, group_width, filters = VARIANTS[variant]
        scale = 2 ** (number - 2)
        self.blocks = [
            Bottleneck(
                filters * scale,
                groups * group_width * scale,
                project=index == 0,
                strides=strides if index == 0 else 1,
                dilation=dilation,
                groups=groups,
                stride_in_1x1=stride_in_1x1,
                norm=norm,
                epsilon=epsilon,
                name=f"block{index}",
                dtype=self.dtype_policy,
            )
            for index in range(blocks[number - 2])
        ]
        before_last = filters * scale if len(self.blocks) > 1 else filters * scale // 2
        self.non_local = NonLocal(before_last, name="non_local", dtype=self.dtype_policy) if non_local else None

    def build(self, input_shape: Shape) -> None:
        for block in self.blocks:
            if self.non_local is not None and block is self.blocks[-1]:
                self.non_local.build(input_shape)
            block.build(input_shape)
            input_shape = (*input_shape[:-1], block.filters)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        for block in self.blocks:
            if self.non_local is not None and block is self.blocks[-1]:
                inputs = self.non_local(inputs)
            inputs = block(inputs, training=training)
        return inputs


class ResNet(Layer):
    """Image to feature maps, one a stage.

    Args:
        variant: a name in `VARIANTS`.
        last_stage: 5, or 4 where res5 is part of the box head.
        dilate_last: res5 keeps the resolution of res4 and dilates its 3x3 convolutions instead.
        frozen_stages: how many of stem, res2, ... do not learn.
        stride_in_1x1: see `Bottleneck`.
        stem_pool: where the windows of the stem's maximum begin: "padded", one pixel before the map (torchvision), or
            "ceil", at its first pixel, the last of them incomplete (Caffe).
        norm: see `ConvNorm`.
        epsilon: see `ConvNorm`.
        non_local: whether res4 has a non-local block.
    """

    def __init__(
        self,
        variant: str,
        *,
        last_stage: int = 5,
        dilate_last: bool = False,
        frozen_stages: int = 0,
        stride_in_1x1: bool = False,
        stem_pool: str = "padded",
        norm: str = "frozen_batch",
        epsilon: float = 1e-5,
        non_local: bool = False,
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)
        self.last_stage = last_stage
        self.dilate_last = dilate_last
        self.stem_pool = stem_pool
        self.stem = ConvNorm(
            64, 7, strides=2, norm=norm, epsilon=epsilon, relu=True, name="stem", dtype=self.dtype_policy
        )
        self.stages: list[Stage] = []
        for number in range(2, last_stage + 1):
            dilated = number == 5 and dilate_last
            self.stages.append(
                Stage(
                    number,
                    variant=variant,
                    strides=1 if number == 2 or dilated else 2,
                    dilation=2 if dilated else 1,
                    stride_in_1x1=stride_in_1x1,
                    norm=norm,
                    epsilon=epsilon,
                    non_local=non_local and number == 4,
                    name=f"res{number}",
                    dtype=self.dtype_policy,
                )
            )
        parts: list[keras.layers.Layer] = [self.stem, *self.stages]
        for part in parts[:frozen_stages]:
            part.trainable = False

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels a cell of each map."""
        strides = tuple(2**number for number in range(2, self.last_stage + 1))
        return (*strides[:-1], strides[-2]) if self.dilate_last else strides

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each map."""
        return tuple(stage.blocks[-1].filters for stage in self.stages)

    def build(self, input_shape: Shape) -> None:
        self.stem.build(input_shape)
        channels = 64
        for stage in self.stages:
            stage.build((*input_shape[:-1], channels))
            channels = stage.blocks[-1].filters

    def call(self, images: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        """Maps C2 to C5 (or C4), float [B, H / stride, W / stride, 256 .. 2048], of normalised images [B, H, W, 3]."""
        features = self.stem(images, training=training)
        # What ReLU leaves is never negative, so zeros pad a maximum as well as minus infinity would.
        border = [1, 1] if self.stem_pool == "padded" else [0, 1]
        features = tf.nn.max_pool2d(tf.pad(features, [[0, 0], border, border, [0, 0]]), 3, 2, "VALID")
        maps = []
        for stage in self.stages:
            features = stage(features, training=training)
            maps.append(features)
        return maps
