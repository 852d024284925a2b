"""GrabCut's settings on images with true masks: `python -m benchmarks.grabcut IMAGES ANNOTATIONS [MASKS_B] [COUNT]`.

Prints the mean IoU over the boxes of COUNT images, drawn with seed 0 (100 unless given): by margin and least window;
of the package's own by the least extent below which the filled box replaces GrabCut's mask; and of the masks that are
good enough to learn from.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskx_tf.data.dataset import bitmap
from maskx_tf.data.formats.readers import DataFiles, for_evaluation
from maskx_tf.data.images import load_pixels
from maskx_tf.masks import grabcut
from maskx_tf.masks.paste import Crop

SETTINGS = ((0.5, 1), (0.5, 64), (0.5, 128), (0.5, 192), (0.25, 128), (1.0, 128))  # margin, least window
EXTENTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)

Box = tuple[float, float, float, float]
Objects = list[tuple[NDArray[np.uint8], Box, NDArray[np.bool_]]]


def named_objects(arguments: list[str]) -> Objects:
    """The objects that IMAGES ANNOTATIONS [MASKS_B] [COUNT] name."""
    images, annotations, *rest = arguments
    counts = [int(text) for text in rest if text.isdigit()]
    apart = [Path(text) for text in rest if not text.isdigit()]
    source = DataFiles(Path(images), Path(annotations), masks_b=apart[0] if apart else None)
    return objects(source, counts[0] if counts else 100)


def objects(source: DataFiles, count: int) -> Objects:
    """Pixels, box and mask of each object in some of the images."""
    dataset = for_evaluation([source])
    drawn = np.random.default_rng(0).choice(len(dataset.images), min(count, len(dataset.images)), replace=False)
    found: Objects = []
    for place in sorted(drawn):
        image = dataset.images[place]
        pixels = load_pixels(image)
        for one in image.instances:
            if one.segmentation is not None and not one.crowd:
                found.append((pixels, one.box, bitmap(one.segmentation, image.height, image.width)))
    return found


def whole(crop: Crop, truth: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A crop in an image of the truth's size."""
    mask = np.zeros_like(truth)
    height, width = crop.pixels.shape
    mask[crop.top : crop.top + height, crop.left : crop.left + width] = crop.pixels
    return mask


def iou(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Pixels shared over pixels covered."""
    return float((found & truth).sum() / max((found | truth).sum(), 1))


def ious(among: Objects, extent: float) -> NDArray[np.float64]:
    """The IoU of each object's mask with GrabCut's of its box."""
    grabcut.LEAST_EXTENT = extent
    return np.array([iou(whole(grabcut.segment(pixels, [box])[0], truth), truth) for pixels, box, truth in among])


def learned(among: Objects) -> None:
    """Prints how many of GrabCut's masks are good enough to learn from, and how good those and the others are."""
    targets = [grabcut.targets(pixels, [box])[0] for pixels, box, _ in among]
    scores = np.array([iou(whole(one.crop, truth), truth) for one, (_, _, truth) in zip(targets, among, strict=True)])
    kept = np.array([one.quality > 0 for one in targets])
    print(f"\nto learn from: {100 * kept.mean():.0f}%, mean IoU {100 * scores[kept].mean():.1f}", end="")
    print(f"; the others {100 * scores[~kept].mean():.1f}")


def main() -> None:
    """Prints the tables."""
    among = named_objects(sys.argv[1:])
    own = grabcut.CUT_MARGIN, grabcut.LEAST_SIDE, grabcut.LEAST_EXTENT
    print(f"{len(among)} objects\n\n| margin | least window | mean IoU |\n|---|---|---|")
    for margin, side in SETTINGS:
        grabcut.CUT_MARGIN, grabcut.LEAST_SIDE = margin, side
        print(f"| {margin:g} | {side} | {100 * ious(among, own[2]).mean():.1f} |", flush=True)
    grabcut.CUT_MARGIN, grabcut.LEAST_SIDE = own[:2]
    print("\n| least extent | mean IoU |\n|---|---|")
    for extent in EXTENTS:
        print(f"| {extent:g} | {100 * ious(among, extent).mean():.1f} |", flush=True)
    grabcut.LEAST_EXTENT = own[2]
    learned(among)


if __name__ == "__main__":
    main()
