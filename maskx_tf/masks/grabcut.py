"""GrabCut (Rother, Kolmogorov and Blake 2004): masks of boxes without learning, the paper's baseline.

The colours inside a box are told apart from those around it. Only a window around the box is looked at, for speed and
because what is far away says little about what the box holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from maskx_tf.errors import BadInput
from maskx_tf.masks.paste import Crop

MARGIN = 0.25  # of the box's sides, on each side of it: where the background is learnt from
# Pixels of the window's longer side: others are resized. In a smaller window the cost of an outline outweighs what it
# encloses, so that boxes of 20 pixels come out whole; a larger one only takes longer.
LEAST_SIDE, MOST_SIDE = 128, 256
ROUNDS = 5
# The share of its box that a mask reaches over at least. Below it, the filled box was nearer to the true mask on
# Clothing Co-Parsing; on the synthetic benchmark it makes no difference (docs/evaluation.md).
LEAST_REACH = 0.4


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
    """
    return [_segment(image, *_whole_pixels(box, *image.shape[:2])) for box in np.asarray(boxes, float).reshape(-1, 4)]


def _whole_pixels(box: NDArray[np.floating], height: int, width: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the pixels whose centres lie in a box."""
    limits = (width, height, width, height)
    left, top, right, bottom = (
        min(max(math.ceil(edge - 0.5), 0), limit) for edge, limit in zip(box, limits, strict=True)
    )
    return left, top, max(right, left), max(bottom, top)


def _segment(image: NDArray[np.uint8], left: int, top: int, right: int, bottom: int) -> Crop:
    import cv2

    width, height = right - left, bottom - top
    around_x, around_y = math.ceil(MARGIN * width), math.ceil(MARGIN * height)
    x1, y1 = max(left - around_x, 0), max(top - around_y, 0)
    window = image[y1 : bottom + around_y, x1 : right + around_x]
    everything = Crop(left, top, np.ones([height, width], bool))
    if not width * height or window.shape[:2] == (height, width):
        return everything
    longer = max(window.shape[:2])
    scale = min(max(longer, LEAST_SIDE), MOST_SIDE) / longer
    size = [max(round(side * scale), 1) for side in window.shape[1::-1]]
    seen = cv2.resize(window, size, interpolation=cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR)
    labels = np.zeros(window.shape[:2], np.uint8)  # GC_BGD
    labels[top - y1 : bottom - y1, left - x1 : right - x1] = cv2.GC_PR_FGD
    labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    if labels.all() or not labels.any():  # shrunk, nothing is left of the one or the other
        return everything
    cv2.setRNGSeed(0)
    models = np.zeros([2, 1, 65])
    cv2.grabCut(seen, labels, None, models[0], models[1], ROUNDS, cv2.GC_INIT_WITH_MASK)
    found = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)
    found = cv2.resize(found, window.shape[1::-1], interpolation=cv2.INTER_LINEAR if scale < 1.0 else cv2.INTER_AREA)
    pixels = found[top - y1 : bottom - y1, left - x1 : right - x1] >= 0.5
    return Crop(left, top, pixels) if _reach(pixels) >= LEAST_REACH else everything


def _reach(pixels: NDArray[np.bool_]) -> float:
    """The share of the pixels that lies in the box around those that are set."""
    rows, columns = (np.flatnonzero(pixels.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return 0.0
    return float((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1) / pixels.size)
