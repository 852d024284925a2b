"""LiteRT models of each precision next to the model they were made of: `python -m benchmarks.litert MODEL IMAGES`.

MODEL is a model folder, IMAGES a folder of pictures. A COCO file may follow, names of precisions if not all are wanted,
and settings such as model.rpn.post_nms_test=100. Printed are size, latency, and how much of what the Python model finds
is found again: at IoU over .9 with the same class; with the COCO file, of its images alone, also the average precision
of boxes and masks, in percent.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.measure import machine
from maskx_tf.config.data import DataConfig, Source
from maskx_tf.data.pipeline import batches as pipeline
from maskx_tf.evaluation.evaluate import evaluate
from maskx_tf.evaluation.runner import Finder
from maskx_tf.export import litert
from maskx_tf.export.device import Runner, letterbox
from maskx_tf.export.source import ExportModel, open_source
from maskx_tf.masks.paste import paste
from maskx_tf.models.inference import Predictor
from maskx_tf.prediction.images import ImagePredictor, read_image
from maskx_tf.structures import Detections
from maskx_tf.tasks.evaluation_data import EvaluationData, open_data, original_pixels
from maskx_tf.tasks.images import find_images

COLUMNS = (
    "precision",
    "MB",
    "ms an image",
    "detections",
    "found again",
    "mask IoU",
    "largest box error, px",
    "box AP",
    "mask AP",
)
CALIBRATION = 40  # images that int8 looks at


def main(model: str, images: str, *more: str) -> None:
    """Prints the table."""
    precisions = [text for text in more if text in litert.PRECISIONS] or litert.PRECISIONS
    annotations = [text for text in more if text.endswith(".json")]
    overrides = [text for text in more if "=" in text]
    plain = open_source(Path(model), overrides)
    classes = plain.config.model.class_names
    files = list(find_images([images]))
    data = None
    if annotations:
        data = open_data(DataConfig(val=(Source(images=images, annotations=annotations[0]),)), classes)
        measured = {Path(image.file).name for image in data.dataset.images if isinstance(image.file, Path)}
        shown, files = [[one for one in files if (one.name in measured) is seen] for seen in (True, False)]
    pictures = [read_image(file) for file in (files if data is None else shown)]
    predictor = ImagePredictor(plain.model, plain.config.model)
    expected = [predictor(picture) for picture in pictures]
    portable = open_source(Path(model), overrides, portable=True)
    size = portable.config.model.input
    sides = (size.canvas, size.short_side, size.long_side, size.rounding)
    examples = [letterbox(read_image(file), *sides) for file in files[:CALIBRATION]]
    table = Table(title=f"{model}, canvas {size.canvas}, {len(pictures)} images", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "precision" else "right")
    if data is not None:
        table.add_row("the Python model", *[""] * 6, *_precision(plain, data, predictor))
    for precision in precisions:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "model")
            given = examples if precision == "int8" else ()
            facts = litert.write(portable, out, precision=precision, parts=False, images=given)
            runner = Runner(out)
            walls, found = _each(runner, pictures)
            table.add_row(
                precision,
                f"{facts['megabytes']}",
                f"{np.median(walls):.0f}",
                f"{np.mean([len(one.boxes) for one in found]):.1f}",
                *_agreement(
                    found,
                    expected,
                    [picture.shape[:2] for picture in pictures],
                    size_mode=portable.config.model.detections.paste,
                ),
                *([] if data is None else _precision(plain, data, runner)),
            )
    print(machine())
    Console().print(table)


def _each(runner: Runner, pictures: list[NDArray[np.uint8]]) -> tuple[list[float], list[Detections]]:
    """Milliseconds and detections of each picture, after a call that prepares the interpreter."""
    runner(pictures[0])
    walls, found = [], []
    for picture in pictures:
        start = time.perf_counter()
        found.append(runner(picture))
        walls.append((time.perf_counter() - start) * 1e3)
    return walls, found


def _precision(plain: ExportModel, data: EvaluationData, find: Finder) -> list[str]:
    """Average precision of boxes and of masks, in percent."""
    settings = plain.config.model
    metrics = evaluate(
        Predictor(plain.model, settings.input.canvas),
        pipeline.evaluation(data.examples, plain.config.data, settings.input, batch=1),
        data.truth,
        class_names=settings.class_names,
        paste=settings.detections.paste,
        find=find,
        pixels=original_pixels(data.dataset),
    )
    figures = metrics.flat(("AP",))
    return [f"{100 * value:.1f}" for value in figures.values()]


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
