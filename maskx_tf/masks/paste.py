"""Masks pasted into the image in NumPy, for clients and evaluators that run without TensorFlow.

The same as `ops.masks.paste`, and the place where the arithmetic of a box's pixels is cheapest: `paste_crop` gives
the pixels of one box, which an encoder or a painter can use without ever making a full image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskx_tf.structures import PASTE_MODES

LEAST_SIDE_OF_MASK = 1e-3


class Crop(NamedTuple):
    """The part of an image that a mask may cover.

    Attributes:
        left: first column.
        top: first row.
        pixels: bool [height, width] of the part.
    """

    left: int
    top: int
    pixels: NDArray[np.bool_]


def paste_crop(
    mask: NDArray[np.floating],
    box: NDArray[np.floating],
    height: int,
    width: int,
    *,
    threshold: float = 0.5,
    mode: str = "continuous",
) -> Crop:
    """One mask [M, M] at the pixels of its box; see `ops.masks.paste` for the arguments.

    Plain numbers rather than small arrays: for a box of 100 pixels the calls cost more than the arithmetic.
    """
    mask = np.asarray(mask, np.float32)
    x1, y1, x2, y2 = (float(edge) for edge in box)
    if mode == "integer":
        x1, y1, x2, y2 = _whole_pixels(np.asarray(box, np.float32), mask.shape[0])
        mask = np.pad(mask, 1)
    elif mode not in PASTE_MODES:
        raise ValueError(f"mode is {mode!r}, expected one of {', '.join(PASTE_MODES)}")
    left, right = _pixels_inside(x1, x2, width)
    top, bottom = _pixels_inside(y1, y2, height)
    if right <= left or bottom <= top:
        return Crop(left, top, np.zeros([max(bottom - top, 0), max(right - left, 0)], bool))
    clamp = mode != "continuous"
    rows = _resampled(mask, y1, y2, top, bottom, clamp)
    values = _resampled(rows.T, x1, x2, left, right, clamp).T
    return Crop(left, top, values >= threshold)


def _whole_pixels(box: NDArray[np.float32], side: int) -> tuple[float, float, float, float]:
    """The box grown by the rim around a mask of this side, as edges of whole pixels: at least one a side.

    In float32, as where the mode comes from: a grown edge that is whole in exact arithmetic may fall below it there.
    """
    centre = np.float32(0.5) * (box[:2] + box[2:])
    half = np.float32(0.5) * (box[2:] - box[:2]) * np.float32((side + 2.0) / side)
    low, high = np.trunc(centre - half), np.trunc(centre + half)
    right, bottom = np.maximum(high, low) + 1.0
    return float(low[0]), float(low[1]), float(right), float(bottom)


def _pixels_inside(low: float, high: float, size: int) -> tuple[int, int]:
    """First pixel whose centre lies between low and high, and the one past the last, inside the image."""
    return min(max(math.ceil(low - 0.5), 0), size), min(max(math.ceil(high - 0.5), 0), size)


def _resampled(
    values: NDArray[np.float32], low: float, high: float, first: int, last: int, clamp: bool
) -> NDArray[np.float32]:
    """Bilinear samples of the rows [side, N], which lie between low and high, at the centres of pixels: [pixels, N].

    Two rows for each pixel, not a matrix product: for matrices this small the threads of a BLAS cost 40 times the work.
    """
    side = len(values)
    step = side / max(high - low, LEAST_SIDE_OF_MASK)
    at = np.arange(first, last, dtype=np.float32)
    at *= step
    at += (0.5 - low) * step - 0.5
    if clamp:
        np.clip(at, 0.0, side - 1.0, out=at)
    padded = np.zeros([side + 2, values.shape[1]], np.float32)  # beyond the first and the last row a mask fades to zero
    padded[1:-1] = values
    above = np.floor(at)
    share = (at - above)[:, None]
    index = np.clip(above.astype(np.intp) + 1, 0, side)
    result = padded[index] * (1.0 - share)
    result += padded[index + 1] * share
    return result


def full(crop: Crop, height: int, width: int) -> NDArray[np.bool_]:
    """The mask in an image of this size, bool [height, width]."""
    left, top, pixels = crop
    image = np.zeros([height, width], bool)
    image[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return image


def paste(
    masks: NDArray[np.floating],
    boxes: NDArray[np.floating],
    height: int,
    width: int,
    *,
    threshold: float = 0.5,
    mode: str = "continuous",
) -> NDArray[np.bool_]:
    """Masks [D, M, M] at boxes [D, 4] in an image: bool [D, height, width]; only the boxes' pixels are touched."""
    result = np.zeros([len(masks), height, width], bool)
    for index, (mask, box) in enumerate(zip(masks, boxes, strict=True)):
        result[index] = full(paste_crop(mask, box, height, width, threshold=threshold, mode=mode), height, width)
    return result


def paste_crops(
    masks: NDArray[np.floating] | None, boxes: NDArray[np.floating], size: tuple[int, int], mode: str = "continuous"
) -> list[Crop] | None:
    """The masks [D, M, M] of boxes [D, 4] in an image of this height and width; None if there are none."""
    if masks is None:
        return None
    return [paste_crop(mask, box, *size, mode=mode) for mask, box in zip(masks, boxes, strict=True)]


def resolve_contested(crops: Sequence[Crop], boxes: NDArray[np.floating]) -> list[Crop]:
    """The masks of an image without overlap: a pixel of several belongs to the one with the smallest box.

    For data whose masks do not overlap, where the smaller object usually lies in front. Of equal boxes the first wins.

    Args:
        crops: D masks.
        boxes: [D, 4], x1, y1, x2, y2.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    places = [(slice(top, top + len(pixels)), slice(left, left + pixels.shape[1])) for left, top, pixels in crops]
    owner = np.full([max((side.stop for side in sides), default=0) for sides in zip(*places, strict=True)], -1)
    for index in reversed(np.argsort(areas, kind="stable")):  # the smallest last
        owner[places[index]][crops[index].pixels] = index
    return [
        crop._replace(pixels=owner[place] == index)
        for index, (crop, place) in enumerate(zip(crops, places, strict=True))
    ]
