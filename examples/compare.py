r"""Draws the truth next to what models find: the picture of README.md, and of any data set of yours.

    python examples/compare.py runs/agnostic runs/mask_x --images data/synthetic/test \
        --annotations data/synthetic/instances_test.json --masks-b data/synthetic/masks_b_test.json --out compare.webp

A row is an image: the first four of the data set, or those that --pick names. The first column is the truth, the others
are what the models found. Classes whose masks training did not see have cool colours, dashed lines and a B.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import maskx_tf as mx
from maskx_tf import visualize
from maskx_tf.data.formats import readers
from maskx_tf.errors import BadInput
from maskx_tf.quiet import import_tensorflow
from maskx_tf.tasks.pictures import picture

CELL = 400  # side of the place for a picture, in pixels


def main() -> None:
    """Reads the command line, draws, and writes."""
    parser = argparse.ArgumentParser(description="Draw the truth next to what models find.")
    parser.add_argument("models", nargs="+", help="run folders")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--masks-b", type=Path)
    parser.add_argument("--pick", nargs="+", help="file names; else the first four")
    parser.add_argument("--titles", nargs="+", help="of the models; else the names of their folders")
    parser.add_argument("--true-boxes", action="store_true", help="draw the models' masks of the true boxes")
    parser.add_argument("--score", type=float, default=0.5, help="detections below it are not drawn")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()

    import_tensorflow()  # without its notes about the machine
    from maskx_tf.masks.rgb import read_image

    dataset = readers.for_evaluation([readers.DataFiles(asked.images, asked.annotations, masks_b=asked.masks_b)])
    files = {Path(str(record.file)).name: record for record in dataset.images}
    unknown = [name for name in asked.pick or () if name not in files]
    if unknown:
        raise BadInput(f"--pick {unknown[0]}: expected the name of an image of {asked.annotations}")
    records = [files[name] for name in asked.pick or list(files)[:4]]
    models = [mx.load(name) for name in asked.models]
    a_names = models[0].classes_a or frozenset()

    cells, captions = [], []
    for record in records:
        cells.append(picture(record, dataset, a_names, CELL))
        image = read_image(asked.images / Path(str(record.file)).name)
        boxes = np.array([one.box for one in record.instances], np.float32).reshape(-1, 4)
        labels = [dataset.class_names[one.label - 1] for one in record.instances]
        for model in models:
            if asked.true_boxes:
                classes = np.array([model.class_names.index(label) + 1 for label in labels], np.int32)
                found = model.predictor.segment(image, boxes, classes)._replace(scores=None)
            else:
                found = mx.predict(model, image, score=asked.score)[0].detections
            large, found = visualize.resized(image, found, CELL)
            cells.append(visualize.draw(large, found, model.class_names, a_classes=a_names))
        captions += ["truth", *(asked.titles or [Path(name).name for name in asked.models])]
    sheet = visualize.contact_sheet(cells, len(models) + 1, (CELL, CELL), captions)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(asked.out, quality=80)


if __name__ == "__main__":
    try:
        main()
    except BadInput as problem:
        sys.exit(f"compare.py: {problem}")
