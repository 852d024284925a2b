"""What fine masks and their supervision by boxes cost: `python -m benchmarks.box_masks [heads|losses|inference]`.

64 regions of a canvas of 384x288 with features of 256 channels: mask heads forward and backward; the colours of regions
and the losses that read them; what a margin around the box adds to a prediction.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.measure import machine, measure, show
from maskx_tf import losses as loss_ops
from maskx_tf.layers.mask_head import FCNMaskHead
from maskx_tf.layers.mask_parts import MaskPredictor, MaskTrunk
from maskx_tf.layers.mask_trunks import HourglassTrunk, PixelTrunk, ResidualTrunk, Trunk
from maskx_tf.ops import boxes as box_ops
from maskx_tf.ops import colour
from maskx_tf.ops import masks as mask_ops

HEIGHT, WIDTH, REGIONS, CHANNELS, SIDE = 384, 288, 64, 256, 64
MARGIN = 0.1

TRUNKS: dict[str, tuple[Callable[[], Trunk], int]] = {
    "256 x 4, 14 to 28": (MaskTrunk, 14),
    "256 x 4, 32 to 64": (MaskTrunk, 32),
    "48 x 4, 32 to 64": (lambda: MaskTrunk(48), 32),
    "residual, 32 to 64": (ResidualTrunk, 32),
    "hourglass, 14 to 28": (HourglassTrunk, 14),
    "hourglass, 32 to 64": (HourglassTrunk, 32),
    "hourglass of four widths, 32 to 64": (lambda: HourglassTrunk(widths=(48, 96, 96, 96)), 32),
    "hourglass and pixels, 32 to 64": (lambda: PixelTrunk(HourglassTrunk()), 32),
    "hourglass to 32 channels and pixels, 32 to 64": (lambda: PixelTrunk(HourglassTrunk(32)), 32),
}


def heads() -> None:
    """Prints what class-agnostic mask heads cost."""
    for title, build in (("forward", _head_forward), ("forward and backward", _head_both)):
        costs = {name: measure(build, name, repeat=3) for name in TRUNKS}
        show(f"Mask heads, {REGIONS} regions, {title}", costs, base="256 x 4, 14 to 28")
    for name in TRUNKS:
        head, inputs, _ = _head(name)
        head(*inputs)
        print(f"{name}: {head.count_params():,} weights")


def _head(name: str) -> tuple[FCNMaskHead, tuple[Any, tf.Tensor], tf.Tensor]:
    """A head, what it reads, and masks to learn from."""
    make, size = TRUNKS[name]
    generator = np.random.default_rng(0)
    trunk = make()
    inputs: Any = tf.constant(generator.standard_normal((1, REGIONS, size, size, CHANNELS), np.float32))
    if isinstance(trunk, PixelTrunk):
        inputs = (inputs, tf.constant(generator.uniform(0, 255, (1, REGIONS, 2 * size, 2 * size, 3)), tf.float32))
    truth = tf.constant(generator.random((1, REGIONS, 2 * size, 2 * size)) < 0.5)
    head = FCNMaskHead(trunk, MaskPredictor(1, stddev=0.001))
    return head, (inputs, tf.ones([1, REGIONS], tf.int32)), tf.cast(truth, tf.float32)


def _head_forward(name: str) -> Callable[[], Any]:
    head, inputs, _ = _head(name)
    run = tf.function(lambda *values: head(*values), autograph=False)
    return lambda: run(*inputs)[0, 0, 0, 0].numpy()


def _head_both(name: str) -> Callable[[], Any]:
    head, inputs, truth = _head(name)
    head(*inputs)

    @tf.function(autograph=False)
    def run(*values: Any) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = loss_ops.mean(loss_ops.mask_loss(head(*values), truth, tf.ones([1, REGIONS], tf.bool)))
        gradients: list[tf.Tensor] = tape.gradient(loss, [variable.value for variable in head.trainable_variables])
        return gradients

    return lambda: [np.asarray(gradient).flat[0] for gradient in run(*inputs)]


def losses() -> None:
    """Prints what the colours of regions and the losses with their gradients cost, at a grid of 64."""
    costs = {name: measure(_part, name) for name in ("pixels", "similarity")}
    costs |= {name: measure(_loss, name) for name in ("per pixel", "projection", "pairwise", "points")}
    show(f"Supervision of {REGIONS} regions on a grid of {SIDE}, losses with gradients", costs, base="per pixel")


def _regions() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The canvas, boxes, and regions around them."""
    generator = np.random.default_rng(0)
    corner, side = generator.uniform(0, 150, (1, REGIONS, 2)), generator.uniform(30, 130, (1, REGIONS, 2))
    boxes = tf.constant(np.concatenate([corner, corner + side], axis=-1), tf.float32)
    image = tf.constant(generator.uniform(0, 255, (1, HEIGHT, WIDTH, 3)), tf.float32)
    return image, boxes, box_ops.with_margin(boxes, MARGIN)


def _colours(image: tf.Tensor, regions: tf.Tensor) -> tf.Tensor:
    whole = tf.constant([[[0.0, 0.0, WIDTH, HEIGHT]]])
    return colour.colour_similarity(
        colour.region_pixels(image, regions, size=SIDE), mask_ops.cells_inside(regions, whole, size=SIDE)
    )


def _part(name: str) -> Callable[[], Any]:
    image, _, regions = _regions()
    form = _colours if name == "similarity" else lambda *values: colour.region_pixels(*values, size=SIDE)
    run = tf.function(form, autograph=False)
    return lambda: run(image, regions)[0, 0, 0, 0, 0].numpy()


def _loss(name: str) -> Callable[[], Any]:
    image, boxes, regions = _regions()
    inside, applies = mask_ops.cells_inside(regions, boxes, size=SIDE), tf.ones([1, REGIONS], tf.bool)
    similarity, points = _colours(image, regions), tf.random.uniform([1, REGIONS, 10, 2], seed=0)
    forms: dict[str, Callable[[tf.Tensor], loss_ops.Loss]] = {
        "per pixel": lambda logits: loss_ops.mask_loss(logits, tf.cast(inside, tf.float32), applies),
        "projection": lambda logits: loss_ops.projection_loss(logits, inside, applies),
        "pairwise": lambda logits: loss_ops.pairwise_loss(logits, similarity, inside, applies),
        "points": lambda logits: loss_ops.point_loss(logits, points, points[..., 0] > 0.5, points[..., 0] >= 0.0),
    }

    @tf.function(autograph=False)
    def run(logits: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = loss_ops.mean(forms[name](logits))
        return tape.gradient(loss, logits)

    logits = tf.random.normal([1, REGIONS, SIDE, SIDE], seed=0)
    return lambda: run(logits)[0, 0, 0, 0].numpy()


def inference() -> None:
    """Prints what cutting the margin off predicted masks costs."""
    show(f"{REGIONS} masks of {SIDE}", {"cut the margin off": measure(_cut)}, base="cut the margin off")


def _cut() -> Callable[[], Any]:
    masks = tf.random.uniform([1, REGIONS, SIDE, SIDE], seed=0)
    run = tf.function(lambda values: mask_ops.cut_margin(values, MARGIN), autograph=False)
    return lambda: run(masks)[0, 0, 0, 0].numpy()


PARTS = {"heads": heads, "losses": losses, "inference": inference}

if __name__ == "__main__":
    print(machine())
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()
