"""What refining predicted masks gains: `python -m benchmarks.refine IMAGES ANNOTATIONS [MASKS_B] [COUNT]`.

The predictions are artificial: true masks, blurred and distorted by noise. Prints the mean IoU over the boxes of COUNT
images, drawn with seed 0 (100 unless given), before and after `grabcut.refine`, for several values of `certain` and
`agreement`; and both after the smaller box has won contested pixels.
"""

from __future__ import annotations

import math
import sys

import numpy as np
from numpy.typing import NDArray

from benchmarks.grabcut import Box, Objects, iou, named_objects, whole
from maskx_tf.masks import grabcut
from maskx_tf.masks.paste import Crop, paste_crop, resolve_contested

CERTAIN = (0.8, 0.9, 0.95, 0.99)
AGREEMENTS = (0.0, 0.5, 0.6, 0.7, 0.8)
OWN_AGREEMENT = 0.6
# The strength of the noise in an artificial prediction: mean IoUs of about .9, .8 and .7 with the truth.
BENT = (1.5, 3.0, 4.5)


def prediction(box: Box, truth: NDArray[np.bool_], bent: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """A mask [28, 28] of probabilities: the truth, blurred, and distorted by smooth noise."""
    import cv2

    x1, y1 = (math.floor(edge) for edge in box[:2])
    x2, y2 = (math.ceil(edge) for edge in box[2:])
    grid = cv2.resize(
        truth[max(y1, 0) : y2, max(x1, 0) : x2].astype(np.float32), (28, 28), interpolation=cv2.INTER_AREA
    )
    noise = cv2.resize(generator.normal(size=(8, 8)), (28, 28), interpolation=cv2.INTER_CUBIC)
    logits = 8 * (cv2.GaussianBlur(grid, (0, 0), 1.0) - 0.5) + bent * noise
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def _mean(crops: list[Crop], among: Objects) -> float:
    return float(np.mean([iou(whole(crop, truth), truth) for crop, (_, _, truth) in zip(crops, among, strict=True)]))


def _resolved(crops: list[Crop], among: Objects) -> float:
    """The mean IoU after the smaller box of each image has won the pixels that several masks claim."""
    resolved = list(crops)
    for image in {id(pixels): pixels for pixels, _, _ in among}.values():
        places = [place for place, (pixels, _, _) in enumerate(among) if pixels is image]
        boxes = np.array([among[place][1] for place in places])
        for place, crop in zip(places, resolve_contested([crops[place] for place in places], boxes), strict=True):
            resolved[place] = crop
    return _mean(resolved, among)


def main() -> None:
    """Prints a table for each strength of the noise."""
    among = named_objects(sys.argv[1:])
    print(f"{len(among)} objects")
    for bent in BENT:
        generator = np.random.default_rng(0)
        masks = [prediction(box, truth, bent, generator) for _, box, truth in among]
        plain = [paste_crop(m, np.array(b), *t.shape) for m, (_, b, t) in zip(masks, among, strict=True)]
        print(
            f"\n| predictions of {100 * _mean(plain, among):.1f} (resolved {100 * _resolved(plain, among):.1f})",
            end=" | ",
        )
        print(*AGREEMENTS, "resolved at the package's own |", sep=" | ")
        print("|---" * (len(AGREEMENTS) + 2) + "|")
        for certain in CERTAIN:
            found = [
                grabcut.refine(pixels, box, mask, certain=certain, agreement=0.0)
                for mask, (pixels, box, _) in zip(masks, among, strict=True)
            ]
            shared = [iou(whole(a, t), whole(b, t)) for a, b, (_, _, t) in zip(found, plain, among, strict=True)]
            print(f"| certain from {certain:g}", end=" | ")
            for least in AGREEMENTS:
                kept = [a if share >= least else b for a, b, share in zip(found, plain, shared, strict=True)]
                print(f"{100 * _mean(kept, among):.1f}", end=" | ")
            kept = [a if share >= OWN_AGREEMENT else b for a, b, share in zip(found, plain, shared, strict=True)]
            print(f"{100 * _resolved(kept, among):.1f} |", flush=True)


if __name__ == "__main__":
    main()
