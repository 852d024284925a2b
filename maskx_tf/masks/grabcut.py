"""GrabCut (Rother, Kolmogorov and Blake 2004): masks of boxes without learning, and sharper predicted masks.

The colours inside a box are separated from those around it. Only a window around the box is used, for speed, and
because pixels far away say little about the contents of the box.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskx_tf.errors import BadInput
from maskx_tf.masks.paste import Crop, paste_crop

CUT_MARGIN = 0.25  # margin on each side of the box, as a share of its side: the background is learned there
# Pixels of the window's longer side: others are resized. In a smaller window the cost of an outline outweighs what it
# encloses, so that boxes of 20 pixels are filled; a larger one only takes longer.
LEAST_SIDE, MOST_SIDE = 128, 256
ROUNDS = 5
# The least extent of a mask: see `extent`. Below it, the filled box was nearer to the true mask on Clothing Co-Parsing;
# on the synthetic benchmark it makes no difference (docs/evaluation.md).
LEAST_EXTENT = 0.4
# Masks to learn from have at least this extent, and fill a share of the box's pixels between these two. Few of the
# others are right on photographs.
LEARNED_EXTENT = 0.8
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
    """Returns a mask for each box; equal arguments give equal masks.

    The whole box is the mask if the box has no surroundings, or if GrabCut finds nothing or a speck in it.

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
    """Returns a predicted mask with its outline moved to where colours change, or unchanged where GrabCut disagrees.

    GrabCut starts from the mask: certain pixels stay as they are, the others are probably object or background. The
    defaults are the best ones for blurred and distorted masks of 28 x 28 on training photos (docs/evaluation.md).

    Args:
        image: uint8 [H, W, 3].
        box: x1, y1, x2, y2 in its pixels.
        mask: [M, M] probabilities over the box.
        certain: a pixel may not change if its probability is at least this, or less than 1 minus this.
        agreement: the least IoU of GrabCut's mask with the predicted one; below it, the predicted mask is returned.
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
    """Returns GrabCut's masks of boxes, and whether they are probably right: those that extend to all sides of the box.

    Args:
        image: uint8 [H, W, 3].
        boxes: [D, 4], x1, y1, x2, y2 in its pixels.

    Raises:
        BadInput: OpenCV is not installed.
    """
    return [CutTarget(crop, _quality(crop.pixels)) for crop in segment(image, boxes)]


def _quality(pixels: NDArray[np.bool_]) -> float:
    least, most = LEARNED_SHARES
    share = extent(pixels)
    return share if share >= LEARNED_EXTENT and least < pixels.mean() < most else 0.0


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
    return Crop(left, top, everything if pixels is None or extent(pixels) < LEAST_EXTENT else pixels)


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


def extent(pixels: NDArray[np.bool_]) -> float:
    """Returns the area of the box that encloses a mask, as a share of the pixels given."""
    rows, columns = (np.flatnonzero(pixels.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return 0.0
    return float((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1) / pixels.size)


def _iou(pixels: NDArray[np.bool_], others: NDArray[np.bool_]) -> float:
    union = (pixels | others).sum()
    return float((pixels & others).sum() / union) if union else 1.0
