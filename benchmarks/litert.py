"""LiteRT models of each precision beside the model they were made of: `python -m benchmarks.litert MODEL IMAGES`.

MODEL is a model folder, IMAGES a folder of pictures; settings such as model.rpn.post_nms_test=100 may follow. Printed
are size, latency, and how much of what the Python model finds is found again: at IoU over .9 with the same class.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.measure import machine
from maskx_tf.export import litert
from maskx_tf.export.device import Runner, letterbox
from maskx_tf.export.source import open_source
from maskx_tf.masks.paste import paste
from maskx_tf.prediction.images import ImagePredictor, read_image
from maskx_tf.structures import Detections
from maskx_tf.tasks.images import find_images

REPEAT = 3


def main(model: str, images: str, *overrides: str) -> None:
    """Prints the table."""
    pictures = [read_image(file) for file in find_images([images])]
    plain = open_source(Path(model), overrides)
    predictor = ImagePredictor(plain.model, plain.config.model)
    expected = [predictor(picture) for picture in pictures]
    portable = open_source(Path(model), overrides, portable=True)
    size = portable.config.model.input
    sides = (size.canvas, size.short_side, size.long_side, size.rounding)
    examples = [letterbox(one, *sides) for one in pictures]
    table = Table(title=f"{model}, canvas {size.canvas}, {len(pictures)} images", title_justify="left")
    for column in ("precision", "MB", "ms an image", "found again", "mask IoU", "largest box error, px"):
        table.add_column(column, justify="left" if column == "precision" else "right")
    for precision in litert.PRECISIONS:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "model")
            given = examples if precision == "int8" else ()
            facts = litert.write(portable, out, precision=precision, parts=False, images=given)
            runner = Runner(out)
            found = [runner(picture) for picture in pictures]
            table.add_row(
                precision,
                f"{facts['megabytes']}",
                f"{_milliseconds(runner, pictures[0]):.0f}",
                *_agreement(
                    found,
                    expected,
                    [picture.shape[:2] for picture in pictures],
                    size_mode=portable.config.model.detections.paste,
                ),
            )
    print(machine())
    Console().print(table)


def _milliseconds(runner: Runner, picture: Any) -> float:
    walls = []
    for _ in range(REPEAT):
        start = time.perf_counter()
        runner(picture)
        walls.append(time.perf_counter() - start)
    return sorted(walls)[REPEAT // 2] * 1e3


def _agreement(
    found: list[Detections], expected: list[Detections], sizes: list[Any], size_mode: str
) -> tuple[str, str, str]:
    total, again, overlaps, errors = 0, 0, [], [0.0]
    for ours, theirs, (height, width) in zip(found, expected, sizes, strict=True):
        total += len(theirs.boxes)
        if not len(ours.boxes) or not len(theirs.boxes):
            continue
        iou = np.where(ours.classes[:, None] == theirs.classes[None], _iou(ours.boxes, theirs.boxes), 0.0)
        best = iou.argmax(axis=0)
        for theirs_index in np.flatnonzero(iou.max(axis=0) > 0.9):
            again += 1
            pair = (ours, best[theirs_index]), (theirs, theirs_index)
            errors.append(float(np.abs(ours.boxes[best[theirs_index]] - theirs.boxes[theirs_index]).max()))
            if theirs.masks is not None:
                one, other = (
                    paste(who.masks[at : at + 1], who.boxes[at : at + 1], height, width, mode=size_mode)
                    for who, at in pair
                )
                overlaps.append((one & other).sum() / (one | other).sum() if (one | other).any() else 1.0)
    mean = f"{np.mean(overlaps):.3f}" if overlaps else "-"
    return f"{again / max(total, 1):.3f}", mean, f"{max(errors):.3f}"


def _iou(boxes: Any, others: Any) -> Any:
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    areas = [np.prod(group[:, 2:] - group[:, :2], axis=-1) for group in (boxes, others)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9)


if __name__ == "__main__":
    main(*sys.argv[1:])
