"""A model in every form that runs on a device, next to the Python model: `python -m benchmarks.litert MODEL IMAGES`.

MODEL is a model folder, IMAGES a folder of pictures. A COCO file may follow, names of forms if not all are wanted, and
settings such as model.rpn.post_nms_test=100. Forms are LiteRT's precisions, onnx (ONNX Runtime), and python and bf16:
TensorFlow without and with bfloat16. Prints size, latency, and the share of the Python model's detections that are
matched: with one of the same class at an IoU over .9. With the COCO file, only its images are used, and the average
precision of boxes and masks is printed in percent.
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
from maskx_tf.export import litert, onnx
from maskx_tf.export.device import Runner, letterbox
from maskx_tf.export.precision import Precision
from maskx_tf.export.source import ExportModel, open_source
from maskx_tf.masks.paste import paste
from maskx_tf.masks.rgb import read_image
from maskx_tf.models.inference import Predictor
from maskx_tf.prediction.images import ImagePredictor
from maskx_tf.structures import Detections
from maskx_tf.tasks.evaluation_data import EvaluationData, open_data, original_pixels
from maskx_tf.tasks.images import find_images

PYTHON: dict[str, list[str]] = {"python": [], "bf16": ["export.bf16=true"]}
FORMS = (*PYTHON, *Precision, "onnx")
COLUMNS = (
    "form",
    "MB",
    "ms an image",
    "detections",
    "matched",
    "mask IoU",
    "largest box error, px",
    "box AP",
    "mask AP",
)
CALIBRATION = 40  # images that int8 looks at


def main(model: str, images: str, *more: str) -> None:
    """Prints the table."""
    forms = [text for text in more if text in FORMS] or FORMS
    annotations = [text for text in more if text.endswith(".json")]
    overrides = [text for text in more if "=" in text]
    plain = open_source(Path(model), overrides)
    settings = plain.config.model
    files = list(find_images([images]))
    data = None
    if annotations:
        sources = (Source(images=images, annotations=annotations[0]),)
        data = open_data(DataConfig(val=sources), settings.class_names)
        measured = {Path(image.file).name for image in data.dataset.images if isinstance(image.file, Path)}
        shown, files = [[one for one in files if (one.name in measured) is seen] for seen in (True, False)]
    pictures = [read_image(file) for file in (files if data is None else shown)]
    python = ImagePredictor(plain.model, settings)
    expected = [python(picture) for picture in pictures]
    sizes = [picture.shape[:2] for picture in pictures]
    table = Table(title=f"{model}, canvas {settings.input.canvas}, {len(pictures)} images", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "form" else "right")
    for form in forms:
        with tempfile.TemporaryDirectory() as folder:
            megabytes, find = _form(form, Path(model), overrides, Path(folder, "model"), files[:CALIBRATION])
            walls, found = _each(find, pictures)
            cells = [megabytes, f"{np.median(walls):.0f}", f"{np.mean([len(one.boxes) for one in found]):.1f}"]
            agreement = _agreement(found, expected, sizes, size_mode=settings.detections.paste)
            table.add_row(form, *cells, *agreement, *([] if data is None else _precision(plain, data, find)))
    print(machine())
    Console().print(table)


def _form(form: str, model: Path, overrides: list[str], out: Path, calibration: list[Path]) -> tuple[str, Finder]:
    """Megabytes of the written form, and what finds objects with it."""
    if form in PYTHON:
        source = open_source(model, [*overrides, *PYTHON[form]])
        return "", ImagePredictor(source.model, source.config.model)
    portable = open_source(model, overrides, portable=True)
    if form == "onnx":
        facts = onnx.write(portable, out)
    else:
        size = portable.config.model.input
        sides = (size.canvas, size.short_side, size.long_side, size.rounding)
        examples = [letterbox(read_image(file), *sides) for file in calibration] if form == "int8" else []
        facts = litert.write(portable, out, precision=form, parts=False, images=examples)
    return str(facts["megabytes"]), Runner(out)


def _each(find: Finder, pictures: list[NDArray[np.uint8]]) -> tuple[list[float], list[Detections]]:
    """Milliseconds and detections of each picture, after a call that prepares the interpreter."""
    find(pictures[0])
    walls, found = [], []
    for picture in pictures:
        start = time.perf_counter()
        found.append(find(picture))
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
    total, matched, overlaps, errors = 0, 0, [], [0.0]
    for ours, theirs, (height, width) in zip(found, expected, sizes, strict=True):
        total += len(theirs.boxes)
        if not len(ours.boxes) or not len(theirs.boxes):
            continue
        iou = np.where(ours.classes[:, None] == theirs.classes[None], _iou(ours.boxes, theirs.boxes), 0.0)
        best = iou.argmax(axis=0)
        for theirs_index in np.flatnonzero(iou.max(axis=0) > 0.9):
            matched += 1
            pair = (ours, best[theirs_index]), (theirs, theirs_index)
            errors.append(float(np.abs(ours.boxes[best[theirs_index]] - theirs.boxes[theirs_index]).max()))
            if theirs.masks is not None:
                one, other = (
                    paste(who.masks[at : at + 1], who.boxes[at : at + 1], height, width, mode=size_mode)
                    for who, at in pair
                )
                overlaps.append((one & other).sum() / (one | other).sum() if (one | other).any() else 1.0)
    mean = f"{np.mean(overlaps):.3f}" if overlaps else "-"
    return f"{matched / max(total, 1):.3f}", mean, f"{max(errors):.3f}"


def _iou(boxes: Any, others: Any) -> Any:
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    areas = [np.prod(group[:, 2:] - group[:, :2], axis=-1) for group in (boxes, others)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9)


if __name__ == "__main__":
    main(*sys.argv[1:])
