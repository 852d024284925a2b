"""Keypoints on their way through the model: cells of heat maps as targets, and peaks of heat maps as points.

A heat map is a square grid stretched over a box, as a mask is, with one map for each keypoint.
"""

from __future__ import annotations

import tensorflow as tf

# The a of Keys' cubic, as PyTorch and OpenCV have it. TensorFlow's resize has -0.5, and other borders.
SHARPNESS = -0.75
KEYPOINT_SCORES = ("logit", "probability")


def keypoint_targets(keypoints: tf.Tensor, regions: tf.Tensor, *, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The cell of its region's heat map in which each keypoint lies.

    A keypoint exactly on the right or bottom edge belongs to the last cell; beyond the region there is no cell.

    Args:
        keypoints: float32 [B, N, P, 3] of each region's truth: x, y, and a label, which is 0 if it is not there.
        regions: float32 [B, N, 4].
        size: S, side of the heat maps.

    Returns:
        Cells int32 [B, N, P], counted row by row, and bool [B, N, P], the keypoints that are there and in the region;
        the cell of the others is 0.
    """
    low, high = regions[..., None, :2], regions[..., None, 2:]
    points = keypoints[..., :2]
    # The order of operations decides, at the border of a cell, into which of two a point is rounded.
    cells = tf.floor((points - low) * tf.math.divide_no_nan(float(size), high - low))
    cells = tf.where(points == high, size - 1.0, cells)
    valid = tf.reduce_all((cells >= 0.0) & (cells < size) & (high > low), axis=-1) & (keypoints[..., 2] > 0.0)
    cells = tf.cast(tf.where(valid[..., None], cells, 0.0), tf.int32)
    return cells[..., 1] * size + cells[..., 0], valid


def decode_keypoints(
    logits: tf.Tensor, boxes: tf.Tensor, *, canvas: tuple[int, int], score: str = "logit", portable: bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    """The peak of each heat map after bicubic interpolation to the pixels of its box.

    The boxes are worked through one after the other, because each has another number of pixels.

    Args:
        logits: float32 [B, N, P, S, S].
        boxes: float32 [B, N, 4] in pixels.
        canvas: height and width of the network input. A box that is larger is interpolated to so many pixels alone.
        score: of a keypoint: "logit", the interpolated logit at the peak (torchvision); "probability", 1 over the sum
            of exp(logit - peak) over the S * S cells, which may exceed 1 (detectron2).
        portable: interpolate every map to the size of the canvas, and ignore what lies beyond the box, for XLA and
            LiteRT, which need to know shapes.

    Returns:
        Points float32 [B, N, P, 2], x and y in pixels, and scores float32 [B, N, P].
    """
    if score not in KEYPOINT_SCORES:
        raise ValueError(f"score is {score!r}, expected one of {', '.join(KEYPOINT_SCORES)}")
    parts, side = logits.shape[2], logits.shape[-1]

    def decode_one(region: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        maps, box = region
        sides = tf.maximum(box[2:] - box[:2], 1.0)
        pixels = tf.clip_by_value(tf.cast(tf.math.ceil(sides), tf.int32), 1, canvas[::-1])  # width, height
        width, height = canvas[::-1] if portable else (pixels[0], pixels[1])
        rows, columns = cubic_weights(side, pixels[1], height), cubic_weights(side, pixels[0], width)
        by_row = tf.einsum("hi,pij->hpj", rows, maps)
        # One product of two matrices: an einsum takes twice the time.
        resized = tf.matmul(tf.reshape(by_row, [-1, side]), columns, transpose_b=True)
        resized = tf.reshape(resized, [height, parts, width])
        if portable:
            inside = (tf.range(height) < pixels[1])[:, None] & (tf.range(width) < pixels[0])
            resized = tf.where(inside[:, None], resized, resized.dtype.min)
        # The first row with the peak, and its first column.
        best = tf.reduce_max(resized, axis=2)  # [height, P]
        row = tf.argmax(best, axis=0, output_type=tf.int32)
        peaks = tf.reduce_max(best, axis=0)
        column = tf.argmax(tf.gather_nd(resized, tf.stack([row, tf.range(parts)], axis=-1)), 1, output_type=tf.int32)
        at = tf.cast(tf.stack([column, row], axis=-1), tf.float32)
        points = (at + 0.5) * (sides / tf.cast(pixels, tf.float32)) + box[:2]
        if score == "probability":
            peaks = 1.0 / tf.reduce_sum(tf.exp(maps - peaks[:, None, None]), axis=[1, 2])
        return points, peaks

    shapes = tf.TensorSpec([parts, 2], tf.float32), tf.TensorSpec([parts], tf.float32)
    flat = tf.reshape(logits, [-1, parts, side, side]), tf.reshape(boxes, [-1, 4])
    points, scores = tf.map_fn(decode_one, flat, fn_output_signature=shapes)
    count = tf.shape(boxes)[:2]
    return (
        tf.reshape(points, tf.concat([count, [parts, 2]], axis=0)),
        tf.reshape(scores, tf.concat([count, [parts]], axis=0)),
    )


def cubic_weights(side: int, pixels: tf.Tensor, length: tf.Tensor | int) -> tf.Tensor:
    """The weights of the cells of one axis for each pixel, float32 [length, side]; each row sums to 1.

    Pixel and cell centres lie half a pixel inside, cells beyond the border repeat the outermost, nothing is smoothed.

    Args:
        side: cells.
        pixels: int32 [], into how many pixels they are resized.
        length: rows of the result; those from `pixels` on mean nothing.
    """
    at = (tf.range(length, dtype=tf.float32) + 0.5) * (side / tf.cast(pixels, tf.float32)) - 0.5
    first = tf.floor(at)
    share = (at - first)[:, None]
    weights = tf.zeros([1, side])
    for tap in (-1, 0, 1, 2):
        cell = tf.clip_by_value(first[:, None] + tap, 0.0, side - 1.0)
        weights += tf.where(cell == tf.range(side, dtype=tf.float32), _cubic(tf.abs(share - tap)), 0.0)
    return weights


def _cubic(distance: tf.Tensor) -> tf.Tensor:
    """Keys' cubic of distances up to 2 cells."""
    a, x = SHARPNESS, distance
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    return tf.where(x <= 1.0, near, far)
