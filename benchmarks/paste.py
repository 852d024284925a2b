"""What a mask's grid keeps, and what pasting costs: `python -m benchmarks.paste IMAGES ANNOTATIONS [COUNT]`.

The true masks of COUNT images, drawn with seed 0 (100 unless given), are averaged over the cells of a grid in their
box, as a perfect head would predict them, and pasted. Prints the mean IoU with the truth, also of the largest quarter
of the objects, and the processor time of a paste.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.grabcut import Box, iou, named_objects, whole
from benchmarks.measure import machine
from maskx_tf.masks.paste import paste_crop

GRIDS = (14, 28, 64, 112)


def on_a_grid(truth: NDArray[np.bool_], box: Box, side: int) -> NDArray[np.float32]:
    """Each cell's share of the mask, for the part of the box in the image: the data's boxes do not leave it."""
    picture = Image.fromarray(truth.astype(np.float32))
    return np.asarray(picture.resize((side, side), Image.Resampling.BOX, box=box))


def main() -> None:
    """Prints one line a grid."""
    among = named_objects(sys.argv[1:])
    large = np.array([truth.sum() for _, _, truth in among])
    large = large >= np.quantile(large, 0.75)
    print(f"{len(among)} objects\n\n| grid | mean IoU | of large objects | ms a paste |\n|---|---|---|---|")
    for side in GRIDS:
        grids = [on_a_grid(truth, box, side) for _, box, truth in among]
        start = time.process_time()
        crops = [
            paste_crop(grid, np.array(box), *truth.shape) for grid, (_, box, truth) in zip(grids, among, strict=True)
        ]
        spent = 1000 * (time.process_time() - start) / len(among)
        found = np.array([iou(whole(crop, truth), truth) for crop, (_, _, truth) in zip(crops, among, strict=True)])
        print(f"| {side} | {100 * found.mean():.1f} | {100 * found[large].mean():.1f} | {spent:.3f} |", flush=True)
    print(machine())


if __name__ == "__main__":
    main()
