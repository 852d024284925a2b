"""What happens to one image and its instances on their way into a batch: cut, mirrored, scaled, recoloured, pasted.

Pure functions on tensors; whatever is random takes a seed, int32 [2]. A mask is a grid over its box (see `ops.masks`)
and goes where the box goes: scaling changes nothing in it, mirroring reverses its rows, and only a box that is cut gets
a new grid. Boxes have continuous edges, so mirroring takes x to width - x.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from maskx_tf.ops import boxes as box_ops
from maskx_tf.ops import masks as mask_ops

SIDE = 112  # cells along a side of a mask's grid
PACKED = SIDE * SIDE // 8  # bytes of a grid
MIN_SIDE = 1.0  # pixels; an instance of which less is left teaches nothing
MIN_VISIBLE = 0.2  # the share of an instance that something pasted over it has to leave
TINY = 1e-3  # pixels, by which rounding may move the centre of a cell
LUMA = (0.299, 0.587, 0.114)


class Sample(NamedTuple):
    """One image and its G instances, some of which may be padding.

    Attributes:
        image: [h, w, 3] in 0..255, uint8 or float32.
        boxes: float32 [G, 4], xyxy in pixels of the image; zeros where not valid.
        classes: int32 [G], 1..K.
        valid: bool [G].
        crowd: bool [G].
        has_mask: bool [G].
        masks: uint8 [G, PACKED], the grids of `ops.masks`, row by row and packed; zeros where there is none.
    """

    image: tf.Tensor
    boxes: tf.Tensor
    classes: tf.Tensor
    valid: tf.Tensor
    crowd: tf.Tensor
    has_mask: tf.Tensor
    masks: tf.Tensor


def random_flip(sample: Sample, seed: tf.Tensor) -> Sample:
    """Mirrors every other image, at random."""
    return tf.cond(tf.random.stateless_uniform([], seed) < 0.5, lambda: flip(sample), lambda: sample)


def flip(sample: Sample) -> Sample:
    """The image mirrored left to right."""
    width = tf.cast(tf.shape(sample.image)[1], tf.float32)
    x1, y1, x2, y2 = tf.unstack(sample.boxes, axis=-1)
    boxes = tf.stack([width - x2, y1, width - x1, y2], axis=-1)
    # A row of cells is reversed by the order of its bytes and of the bits in each.
    rows = tf.reshape(sample.masks, [-1, SIDE, SIDE // 8])
    masks = tf.reshape(tf.gather(_REVERSED, tf.cast(tf.reverse(rows, [2]), tf.int32)), tf.shape(sample.masks))
    # tf.reverse takes a tenth of the time of [:, ::-1].
    return _tidy(sample._replace(image=tf.reverse(sample.image, [1]), boxes=boxes, masks=masks))


_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1)[:, 0]


def random_window(
    size: tf.Tensor,
    seed: tf.Tensor,
    *,
    least: float,
    jitter: tuple[float, float],
    canvas: tuple[int, int],
    short_side: int,
    long_side: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Which part of an image is used, and in what size.

    Height and width of the window are drawn first. What it is scaled by is what `ops.images.letterbox` would scale it
    by, times a number of the jitter; of a window that is then larger than the canvas, a random part is used.

    Args:
        size: int32 [2], height and width of the image.
        seed: int32 [2].
        least: share of the height and of the width that a window keeps at least; 1 keeps all.
        jitter: lowest and highest factor; .1 and 2 are large scale jitter.
        canvas: height and width.
        short_side: in pixels.
        long_side: in pixels.

    Returns:
        int32 [4], the window's top, left, height and width in whole pixels, and int32 [2], what it is resized to.
    """
    draws = tf.random.stateless_uniform([5], seed, dtype=tf.float64)
    whole = tf.cast(size, tf.float64)
    kept = tf.maximum(tf.round(whole * (least + (1.0 - least) * draws[:2])), 1.0)
    scale = tf.minimum(short_side / tf.reduce_min(kept), long_side / tf.reduce_max(kept))
    limit = tf.constant(canvas, tf.float64)
    scale = tf.minimum(scale, tf.reduce_min(limit / kept)) * (jitter[0] + (jitter[1] - jitter[0]) * draws[2])
    # The small additions keep what is whole in exact arithmetic from being rounded down.
    kept = tf.clip_by_value(tf.floor(limit / scale + 1e-6), 1.0, kept)
    resized = tf.clip_by_value(tf.floor(kept * scale + 1e-6), 1.0, limit)
    corner = tf.floor((whole - kept + 1.0) * draws[3:])
    return tf.cast(tf.concat([corner, kept], axis=0), tf.int32), tf.cast(resized, tf.int32)


def crop(sample: Sample, window: tf.Tensor) -> Sample:
    """The part of an image in a window int32 [4] (top, left, height, width); see `cut`."""
    top, left, height, width = tf.unstack(window)
    image = sample.image[top : top + height, left : left + width]
    return cut(sample, window)._replace(image=image)


def cut(sample: Sample, window: tf.Tensor) -> Sample:
    """The instances in a window, in its coordinates; the image stays as it is.

    An instance whose mask is known gets the box around what is left of it, which may be smaller than what is left of
    its box. An instance of which nothing is left is no longer valid.
    """
    top, left, height, width = tf.unstack(tf.cast(window, tf.float32))
    boxes = sample.boxes - tf.stack([left, top, left, top])

    def inside() -> tf.Tensor:
        """Cells of which at least half lies in the window, bool [G, S, S]."""
        rows, columns = _centres(boxes)
        rows = (rows >= -TINY) & (rows <= height + TINY)
        columns = (columns >= -TINY) & (columns <= width + TINY)
        return rows[:, :, None] & columns[:, None, :]

    is_cut = sample.valid & tf.reduce_any(box_ops.clip(boxes, height, width) != boxes, axis=-1)
    return _seen_through(sample._replace(boxes=boxes), is_cut, inside, (height, width))


def resize(sample: Sample, size: tf.Tensor) -> Sample:
    """The image in another size int32 [2], as `ops.images.letterbox` resizes: float32, bilinear, no antialiasing."""
    factor = tf.cast(size, tf.float32) / tf.cast(tf.shape(sample.image)[:2], tf.float32)
    image = tf.image.resize(tf.cast(sample.image, tf.float32), size, method="bilinear", antialias=False)
    boxes = box_ops.denormalise(sample.boxes, factor[0], factor[1])
    return sample._replace(image=image, boxes=box_ops.clip(boxes, size[0], size[1]))  # against rounding


def place(image: tf.Tensor, canvas: tuple[int, int]) -> tf.Tensor:
    """An image [h, w, 3] in 0..255 at the top left of a canvas of zeros: uint8 [height, width, 3], rounded."""
    height, width = canvas
    shape = tf.shape(image)
    # As a matrix, which is padded ten times as fast.
    rows = tf.reshape(tf.cast(tf.round(image), tf.uint8), [shape[0], shape[1] * 3])
    padded = tf.pad(rows, [[0, height - shape[0]], [0, (width - shape[1]) * 3]])
    return tf.reshape(padded, [height, width, 3])


def recolour(
    image: tf.Tensor, seed: tf.Tensor, *, brightness: float, contrast: float, saturation: float, hue: float
) -> tf.Tensor:
    """The image in slightly other colours.

    Brightness, contrast and saturation are factors from 1 - x to 1 + x; contrast is taken around the image's mean grey,
    saturation around each pixel's. Hue is turned by at most `hue` of a full turn in the YIQ plane. All four are linear,
    so they are one 3 x 3 matrix, a third of the cost of `tf.image`'s functions in turn. Keras' layers would do the same
    work, but draw from a state of their own, with which no run could be resumed.

    Args:
        image: [h, w, 3] in 0..255.
        seed: int32 [2].
        brightness: in 0..1.
        contrast: in 0..1.
        saturation: in 0..1.
        hue: in 0.. .5.

    Returns:
        float32 [h, w, 3] in 0..255.
    """
    draws = tf.random.stateless_uniform([4], seed, -1.0, 1.0)
    brighter, stronger, richer = 1.0 + brightness * draws[0], 1.0 + contrast * draws[1], 1.0 + saturation * draws[2]
    turn = 2.0 * np.pi * hue * draws[3]
    luma = tf.constant(LUMA)[:, None]
    to_grey = tf.tile(luma, [1, 3])  # a pixel times it is its grey, for each channel
    turned = tf.linalg.diag(tf.stack([1.0, tf.cos(turn), tf.cos(turn)])) + tf.sin(turn) * _QUARTER
    hues = _YIQ @ turned @ np.linalg.inv(_YIQ).astype(np.float32)
    matrix = brighter * (hues @ (richer * tf.eye(3) + (1.0 - richer) * to_grey))
    pixels = tf.reshape(tf.cast(image, tf.float32), [-1, 3])
    mean = brighter * tf.reduce_mean(pixels, axis=0, keepdims=True) @ luma  # hue and saturation leave it
    pixels = tf.clip_by_value(pixels @ (stronger * matrix) + (1.0 - stronger) * mean, 0.0, 255.0)
    return tf.reshape(pixels, tf.shape(image))


# Columns are Y, I and Q of red, green and blue; and the turn by 90 degrees in the plane of I and Q.
_YIQ = np.array([LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)], np.float32).T
_QUARTER = np.array([[0, 0, 0], [0, 0, 1], [0, -1, 0]], np.float32)


def choose(sample: Sample, seed: tf.Tensor, room: tf.Tensor) -> tf.Tensor:
    """Every other instance with a mask, at random, at most `room` of them: bool [G]. Crowds are not chosen."""
    drawn = tf.random.stateless_uniform(tf.shape(sample.valid), seed) < 0.5
    chosen = drawn & sample.valid & sample.has_mask & ~sample.crowd
    return chosen & (tf.cumsum(tf.cast(chosen, tf.int32)) <= room)


def paste(sample: Sample, other: Sample, chosen: tf.Tensor) -> Sample:
    """Chosen instances of another image on top of this one (Ghiasi et al., Simple Copy-Paste).

    An instance below that is partly hidden keeps what is seen of its mask, and gets the box around that; one that is
    known by its box alone gets the box around what is seen of its box. An instance of which less than MIN_VISIBLE is
    seen is no longer valid.

    Args:
        sample: its image is uint8, of a size known when tracing.
        other: of the same size, its instances in the part of the canvas that the sample's image takes.
        chosen: bool [G'], which of its instances, all with masks.

    Returns:
        The sample with G + G' instances.
    """
    height, width = sample.image.shape[:2]
    pasted = _tidy(other._replace(valid=chosen))
    grids = tf.cast(_grids(tf.boolean_mask(other.masks, chosen)), tf.float32)
    cover = tf.reduce_any(mask_ops.paste(grids, tf.boolean_mask(other.boxes, chosen), height, width), axis=0)
    # As arithmetic on bytes, which takes half the time of tf.where.
    image = sample.image + (other.image - sample.image) * tf.cast(cover, tf.uint8)[:, :, None]

    def uncovered() -> tf.Tensor:
        """Cells on whose centre nothing is pasted, bool [G, S, S]."""
        rows, columns = (tf.cast(centres, tf.int32) for centres in _centres(sample.boxes))
        rows, columns = tf.minimum(rows, height - 1), tf.minimum(columns, width - 1)
        return ~tf.gather(tf.reshape(cover, [-1]), rows[:, :, None] * width + columns[:, None, :])

    below = _seen_through(sample, sample.valid, uncovered, (height, width), least=MIN_VISIBLE)
    return Sample(image, *(tf.concat(pair, axis=0) for pair in zip(below[1:], pasted[1:], strict=True)))


def drop_tiny(sample: Sample) -> Sample:
    """Without the instances that are less than MIN_SIDE pixels wide or high."""
    width, height = box_ops.sides(sample.boxes)
    return _tidy(sample._replace(valid=sample.valid & (tf.minimum(width, height) >= MIN_SIDE)))


def pad(sample: Sample, limit: int) -> Sample:
    """The valid instances, at most `limit`, in their order, and padding up to it."""

    def fill(values: tf.Tensor) -> tf.Tensor:
        kept = tf.boolean_mask(values, sample.valid)[:limit]
        padded = tf.pad(kept, [[0, limit - tf.shape(kept)[0]], *([[0, 0]] * (len(values.shape) - 1))])
        return tf.ensure_shape(padded, [limit, *values.shape[1:]])

    return Sample(sample.image, *map(fill, sample[1:]))


def _seen_through(
    sample: Sample,
    maybe: tf.Tensor,
    visible: Callable[[], tf.Tensor],
    size: tuple[tf.Tensor | int, tf.Tensor | int],
    *,
    least: float = 0.0,
) -> Sample:
    """The instances as far as they lie in the image and the cells of their boxes are visible.

    Args:
        sample: what is seen.
        maybe: bool [G], instances that may be seen in part only; the others stay as they are.
        visible: makes bool [G, S, S]; it is called if there are such instances.
        size: height and width of the image.
        least: the share of an instance that has to be seen.
    """

    def look() -> tuple[tf.Tensor, ...]:
        # An instance without a mask may be anywhere in its box.
        whole = _grids(sample.masks) | ~sample.has_mask[:, None, None]
        seen = whole & visible()
        before, after = (tf.reduce_sum(tf.cast(grids, tf.float32), axis=[1, 2]) for grids in (whole, seen))
        fitted = _fitted(sample.boxes, whole, seen, size)
        changed = maybe & ((before != after) | tf.reduce_any(fitted != sample.boxes, axis=-1))
        boxes = tf.where(changed[:, None], fitted, sample.boxes)
        grids = _moved(seen, sample.boxes, boxes)
        has_mask = sample.has_mask & (~changed | tf.reduce_any(grids, axis=[1, 2]))
        packed = mask_ops.pack_bits(tf.reshape(grids, [-1, SIDE * SIDE]))
        masks = tf.where(changed[:, None], packed, sample.masks)
        valid = sample.valid & ~(changed & ((after == 0.0) | (after < least * before)))
        return boxes, valid, has_mask, masks

    boxes, valid, has_mask, masks = tf.cond(
        tf.reduce_any(maybe), look, lambda: (sample.boxes, sample.valid, sample.has_mask, sample.masks)
    )
    return _tidy(sample._replace(boxes=boxes, valid=valid, has_mask=has_mask, masks=masks))


def _fitted(
    boxes: tf.Tensor, whole: tf.Tensor, seen: tf.Tensor, size: tuple[tf.Tensor | int, tf.Tensor | int]
) -> tf.Tensor:
    """Boxes around what is seen of grids, exact where they end at the border of the image, else to a cell.

    An edge where as much is seen as there was stays: the annotated box knows more than its grid.
    """
    height, width = (tf.cast(side, tf.float32) for side in size)
    before, after = _extents(whole), _extents(seen)
    start, cell = tf.tile(boxes[:, :2], [1, 2]), tf.tile((boxes[:, 2:] - boxes[:, :2]) / SIDE, [1, 2])
    edges = start + after * cell
    border = tf.stack([0.0, 0.0, width, height])
    edges = tf.where(tf.abs(edges - border) <= 0.5 * cell + TINY, border, edges)
    return box_ops.clip(tf.where(after == before, boxes, edges), height, width)


def _centres(boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the centres of the cells of each box lie: y float32 [G, S], x float32 [G, S]."""
    x1, y1, x2, y2 = tf.unstack(boxes[..., None], axis=1)  # [G, 1]
    centre = (tf.range(SIDE, dtype=tf.float32) + 0.5) / SIDE
    return y1 + (y2 - y1) * centre, x1 + (x2 - x1) * centre


def _extents(grids: tf.Tensor) -> tf.Tensor:
    """The boxes float32 [G, 4] around the cells that are set, in cells of bool [G, S, S]."""
    columns, rows = (tf.cast(tf.reduce_any(grids, axis=axis), tf.int32) for axis in (1, 2))
    first = [tf.argmax(line, axis=1) for line in (columns, rows)]
    last = [SIDE - tf.argmax(tf.reverse(line, [1]), axis=1) for line in (columns, rows)]
    return tf.cast(tf.stack(first + last, axis=1), tf.float32)


def _moved(grids: tf.Tensor, boxes: tf.Tensor, new_boxes: tf.Tensor) -> tf.Tensor:
    """Grids bool [G, S, S] over boxes inside those they had: interpolated between the centres of the old cells."""
    values = tf.cast(grids, tf.float32)
    old, new = _centres(boxes), _centres(new_boxes)
    for axis in (1, 2):
        first, last = old[axis - 1][:, :1], old[axis - 1][:, -1:]
        place = (new[axis - 1] - first) / tf.maximum(last - first, box_ops.MIN_SIDE) * (SIDE - 1)
        place = tf.clip_by_value(place, 0.0, SIDE - 1.0)
        below = tf.cast(place, tf.int32)
        share = tf.expand_dims(place - tf.floor(place), 3 - axis)
        above = tf.minimum(below + 1, SIDE - 1)
        values = (1.0 - share) * tf.gather(values, below, axis=axis, batch_dims=1) + share * tf.gather(
            values, above, axis=axis, batch_dims=1
        )
    return values >= 0.5


def _grids(masks: tf.Tensor) -> tf.Tensor:
    """Packed masks as bool [G, S, S]."""
    return tf.reshape(mask_ops.unpack_bits(masks), [-1, SIDE, SIDE])


def _tidy(sample: Sample) -> Sample:
    """Zeros in whatever is not valid, and in masks that are not there."""
    valid = sample.valid
    has_mask = sample.has_mask & valid
    return sample._replace(
        boxes=tf.where(valid[:, None], sample.boxes, 0.0),
        classes=tf.where(valid, sample.classes, 0),
        crowd=sample.crowd & valid,
        has_mask=has_mask,
        masks=tf.where(has_mask[:, None], sample.masks, tf.zeros([], tf.uint8)),
    )
