"""Trunks of mask heads for a fine grid: an hourglass, residual blocks, and the region's pixels next to its features.

Each takes the place of `MaskTrunk` in any head and returns the same: a map at the pooled size and one at twice it.
Pooled at 32 x 32 they make masks of 64 x 64, where `MaskTrunk` with 256 channels would cost five times what it costs
at 14 x 14. Multiply-adds a region of 256 channels, and weights, with their defaults and one filter for all classes:

    MaskTrunk, 14 to 28                 514 million   2,622,977
    HourglassTrunk, 32 to 64            130 million     450,913
    ResidualTrunk, 32 to 64             192 million     187,921
    PixelTrunk(HourglassTrunk())        256 million     482,145

Everything is made of operations that LiteRT has built in; cells are doubled by copying them, which every runtime does
alike.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from maskx_tf.layers.fpn import double_cells
from maskx_tf.layers.mask_parts import MaskTrunk
from maskx_tf.layers.norm import ConvNorm
from maskx_tf.layers.parts import Layer, Shape, build_once


class HourglassTrunk(Layer):
    """Convolutions at the pooled size, at half and a quarter of it, and back up (Deep-MARC, Birodkar et al. 2021).

    With three widths the middle of a 32 x 32 region sees 25 cells a side, with four all of them.

    Args:
        channels: the number of channels of the large map.
        widths: channels at the pooled size, at half of it, at a quarter, and so on.
    """

    def __init__(self, channels: int = 48, *, widths: tuple[int, ...] = (48, 96, 96), **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.widths = tuple(widths)
        options = {"relu": True, "dtype": self.dtype_policy}
        steps = list(enumerate(self.widths))
        self.entry = ConvNorm(self.widths[0], 1, name="entry", **options)
        self.down = [ConvNorm(width, 3, strides=2, name=f"down{level}", **options) for level, width in steps[1:]]
        self.across = [ConvNorm(width, 3, name=f"across{level}", **options) for level, width in steps]
        self.narrow = [
            ConvNorm(width, 1, name=f"narrow{level}", dtype=self.dtype_policy) for level, width in steps[:-1]
        ]
        self.merge = [ConvNorm(width, 3, name=f"merge{level}", **options) for level, width in steps[:-1]]
        self.up = MaskTrunk(channels, convs=0, name="up", dtype=self.dtype_policy)

    def build(self, input_shape: Shape) -> None:
        self.entry.build((None, None, None, input_shape[-1]))
        for level, width in enumerate(self.widths):
            shape = (None, None, None, width)
            self.across[level].build(shape)
            if level > 0:
                self.down[level - 1].build((None, None, None, self.widths[level - 1]))
                self.narrow[level - 1].build(shape)
                self.merge[level - 1].build((None, None, None, self.widths[level - 1]))
        self.up.build((*input_shape[:-1], self.widths[0]))

    def call(self, pooled: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Maps [B, N, size, size, C] and [B, N, 2 size, 2 size, C] of pooled features."""
        finer = []
        features = self.across[0](self.entry(_flat(pooled)))
        for down, across in zip(self.down, self.across[1:], strict=True):
            finer.append(features)
            features = across(down(features))
        for narrow, merge, skip in reversed(list(zip(self.narrow, self.merge, finer, strict=True))):
            # An odd side is halved upwards.
            coarse = double_cells(narrow(features))[:, : skip.shape[1], : skip.shape[2]]
            features = merge(skip + coarse)
        return self.up(_unflat(features, pooled))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return self.up.compute_output_shape((*input_shape[:-1], self.widths[0]))


class ResidualTrunk(Layer):
    """Residual blocks of two 3x3 convolutions at the pooled size, then a deconvolution to twice it.

    Args:
        channels: the number of channels of every layer.
        blocks: how many.
    """

    def __init__(self, channels: int = 48, *, blocks: int = 4, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        options = {"dtype": self.dtype_policy}
        # At the start all blocks together add about as much as what they are added to.
        start = keras.initializers.VarianceScaling(2.0 / max(blocks, 1), "fan_in", "truncated_normal")
        self.entry = ConvNorm(channels, 1, relu=True, name="entry", **options)
        numbers = range(1, blocks + 1)
        self.first = [ConvNorm(channels, 3, relu=True, name=f"block{number}_conv1", **options) for number in numbers]
        self.second = [
            ConvNorm(channels, 3, kernel_initializer=start, name=f"block{number}_conv2", **options)
            for number in numbers
        ]
        self.up = MaskTrunk(channels, convs=0, name="up", **options)

    def build(self, input_shape: Shape) -> None:
        self.entry.build((None, None, None, input_shape[-1]))
        for conv in (*self.first, *self.second):
            conv.build((None, None, None, self.channels))
        self.up.build((*input_shape[:-1], self.channels))

    def call(self, pooled: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Maps [B, N, size, size, C] and [B, N, 2 size, 2 size, C] of pooled features."""
        features = self.entry(_flat(pooled))
        for first, second in zip(self.first, self.second, strict=True):
            features = tf.nn.relu(features + second(first(features)))
        return self.up(_unflat(features, pooled))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return self.up.compute_output_shape((*input_shape[:-1], self.channels))


class PixelTrunk(Layer):
    """A trunk that also sees the region's pixels: before it, where it reasons, and after it, where outlines are drawn.

    Two convolutions read the pixels at the size of the masks. What they see is joined to the pooled features, averaged,
    and to the trunk's large map as it is, from which another convolution makes the features.

    Args:
        trunk: what the pixels are joined to.
        stem: channels of the pixels' convolutions.
    """

    def __init__(self, trunk: MaskTrunk | HourglassTrunk | ResidualTrunk, *, stem: int = 16, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.trunk = trunk
        self.channels = trunk.channels
        self.stem = [ConvNorm(stem, 3, relu=True, name=f"stem{index + 1}", dtype=self.dtype_policy) for index in (0, 1)]
        self.fuse = ConvNorm(trunk.channels, 3, relu=True, name="fuse", dtype=self.dtype_policy)

    def build(self, input_shape: Shape) -> None:
        stem = self.stem[0].filters
        channels = input_shape[1][-1]
        for conv in self.stem:
            conv.build((None, None, None, channels))
            channels = stem
        build_once(self.trunk, self._joined(input_shape))
        self.fuse.build((None, None, None, self.channels + stem))

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """The trunk's small map, and the large map [B, N, 2 size, 2 size, C] with what the pixels add to it.

        Args:
            inputs: pooled features [B, N, size, size, C] and RGB pixels [B, N, 2 size, 2 size, 3] in 0..255.
        """
        pooled, pixels = inputs
        fine = _flat(pixels) / 127.5 - 1.0
        for conv in self.stem:
            fine = conv(fine)
        coarse = _unflat(tf.nn.avg_pool2d(fine, 2, 2, "VALID"), pooled)
        small, large = self.trunk(tf.concat([pooled, coarse], axis=-1))
        return small, _unflat(self.fuse(tf.concat([_flat(large), fine], axis=-1)), pooled)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return self.trunk.compute_output_shape(self._joined(input_shape))

    def _joined(self, input_shape: Shape) -> tuple[int | None, ...]:
        """Shape of the pooled features with the averaged pixels."""
        return (*input_shape[0][:-1], input_shape[0][-1] + self.stem[0].filters)


Trunk = MaskTrunk | HourglassTrunk | ResidualTrunk | PixelTrunk


def _flat(maps: tf.Tensor) -> tf.Tensor:
    """[B * N, size, size, C] of [B, N, size, size, C]."""
    return tf.reshape(maps, [-1, *maps.shape[2:]])


def _unflat(maps: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """[B, N, size, size, C] of [B * N, size, size, C], with the N of `like`."""
    return tf.reshape(maps, [-1, like.shape[1], *maps.shape[1:]])
