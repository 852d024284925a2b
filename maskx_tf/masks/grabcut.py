"""GrabCut (Rother, Kolmogorov and Blake 2004): masks of boxes without learning, and sharper predicted masks.

The colours inside a box are separated from those around it. Only a window around the box is looked at, for speed and
because what is far away says little about what the box holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskx_tf.errors import BadInput
from maskx_tf.masks.paste import Crop, paste_crop

CUT_MARGIN = 0.25  # of the box's sides, on each side of it: where the background is learned from
# Pixels of the window's longer side: others are resized. In a smaller window the cost of an outline outweighs what it
# encloses, so that boxes of 20 pixels come out whole; a larger one only takes longer.
LEAST_SIDE, MOST_SIDE = 128, 256
ROUNDS = 5
# The share of its box that a mask reaches over at least. Below it, the filled box was nearer to the true mask on
# Clothing Co-Parsing; on the synthetic benchmark it makes no difference (docs/evaluation.md).
LEAST_REACH = 0.4
# Of a mask to learn from: the least reach, and the shares of the box's pixels between which it lies. On photographs
# few of the others are right.
LEARNED_REACH = 0.8
LEARNED_SHARES = (0.1, 0.95)


def require() -> None:
    """Raises BadInput if OpenCV is not installed."""
    try:
        import cv2  # noqa: F401
    except ImportError:
        raise BadInput(
            "GrabCut: expected the package opencv-python-headless: pip install 'maskx_tf[grabcut]'"
        ) from None


def segment(image: NDArray[np.uint8], boxes: NDArray[np.floating] | Sequence[Sequence[float]]) -> list[Crop]:
    """A mask for each box; the same one whenever it is asked.

    A box without surroundings, and one in which GrabCut finds nothing or a speck, is all mask.

    Args:
        image: uint8 [H, W, 3].
        boxes: [D, 4], x1, y1, x2, y2 in its pixels.

    Raises:
        BadInput: OpenCV is not installed.
    """
    require()
    return [_segment(image, *_whole_pixels(box, *image.shape[:2])) for box in np.asarray(boxes, float).reshape(-1, 4)]


def refine(
    image: NDArray[np.uint8],
    box: NDArray[np.floating] | Sequence[float],
    mask: NDArray[np.floating],
    *,
    certain: float = 0.9,
    agreement: float = 0.6,
    mode: str = "continuous",
) -> Crop:
    """A predicted mask with its outline moved to where colours change; the predicted one where GrabCut disagrees.

    GrabCut starts from the mask: what is certain stays as it is, other pixels are probably object or background. The
    defaults are the best for masks of 28 x 28 that were blurred and bent, on training photos (docs/evaluation.md).

    Args:
        image: uint8 [H, W, 3].
        box: x1, y1, x2, y2 in its pixels.
        mask: [M, M] probabilities over the box.
        certain: the probability from which on, and below 1 less which, a pixel may not change.
        agreement: the least IoU of GrabCut's mask with the predicted one.
        mode: how the mask is pasted, see `paste_crop`.

    Raises:
        BadInput: OpenCV is not installed.
    """
    require()
    import cv2

    image_size = image.shape[:2]
    predicted, least, most = (
        paste_crop(mask, np.asarray(box, float), *image_size, threshold=threshold, mode=mode)
        for threshold in (0.5, 1.0 - certain, certain)
    )
    start = np.where(predicted.pixels, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    start[~least.pixels], start[most.pixels] = cv2.GC_BGD, cv2.GC_FGD
    pixels = _cut(image, predicted.left, predicted.top, start)
    if pixels is None or _iou(pixels, predicted.pixels) < agreement:
        return predicted
    return predicted._replace(pixels=pixels)


class CutTarget(NamedTuple):
    """A mask to learn from.

    Attributes:
        crop: the mask.
        quality: 0..1, how far the mask can be trusted, as its maker measures it; 0 for one that should not be learned.
    """

    crop: Crop
    quality: float


def targets(image: NDArray[np.uint8], boxes: NDArray[np.floating] | Sequence[Sequence[float]]) -> list[CutTarget]:
    """GrabCut's masks of boxes, and which of them are probably right: those that reach to all sides of the box.

    Args:
        image: uint8 [H, W, 3].
        boxes: [D, 4], x1, y1, x2, y2 in its pixels.

    Raises:
        BadInput: OpenCV is not installed.
    """
    return [CutTarget(crop, _quality(crop.pixels)) for crop in segment(image, boxes)]


def _quality(pixels: NDArray[np.bool_]) -> float:
    least, most = LEARNED_SHARES
    share = reach(pixels)
    return share if share >= LEARNED_REACH and least < pixels.mean() < most else 0.0


def _whole_pixels(box: NDArray[np.floating], height: int, width: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the pixels whose centres lie in a box."""
    limits = (width, height, width, height)
    left, top, right, bottom = (
        min(max(math.ceil(edge - 0.5), 0), limit) for edge, limit in zip(box, limits, strict=True)
    )
    return left, top, max(right, left), max(bottom, top)


def _segment(image: NDArray[np.uint8], left: int, top: int, right: int, bottom: int) -> Crop:
    import cv2

    everything = np.ones([bottom - top, right - left], bool)
    start = np.full(everything.shape, cv2.GC_PR_FGD, np.uint8)
    pixels = _cut(image, left, top, start)
    return Crop(left, top, everything if pixels is None or reach(pixels) < LEAST_REACH else pixels)


def _cut(image: NDArray[np.uint8], left: int, top: int, start: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """Returns GrabCut's mask of a box.

    Args:
        image: uint8 [H, W, 3].
        left: first column of the box.
        top: first row.
        start: uint8 [height, width] of the box, what each pixel probably is; around it is background.

    Returns:
        bool [height, width]; None if there is no object, or no background, to learn from.
    """
    import cv2

    height, width = start.shape
    around_x, around_y = math.ceil(CUT_MARGIN * width), math.ceil(CUT_MARGIN * height)
    x1, y1 = max(left - around_x, 0), max(top - around_y, 0)
    window = image[y1 : top + height + around_y, x1 : left + width + around_x]
    if not start.size:
        return None
    longer = max(window.shape[:2])
    scale = min(max(longer, LEAST_SIDE), MOST_SIDE) / longer
    size = [max(round(side * scale), 1) for side in window.shape[1::-1]]
    seen = cv2.resize(window, size, interpolation=cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR)
    labels = np.full(window.shape[:2], cv2.GC_BGD, np.uint8)
    inside = slice(top - y1, top - y1 + height), slice(left - x1, left - x1 + width)
    labels[inside] = start
    labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    is_object = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))
    if is_object.all() or not is_object.any():  # shrunk, nothing may be left of the one or the other
        return None
    cv2.setRNGSeed(0)
    models = np.zeros([2, 1, 65])
    cv2.grabCut(seen, labels, None, models[0], models[1], ROUNDS, cv2.GC_INIT_WITH_MASK)
    found = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)
    found = cv2.resize(found, window.shape[1::-1], interpolation=cv2.INTER_LINEAR if scale < 1.0 else cv2.INTER_AREA)
    return found[inside] >= 0.5


def reach(pixels: NDArray[np.bool_]) -> float:
    """The share of the pixels that lies in the box around those that are set."""
    rows, columns = (np.flatnonzero(pixels.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return 0.0
    return float((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1) / pixels.size)


def _iou(pixels: NDArray[np.bool_], others: NDArray[np.bool_]) -> float:
    union = (pixels | others).sum()
    return float((pixels & others).sum() / union) if union else 1.0
