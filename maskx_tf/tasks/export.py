"""Exports a model: for TF Serving, or for a device."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from maskx_tf.errors import BadInput
from maskx_tf.export import litert, onnx, saved_model
from maskx_tf.export.device import Runner, letterbox
from maskx_tf.export.source import ExportModel, open_source
from maskx_tf.files import Json, read_json
from maskx_tf.masks.rgb import read_image
from maskx_tf.prediction.images import ImagePredictor
from maskx_tf.structures import Detections
from maskx_tf.tasks.images import SUFFIXES, find_images

# Tolerances of an exported model: pixels of the image, and shares.
LARGEST_ERRORS = {"boxes": 0.5, "scores": 1 / 255, "masks": 1 / 255}


@dataclass(frozen=True)
class LiteRTOptions:
    """The options of a LiteRT export.

    Attributes:
        precision: float32, float16, dynamic, mixed or int8. float16 and dynamic store weights in 16 and 8 bits; mixed
            does the former in the detector and the latter in the mask head; int8 also computes the features in 8 bits.
        parts: detector and mask head become separate graphs.
        images: files, folders or patterns of images like those that will be seen, for int8.
        samples: the number of images that are looked at.
    """

    precision: str = "float32"
    parts: bool = False
    images: Sequence[str] = ()
    samples: int = 100


def export_saved_model(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    *,
    version: int | None = None,
    metrics: Path | None = None,
) -> saved_model.Written:
    """Writes a SavedModel for TF Serving; see docs/serving.md.

    Args:
        model: the path of a run, checkpoint or model folder.
        out: the folder of the versions; its name is the model's name.
        overrides: texts such as "export.warmup=3", which win over the model's settings.
        version: the new version's number; None for one more than the highest there.
        metrics: metrics.json of an evaluation, to be packed; None for what the model folder notes.

    Raises:
        BadInput: the model cannot be read, a setting is wrong, or the version is there already.
    """
    source = _with_metrics(open_source(Path(model), overrides), metrics)
    return saved_model.write(source, Path(out), version=version)


def export_litert(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    options: LiteRTOptions = LiteRTOptions(),
    *,
    metrics: Path | None = None,
) -> Json:
    """Writes a LiteRT model of builtin operators; see docs/edge.md.

    Args:
        model: see `export_saved_model`.
        out: a folder that is not there yet.
        overrides: see `export_saved_model`.
        options: see `LiteRTOptions`.
        metrics: see `export_saved_model`.

    Returns:
        What lite.json says of the model.

    Raises:
        BadInput: as `export_saved_model` raises it; or the options do not fit together.
    """
    place = _absent(out)
    source = _with_metrics(open_source(Path(model), overrides, portable=True), metrics)
    size = source.config.model.input
    files = list(find_images(options.images))[: options.samples]
    sides = (size.canvas, size.short_side, size.long_side, size.rounding)
    examples = (letterbox(read_image(file), *sides) for file in files)
    return litert.write(source, place, precision=options.precision, parts=options.parts, images=examples)


def export_onnx(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    *,
    metrics: Path | None = None,
    check: Sequence[str] = (),
) -> Json:
    """Writes an ONNX model of standard operators; see docs/edge.md.

    Args:
        model: see `export_saved_model`.
        out: a folder that is not there yet.
        overrides: see `export_saved_model`.
        metrics: see `export_saved_model`.
        check: files, folders or patterns of images on which the answers of ONNX Runtime, and of OpenVINO where it is
            installed, are compared with the model's.

    Returns:
        What lite.json says of the model, and how far answers are apart.

    Raises:
        BadInput: as `export_saved_model` raises it; or there is no image to check, or answers differ.
    """
    place = _absent(out)
    pictures = list(find_images(check))
    if check and not pictures:
        raise BadInput(f"{' '.join(check)}: no image there ({', '.join(SUFFIXES)})")
    source = _with_metrics(open_source(Path(model), overrides, portable=True), metrics)

    def compared(folder: Path) -> Json:
        if not pictures:
            return {}
        predictor = ImagePredictor(source.model, source.config.model)
        answers = [(file, predictor(read_image(file))) for file in pictures]
        facts = {"check": _compare(answers, Runner(folder), f"{out}")}
        if find_spec("openvino") is not None:
            facts["check_openvino"] = _compare(answers, Runner(folder, openvino=True), f"{out} in OpenVINO")
        return facts

    return onnx.write(source, place, compared)


def _compare(answers: Sequence[tuple[Path, Detections]], runner: Runner, folder: str) -> Json:
    """Measures how far the answers of a runner are from the model's own, of which `answers` has one for each image.

    Returns:
        The number of detections, and the largest error of each kind.

    Raises:
        BadInput: answers differ; the message begins with `folder`.
    """
    count, errors = 0, dict.fromkeys(LARGEST_ERRORS, 0.0)
    for file, expected in answers:
        found = runner(read_image(file))
        if not np.array_equal(found.classes, expected.classes):
            raise BadInput(f"{folder}: other detections than the model's on {file}")
        count += len(found.classes)
        for name, most in LARGEST_ERRORS.items():
            theirs, ours = getattr(found, name), getattr(expected, name)
            if (theirs is None) != (ours is None):
                words = ("no", "some") if ours is None else ("some", "none")
                raise BadInput(f"{folder}: expected {words[0]} {name} on {file}, as the model's, found {words[1]}")
            if ours is None or not len(ours):
                continue
            error = float(np.abs(theirs - ours).max())
            if not error <= most:  # nor a NaN
                raise BadInput(f"{folder}: {name} differ by {error:.3g} on {file}, expected at most {most}")
            errors[name] = max(errors[name], error)
    return {"images": len(answers), "detections": count, **{name: float(f"{e:.2g}") for name, e in errors.items()}}


def _absent(out: str | os.PathLike[str]) -> Path:
    """The path of a folder that is not there yet, which is refused before the model is opened."""
    place = Path(out)
    if place.exists():
        raise BadInput(f"{place}: expected a folder that is not there yet")
    return place


def _with_metrics(source: ExportModel, metrics: Path | None) -> ExportModel:
    """The source with the figures of an evaluation."""
    return source if metrics is None else source._replace(meta={**source.meta, "metrics": read_json(metrics)})
