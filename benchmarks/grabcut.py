"""GrabCut's settings on images with true masks: `python -m benchmarks.grabcut IMAGES ANNOTATIONS [MASKS_B] [COUNT]`.

Prints the mean IoU over the boxes of COUNT images, drawn with seed 0 (100 unless given): by margin and least window,
and of the package's own by the least reach below which the filled box stands in for what was cut out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskx_tf.data import files
from maskx_tf.data.dataset import bitmap
from maskx_tf.data.formats.readers import Source, for_evaluation
from maskx_tf.masks import grabcut

SETTINGS = ((0.5, 1), (0.5, 64), (0.5, 128), (0.5, 192), (0.25, 128), (1.0, 128))  # margin, least window
REACHES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)

Objects = list[tuple[NDArray[np.uint8], tuple[float, float, float, float], NDArray[np.bool_]]]


def objects(source: Source, count: int) -> Objects:
    """Pixels, box and mask of each object in some of the images."""
    dataset = for_evaluation([source])
    drawn = np.random.default_rng(0).choice(len(dataset.images), min(count, len(dataset.images)), replace=False)
    found: Objects = []
    for place in sorted(drawn):
        image = dataset.images[place]
        pixels = files.pixels(image)
        for one in image.instances:
            if one.segmentation is not None and not one.crowd:
                found.append((pixels, one.box, bitmap(one.segmentation, image.height, image.width)))
    return found


def ious(among: Objects, reach: float) -> NDArray[np.float64]:
    """The IoU of each object's mask with GrabCut's of its box."""
    grabcut.LEAST_REACH = reach
    found = []
    for pixels, box, truth in among:
        crop = grabcut.segment(pixels, [box])[0]
        height, width = crop.pixels.shape
        mask = np.zeros_like(truth)
        mask[crop.top : crop.top + height, crop.left : crop.left + width] = crop.pixels
        found.append((mask & truth).sum() / max((mask | truth).sum(), 1))
    return np.array(found)


def main() -> None:
    """Prints both tables."""
    images, annotations, *rest = sys.argv[1:]
    counts = [int(text) for text in rest if text.isdigit()]
    apart = [Path(text) for text in rest if not text.isdigit()]
    source = Source(Path(images), Path(annotations), masks_b=apart[0] if apart else None)
    among = objects(source, counts[0] if counts else 100)
    own = grabcut.MARGIN, grabcut.LEAST_SIDE, grabcut.LEAST_REACH
    print(f"{len(among)} objects\n\n| margin | least window | mean IoU |\n|---|---|---|")
    for margin, side in SETTINGS:
        grabcut.MARGIN, grabcut.LEAST_SIDE = margin, side
        print(f"| {margin:g} | {side} | {100 * ious(among, own[2]).mean():.1f} |", flush=True)
    grabcut.MARGIN, grabcut.LEAST_SIDE = own[:2]
    print("\n| least reach | mean IoU |\n|---|---|")
    for reach in REACHES:
        print(f"| {reach:g} | {100 * ious(among, reach).mean():.1f} |", flush=True)


if __name__ == "__main__":
    main()
