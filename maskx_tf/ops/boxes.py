"""Boxes: areas, overlap, clipping, coding and conversions.

A box is (x1, y1, x2, y2) in continuous pixels: pixel i covers [i, i + 1), so width = x2 - x1. A box whose width or
height is not positive is degenerate: its area is 0, it overlaps nothing, and coding treats its side as `MIN_SIDE`.

Detectron's inclusive boxes, whose width is x2 - x1 + 1, are these boxes with 1 added to x2 and y2; overlap, area and
coding then need no special case.

Whole numbers are taken, too, and become float32.
"""

from __future__ import annotations

import math

import tensorflow as tf

# Deltas dw, dh are clipped here, so that one step grows a box at most from 16 to 1000 pixels.
MAX_LOG_SCALE = math.log(1000.0 / 16.0)
# Stands in for the side of a degenerate box in coding, where a logarithm or a division needs a positive number.
MIN_SIDE = 1e-3


def _corners(boxes: tf.Tensor) -> list[tf.Tensor]:
    """x1, y1, x2 and y2, each [...], of boxes [..., 4]: floats."""
    return tf.unstack(_floats(boxes), axis=-1)


def _floats(boxes: tf.Tensor) -> tf.Tensor:
    boxes = tf.convert_to_tensor(boxes)
    return boxes if boxes.dtype.is_floating else tf.cast(boxes, tf.float32)


def sides(boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Width and height, each [...], of boxes [..., 4]; never negative."""
    x1, y1, x2, y2 = _corners(boxes)
    return tf.maximum(x2 - x1, 0.0), tf.maximum(y2 - y1, 0.0)


def area(boxes: tf.Tensor) -> tf.Tensor:
    """Area [...] of boxes [..., 4]; 0 for degenerate ones."""
    width, height = sides(boxes)
    return width * height


def iou(boxes: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Intersection over union of every pair.

    Args:
        boxes: float32 [..., N, 4].
        others: float32 [..., M, 4], the same leading dimensions or none.

    Returns:
        float32 [..., N, M] in 0..1; 0 where either box is degenerate.
    """
    x1, y1, x2, y2 = _corners(boxes[..., :, None, :])
    u1, v1, u2, v2 = _corners(others[..., None, :, :])
    width = tf.maximum(tf.minimum(x2, u2) - tf.maximum(x1, u1), 0.0)
    height = tf.maximum(tf.minimum(y2, v2) - tf.maximum(y1, v1), 0.0)
    shared = width * height  # [..., N, M]
    union = area(boxes)[..., :, None] + area(others)[..., None, :] - shared
    return tf.math.divide_no_nan(shared, union)


def clip(boxes: tf.Tensor, height: tf.Tensor | float, width: tf.Tensor | float) -> tf.Tensor:
    """Moves every corner into the image; a box outside becomes degenerate on the border.

    Args:
        boxes: float32 [..., 4].
        height: scalar, or a shape that broadcasts against [...], for images of different sizes.
        width: like height.
    """
    x1, y1, x2, y2 = _corners(boxes)
    height, width = tf.cast(height, x1.dtype), tf.cast(width, x1.dtype)
    return tf.stack(
        [
            tf.clip_by_value(x1, 0.0, width),
            tf.clip_by_value(y1, 0.0, height),
            tf.clip_by_value(x2, 0.0, width),
            tf.clip_by_value(y2, 0.0, height),
        ],
        axis=-1,
    )


def with_margin(boxes: tf.Tensor, margin: float) -> tf.Tensor:
    """Boxes [..., 4] grown on each side by a share of their width or height: their sides become 1 + 2 margin times."""
    low, high = boxes[..., :2], boxes[..., 2:]
    growth = margin * (high - low)
    return tf.concat([low - growth, high + growth], axis=-1)


def points_in_boxes(points: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """Points [..., P, 3], whose third number stays as it is, as fractions of the width and height of boxes [..., 4]."""
    low, high = boxes[..., None, :2], boxes[..., None, 2:]
    places = tf.math.divide_no_nan(points[..., :2] - low, high - low)
    return tf.concat([places, points[..., 2:]], axis=-1)


def encode(
    boxes: tf.Tensor, anchors: tf.Tensor, weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
) -> tf.Tensor:
    """Deltas (dx, dy, dw, dh) that carry anchors to boxes, times the weights (Faster R-CNN, section 3.1.2).

    Args:
        boxes: float32 [..., 4].
        anchors: float32 [..., 4].
        weights: (10, 10, 5, 5) for the box head, ones for the RPN.

    Returns:
        float32 [..., 4], finite for degenerate boxes too.
    """
    x, y, width, height = _centres(boxes)
    ax, ay, awidth, aheight = _centres(anchors)
    wx, wy, ww, wh = weights
    return tf.stack(
        [
            wx * (x - ax) / awidth,
            wy * (y - ay) / aheight,
            ww * tf.math.log(width / awidth),
            wh * tf.math.log(height / aheight),
        ],
        axis=-1,
    )


def decode(
    deltas: tf.Tensor, anchors: tf.Tensor, weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
) -> tf.Tensor:
    """Boxes [..., 4] that deltas make of anchors: the inverse of `encode`, with dw and dh at most log(1000 / 16)."""
    dx, dy, dw, dh = tf.unstack(deltas, axis=-1)
    ax, ay, awidth, aheight = _centres(anchors)
    wx, wy, ww, wh = weights
    x = dx / wx * awidth + ax
    y = dy / wy * aheight + ay
    half_width = 0.5 * awidth * tf.exp(tf.minimum(dw / ww, MAX_LOG_SCALE))
    half_height = 0.5 * aheight * tf.exp(tf.minimum(dh / wh, MAX_LOG_SCALE))
    return tf.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=-1)


def _centres(boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Centre x and y, width and height, sides at least MIN_SIDE."""
    x1, y1, x2, y2 = _corners(boxes)
    return 0.5 * (x1 + x2), 0.5 * (y1 + y2), tf.maximum(x2 - x1, MIN_SIDE), tf.maximum(y2 - y1, MIN_SIDE)


def swap_xy(boxes: tf.Tensor) -> tf.Tensor:
    """(x1, y1, x2, y2) to TensorFlow's (y1, x1, y2, x2), and back."""
    first, second, third, fourth = _corners(boxes)
    return tf.stack([second, first, fourth, third], axis=-1)


def normalise(boxes: tf.Tensor, height: tf.Tensor | float, width: tf.Tensor | float) -> tf.Tensor:
    """Pixels to fractions of the image; height and width are scalars or broadcast against [...] of boxes [..., 4]."""
    boxes = _floats(boxes)
    return boxes / _scale(boxes, height, width)


def denormalise(boxes_norm: tf.Tensor, height: tf.Tensor | float, width: tf.Tensor | float) -> tf.Tensor:
    """Fractions of the image to pixels: the inverse of `normalise`."""
    boxes_norm = _floats(boxes_norm)
    return boxes_norm * _scale(boxes_norm, height, width)


def _scale(boxes: tf.Tensor, height: tf.Tensor | float, width: tf.Tensor | float) -> tf.Tensor:
    height, width = tf.cast(height, boxes.dtype), tf.cast(width, boxes.dtype)
    return tf.stack([width, height, width, height], axis=-1)
