"""Anchors: reference boxes at every cell of a feature level, in the variants of the three known programs.

| program     | rounding      | order         | centre of cell i     |
|-------------|---------------|---------------|----------------------|
| torchvision | "torchvision" | "ratio_major" | i * stride           |
| detectron2  | "none"        | "size_major"  | i * stride           |
| Detectron   | "detectron"   | "ratio_major" | (i + 0.5) * stride   |

Detectron's boxes are inclusive; here they are continuous (1 is added to x2 and y2, see `boxes`), which puts their
centre at i * stride + stride / 2. The order matters only where a cell has several sizes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

ROUNDINGS = ("none", "torchvision", "detectron")
ORDERS = ("ratio_major", "size_major")


def cell_anchors(
    sizes: Sequence[float], ratios: Sequence[float], stride: int, *, rounding: str = "none", order: str = "ratio_major"
) -> np.ndarray:
    """Anchors of one cell.

    Args:
        sizes: square roots of the anchors' areas, in pixels.
        ratios: height / width.
        stride: pixels a cell; read by Detectron's rounding alone, which works at the scale of the stride.
        rounding: "none"; "torchvision", the corners; "detectron", the sides at the scale of the stride, and centred
            in the cell rather than on its corner.
        order: "ratio_major" (all sizes of the first ratio first) or "size_major".

    Returns:
        float32 [len(sizes) * len(ratios), 4].
    """
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding is {rounding!r}, expected one of {', '.join(ROUNDINGS)}")
    if order not in ORDERS:
        raise ValueError(f"order is {order!r}, expected one of {', '.join(ORDERS)}")
    size: np.ndarray = np.asarray(sizes, np.float64)[None, :]  # [1, S]
    ratio: np.ndarray = np.asarray(ratios, np.float64)[:, None]  # [R, 1]
    if rounding == "detectron":
        whole = np.round(np.sqrt(stride**2 / ratio))
        width, height = whole * size / stride, np.round(whole * ratio) * size / stride
        centre = stride / 2
    else:
        width, height = size / np.sqrt(ratio), size * np.sqrt(ratio)
        centre = 0.0
    anchors = np.stack([-width / 2, -height / 2, width / 2, height / 2], axis=-1) + centre  # [R, S, 4]
    if rounding == "torchvision":
        # float32 first, as there: .5 rounds to even, and float64 would put some corners on its other side.
        anchors = np.round(anchors.astype(np.float32)).astype(np.float64)
    if order == "size_major":
        anchors = anchors.transpose(1, 0, 2)
    return anchors.reshape(-1, 4).astype(np.float32)


def grid(cell: np.ndarray, height: int | tf.Tensor, width: int | tf.Tensor, stride: int) -> tf.Tensor:
    """Anchors of a feature level, row by row, cell by cell: float32 [height * width * len(cell), 4]."""
    y, x = tf.meshgrid(tf.range(height) * stride, tf.range(width) * stride, indexing="ij")
    shift = tf.cast(tf.stack([x, y, x, y], axis=-1), tf.float32)  # [H, W, 4]
    return tf.reshape(shift[:, :, None, :] + cell, [-1, 4])


def pyramid(
    shapes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    sizes: Sequence[Sequence[float]],
    ratios: Sequence[float],
    *,
    rounding: str = "none",
    order: str = "ratio_major",
) -> list[tf.Tensor]:
    """Anchors of every level, finest first.

    Args:
        shapes: (height, width) of each feature level.
        strides: pixels a cell of each level.
        sizes: anchor sizes of each level.
        ratios: height / width, the same for all levels.
        rounding: see `cell_anchors`.
        order: see `cell_anchors`.

    Returns:
        A list of float32 [A_level, 4].
    """
    return [
        grid(cell_anchors(size, ratios, stride, rounding=rounding, order=order), height, width, stride)
        for (height, width), stride, size in zip(shapes, strides, sizes, strict=True)
    ]
