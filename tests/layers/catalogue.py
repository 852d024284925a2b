"""Every layer of `maskx_tf.layers`: how to make it, its inputs, and its properties. test_conformance reads it.

A new layer is added here; the reflection at the end finds the ones that are not.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

import maskx_tf.layers
from maskx_tf.layers.applications import Application
from maskx_tf.layers.box_head import BoxPredictor, FullyConnectedHead, Res5Head, Res5Pool
from maskx_tf.layers.fpn import FPN, LastMap
from maskx_tf.layers.keypoint_head import KeypointHead
from maskx_tf.layers.mask_head import FCNMaskHead, MLPMaskHead, TransferredMaskHead
from maskx_tf.layers.mask_parts import MaskPredictor, MaskTrunk, MLPBranch
from maskx_tf.layers.mask_trunks import HourglassTrunk, PixelTrunk, ResidualTrunk
from maskx_tf.layers.norm import ConvNorm
from maskx_tf.layers.parts import Layer
from maskx_tf.layers.position import PositionMaps, PositionNeck
from maskx_tf.layers.resnet import Bottleneck, NonLocal, ResNet, Stage
from maskx_tf.layers.roi_pool import RoiPooler
from maskx_tf.layers.rpn import RPNHead
from maskx_tf.layers.transfer import Transfer

FLOAT32, COMPUTE = "float32", "compute"


class Case(NamedTuple):
    """One layer with one set of options.

    Attributes:
        make: a fresh layer, in Keras' current dtype policy.
        inputs: arrays, or structures of them; the first dimension of each is the batch.
        run: what is driven, of the layer and its inputs.
        compiled: whether XLA is to compile it.
        outputs: the float type that is promised under a mixed policy: FLOAT32, or COMPUTE, the policy's own.
        rounding: how far mixed_bfloat16 may be from float32, as a share of the largest output.
    """

    make: Callable[[], keras.layers.Layer]
    inputs: Callable[[], tuple[Any, ...]]
    run: Callable[..., Any] = lambda layer, *inputs: layer(*inputs)
    compiled: bool = True
    outputs: str = COMPUTE
    rounding: float = 0.03


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Float32 numbers of variance one."""
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def maps(channels: int = 8, sides: tuple[int, ...] = (16, 8, 4), batch: int = 2) -> list[np.ndarray]:
    """A pyramid of square maps."""
    return [normal(batch, side, side, channels) for side in sides]


def numbers(highest: int, *shape: int) -> np.ndarray:
    """Classes int32, 1 to the highest, all of them."""
    return (np.arange(int(np.prod(shape))) % highest + 1).reshape(shape).astype(np.int32)


def boxes(size: float = 64.0, count: int = 5, batch: int = 2) -> np.ndarray:
    """Float32 [batch, count, 4] inside an image of this size, of all sizes."""
    rng = np.random.default_rng(1)
    corner = rng.uniform(0, 0.5, (batch, count, 2)) * size
    side = np.geomspace(0.08, 0.5, count)[None, :, None] * size
    return np.concatenate([corner, corner + side * rng.uniform(0.8, 1.0, (batch, count, 2))], axis=-1).astype(
        np.float32
    )


def training(layer: keras.layers.Layer, *inputs: Any) -> Any:
    """The layer as training calls it."""
    return layer(*inputs, training=True)


def every_output(layer: BoxPredictor, features: tf.Tensor, classes: tf.Tensor) -> Any:
    """Class scores and box deltas."""
    return layer(features), layer.deltas(features, classes)


def every_map(layer: keras.layers.Layer, pooled: tf.Tensor, classes: tf.Tensor) -> Any:
    """The map of one class for each region, and the maps of all."""
    return layer(pooled, classes), layer.all_outputs(pooled)


def both_forms(layer: Res5Head, pooled: tf.Tensor) -> Any:
    """The vector and what the mask head reads."""
    return layer(pooled), layer.spatial(pooled)


def conv(**options: Any) -> Case:
    """A convolution of a map with an odd and an even side."""
    channels = options.pop("channels", 8)
    filters = options.pop("filters", 32 if options.get("norm") == "group" else 12)
    size = options.pop("kernel_size", 3)
    return Case(lambda: ConvNorm(filters, size, **options), lambda: (normal(2, 7, 8, channels),))


def bottleneck(**options: Any) -> Case:
    """A block of 16 channels."""
    inputs = 8 if options["project"] else 16
    return Case(lambda: Bottleneck(16, 8, **options), lambda: (normal(2, 6, 6, inputs),))


def non_local(channels: int) -> NonLocal:
    """A block whose last convolution does not start at zero, which would stop every gradient behind it."""
    layer = NonLocal(channels)
    layer.out.kernel_initializer = keras.initializers.RandomNormal()
    return layer


def pooler(size: int = 3, sides: tuple[int, ...] = (16, 8, 4), **options: Any) -> Case:
    """A pooler of an image of 64 pixels: 4, 8 and 16 a cell."""
    compiled = options.get("gather", False)
    strides = tuple(64 // side for side in sides)
    return Case(
        lambda: RoiPooler(size, strides=strides, **options), lambda: (maps(3, sides), boxes()), compiled=compiled
    )


def with_pixels(size: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Features of 2 x 3 regions, 8 channels, and their pixels."""
    pixels = np.random.default_rng(size).uniform(0, 255, (2, 3, 2 * size, 2 * size, 3))
    return normal(2, 3, size, size, 8), pixels.astype(np.float32)


def on_regions(make: Callable[[], keras.layers.Layer], *more: np.ndarray, **promises: Any) -> Case:
    """A head of 2 x 3 regions of 4 x 4 features of 8 channels."""
    return Case(make, lambda: (normal(2, 3, 4, 4, 8), *more), **promises)


CLASSES = numbers(5, 2, 3)
FILTERS = normal(2, 3, 8)

CASES: dict[str, Case] = {
    # norm
    "ConvNorm bias": conv(),
    "ConvNorm 1x1 relu": conv(kernel_size=1, relu=True),
    "ConvNorm 7x7 stride": conv(kernel_size=7, strides=2, channels=3),
    "ConvNorm 1x1 stride": conv(kernel_size=1, strides=2),
    "ConvNorm dilation": conv(dilation=2, norm="frozen_batch"),
    "ConvNorm dilation stride": conv(dilation=2, strides=2),
    "ConvNorm groups": conv(groups=4, relu=True),
    "ConvNorm groups stride": conv(groups=4, strides=2, norm="frozen_batch"),
    "ConvNorm frozen_batch": conv(norm="frozen_batch", relu=True, epsilon=1e-3),
    "ConvNorm fixed_batch": conv(norm="fixed_batch", relu=True),
    "ConvNorm batch": conv(norm="batch", relu=True),
    "ConvNorm group": conv(norm="group", relu=True),
    "ConvNorm initializer": conv(kernel_initializer=keras.initializers.RandomNormal(stddev=0.2)),
    # fpn
    "FPN": Case(lambda: FPN(8), lambda: ([normal(2, 32 >> i, 16 >> i, 4 << i) for i in range(4)],)),
    "LastMap": Case(lambda: LastMap(), lambda: (maps(),)),
    # resnet
    "Bottleneck": bottleneck(project=False),
    "Bottleneck project": bottleneck(project=True, norm="batch"),
    "Bottleneck stride in 3x3": bottleneck(project=True, strides=2),
    "Bottleneck stride in 1x1": bottleneck(project=True, strides=2, stride_in_1x1=True),
    "Bottleneck dilation": bottleneck(project=True, dilation=2),
    "Bottleneck groups": bottleneck(project=False, groups=4),
    "Stage": Case(lambda: Stage(2, variant="resnet50", strides=1), lambda: (normal(2, 4, 4, 64),)),
    "Stage ResNeXt": Case(
        lambda: Stage(2, variant="resnext101_32x8d", strides=2, epsilon=1e-3), lambda: (normal(2, 4, 4, 64),)
    ),
    "Stage group": Case(
        lambda: Stage(2, variant="resnet50", strides=2, stride_in_1x1=True, norm="group"),
        lambda: (normal(2, 4, 4, 64),),
        rounding=0.1,
    ),
    "NonLocal": Case(lambda: non_local(8), lambda: (normal(2, 5, 6, 8),)),
    "ResNet": Case(
        lambda: ResNet("resnet_small", frozen_stages=2, dilate_last=True, stem_pool="ceil"),
        lambda: (normal(2, 64, 64, 3),),
        rounding=0.1,
    ),
    "ResNet of 50 layers": Case(
        lambda: ResNet("resnet50", frozen_stages=2, dilate_last=True, stem_pool="ceil"),
        lambda: (normal(2, 64, 64, 3),),
        rounding=0.1,
    ),
    # applications
    "Application": Case(lambda: Application("small"), lambda: (normal(2, 64, 64, 3),), rounding=0.1),
    "Application batch": Case(
        lambda: Application("small", frozen_norm=False, frozen_stages=2),
        lambda: (normal(2, 64, 64, 3),),
        rounding=0.1,
    ),
    "Application MobileNetV2": Case(
        lambda: Application("mobilenet_v2", frozen_stages=2), lambda: (normal(2, 64, 64, 3),), rounding=0.1
    ),
    # rpn
    "RPNHead": Case(lambda: RPNHead(3, channels=8), lambda: (maps(8),), outputs=FLOAT32),
    "RPNHead one map": Case(lambda: RPNHead(15), lambda: (maps(8, (4,)),), outputs=FLOAT32),
    "RPNHead of pairs": Case(lambda: RPNHead(3, channels=8, pair=True), lambda: (maps(8),), outputs=FLOAT32),
    # position
    "PositionNeck": Case(lambda: PositionNeck(6), lambda: ([normal(2, 4, 5, 8), normal(2, 4, 5, 16)],)),
    "PositionMaps": Case(lambda: PositionMaps(6, group=3), lambda: (normal(2, 4, 5, 8),)),
    # roi_pool
    "RoiPooler align": pooler(),
    "RoiPooler align of torchvision": pooler(aligned=False, level_epsilon="torchvision"),
    "RoiPooler align max": pooler(reduce="max", samples=1, level_epsilon="detectron"),
    "RoiPooler align one map": pooler(sides=(4,)),
    "RoiPooler gather": pooler(gather=True),
    "RoiPooler gather max": pooler(gather=True, reduce="max", aligned=False),
    "RoiPooler pool": pooler(op="pool"),
    "RoiPooler warp": pooler(op="warp"),
    "RoiPooler warp max": pooler(op="warp", reduce="max"),
    # box_head
    "FullyConnectedHead": on_regions(lambda: FullyConnectedHead(16)),
    "FullyConnectedHead of three": on_regions(lambda: FullyConnectedHead(8, layers=3)),
    "FullyConnectedHead without layers": on_regions(lambda: FullyConnectedHead(128, layers=0)),
    "Res5Head": Case(lambda: Res5Head("resnet_small"), lambda: (normal(2, 3, 4, 4, 64),), run=both_forms, rounding=0.1),
    "Res5Head group": Case(
        lambda: Res5Head("resnet_small", stride_in_1x1=True, norm="group"),
        lambda: (normal(2, 3, 4, 4, 64),),
        run=both_forms,
        rounding=0.1,
    ),
    "Res5Pool": Case(
        lambda: Res5Pool(RoiPooler(4, strides=(16,)), Res5Head("resnet_small")),
        lambda: (maps(64, (4,)), boxes()),
        compiled=False,
        rounding=0.1,
    ),
    "Res5Pool gather": Case(
        lambda: Res5Pool(RoiPooler(4, strides=(16,), gather=True), Res5Head("resnet_small")),
        lambda: (maps(64, (4,)), boxes()),
        rounding=0.1,
    ),
    "BoxPredictor": Case(
        lambda: BoxPredictor(5), lambda: (normal(2, 3, 8), CLASSES), run=every_output, outputs=FLOAT32
    ),
    "BoxPredictor agnostic": Case(
        lambda: BoxPredictor(5, class_agnostic=True),
        lambda: (normal(2, 3, 8), CLASSES),
        run=every_output,
        outputs=FLOAT32,
    ),
    # mask_head
    "MaskTrunk": on_regions(lambda: MaskTrunk(8)),
    "MaskTrunk without convolutions": on_regions(lambda: MaskTrunk(16, convs=0)),
    "MaskPredictor": on_regions(lambda: MaskPredictor(5), CLASSES, run=every_map, outputs=FLOAT32),
    "MaskPredictor agnostic": on_regions(
        lambda: MaskPredictor(1, stddev=0.001), CLASSES, run=every_map, outputs=FLOAT32
    ),
    "MLPBranch reference": Case(
        lambda: MLPBranch(side=8), lambda: ((normal(2, 3, 4, 4, 8), normal(2, 3, 8, 8, 8)),), outputs=FLOAT32
    ),
    "MLPBranch lean": Case(
        lambda: MLPBranch("lean", side=8), lambda: ((normal(2, 3, 4, 4, 8), normal(2, 3, 8, 8, 8)),), outputs=FLOAT32
    ),
    "FCNMaskHead": on_regions(
        lambda: FCNMaskHead(MaskTrunk(8, convs=2), MaskPredictor(5)), CLASSES, run=every_map, outputs=FLOAT32
    ),
    "FCNMaskHead branches": on_regions(
        lambda: FCNMaskHead(
            MaskTrunk(8, convs=1), MaskPredictor(1), (MLPBranch(side=8, name="a"), MLPBranch("lean", side=8, name="b"))
        ),
        CLASSES,
        outputs=FLOAT32,
    ),
    "TransferredMaskHead": on_regions(lambda: TransferredMaskHead(MaskTrunk(8)), FILTERS, outputs=FLOAT32),
    "TransferredMaskHead branch": on_regions(
        lambda: TransferredMaskHead(MaskTrunk(8, convs=1), (MLPBranch(side=8),)), FILTERS, outputs=FLOAT32
    ),
    "MLPMaskHead": on_regions(lambda: MLPMaskHead(5, side=8, width=16), CLASSES, outputs=FLOAT32),
    "MLPMaskHead without hidden layers": on_regions(lambda: MLPMaskHead(1, side=6, layers=0), CLASSES, outputs=FLOAT32),
    "MLPMaskHead agnostic": on_regions(lambda: MLPMaskHead(1, side=8, width=8, layers=3), CLASSES, outputs=FLOAT32),
    # keypoint_head
    "KeypointHead": on_regions(lambda: KeypointHead(3, channels=8, convs=2), outputs=FLOAT32),
    "KeypointHead without convolutions": on_regions(lambda: KeypointHead(1, convs=0), outputs=FLOAT32),
    # mask_trunks
    "HourglassTrunk": on_regions(lambda: HourglassTrunk(5, widths=(4, 6, 8))),
    "HourglassTrunk of an odd side": Case(
        lambda: HourglassTrunk(4, widths=(4, 6, 8, 8)), lambda: (normal(2, 3, 7, 7, 8),)
    ),
    "ResidualTrunk": on_regions(lambda: ResidualTrunk(6, blocks=2)),
    "PixelTrunk": Case(lambda: PixelTrunk(MaskTrunk(6, convs=1), stem=4), lambda: (with_pixels(),)),
    "PixelTrunk hourglass": Case(
        lambda: PixelTrunk(HourglassTrunk(6, widths=(4, 6)), stem=4), lambda: (with_pixels(7),)
    ),
    "FCNMaskHead hourglass": on_regions(
        lambda: FCNMaskHead(HourglassTrunk(8, widths=(6, 12)), MaskPredictor(1)),
        CLASSES,
        run=every_map,
        outputs=FLOAT32,
    ),
    "TransferredMaskHead pixels": Case(
        lambda: TransferredMaskHead(
            PixelTrunk(HourglassTrunk(8, widths=(6, 12)), stem=4), (MLPBranch("lean", side=8),)
        ),
        lambda: (with_pixels(), FILTERS),
        outputs=FLOAT32,
    ),
    # transfer: its docstring says float32 in, so nothing is rounded under a mixed policy
    "Transfer": Case(lambda: Transfer(8), lambda: (normal(5, 40),), outputs=FLOAT32, rounding=1e-5),
    "Transfer of one": Case(
        lambda: Transfer(8, layers=1, init="small"), lambda: (normal(5, 40),), outputs=FLOAT32, rounding=1e-5
    ),
    "Transfer of three": Case(
        lambda: Transfer(8, layers=3, activation="relu"), lambda: (normal(5, 40),), outputs=FLOAT32, rounding=1e-5
    ),
    "Transfer unit_rms": Case(
        lambda: Transfer(8, unit_rms=(8, 32)), lambda: (normal(5, 40),), outputs=FLOAT32, rounding=1e-5
    ),
}


def layer_classes() -> set[type]:
    """Every Keras layer that a file in `maskx_tf.layers` defines, but for their base."""
    found = set()
    for module in pkgutil.iter_modules(maskx_tf.layers.__path__):
        source = importlib.import_module(f"maskx_tf.layers.{module.name}")
        for member in vars(source).values():
            if isinstance(member, type) and issubclass(member, keras.layers.Layer):
                # What a file imports belongs to the file that it comes from.
                found |= {member} if member.__module__ == source.__name__ else set()
    return found - {Layer}


@functools.cache
def layer_of(name: str) -> type:
    """The class that a case makes."""
    return type(CASES[name].make())


def missing() -> set[str]:
    """The layers that no case makes."""
    return {layer.__name__ for layer in layer_classes() - {layer_of(name) for name in CASES}}
