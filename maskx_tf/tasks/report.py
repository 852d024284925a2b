"""Writes one HTML page about runs and evaluations. No TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskx_tf.checkpoints import folder
from maskx_tf.config import DataConfig
from maskx_tf.data.formats import coco_write
from maskx_tf.data.images import load_pixels, naming
from maskx_tf.data.opening import validation_set
from maskx_tf.errors import BadInput
from maskx_tf.evaluation import store
from maskx_tf.evaluation.table import METRICS, read_metrics
from maskx_tf.files import Json, JsonView, check_writable, write_text
from maskx_tf.report import gallery
from maskx_tf.report.embeddings import of_model
from maskx_tf.report.gallery import Shown
from maskx_tf.report.page import Subject, page
from maskx_tf.training import log


@dataclass(frozen=True)
class GalleryOptions:
    """Which images a report shows.

    Attributes:
        each: images of each kind: best, median, worst and random.
        score: detections with at least this score are judged and shown.
        seed: the seed of the choice of random images.
    """

    each: int = 3
    score: float = 0.5
    seed: int = 0


class ReportFile(NamedTuple):
    """The report that was written.

    Attributes:
        path: the HTML file.
        subjects: how many runs and evaluations it describes.
        bytes: its size.
    """

    path: Path
    subjects: int
    bytes: int


def write_report(folders: Sequence[str], out: Path, options: GalleryOptions = GalleryOptions()) -> ReportFile:
    """Writes a page with tables, curves, classes, and pictures of truth and prediction.

    Args:
        folders: run folders, model folders, folders of evaluations, or their metrics.json.
        out: the HTML file.
        options: see `GalleryOptions`.

    Raises:
        BadInput: a folder holds nothing to report, or something cannot be read or written.
    """
    check_writable(out)
    subjects = with_distinct_names([subject(Path(path), options) for path in folders], folders)
    text = page(subjects)
    write_text(out, text)
    return ReportFile(out, len(subjects), len(text.encode()))


def with_distinct_names(subjects: Sequence[Subject], folders: Sequence[str]) -> list[Subject]:
    """The subjects under different names: of one model there may be several evaluations."""
    names = [one.name for one in subjects]
    pairs = zip(subjects, folders, strict=True)
    return [one._replace(name=f"{one.name} ({where})") if names.count(one.name) > 1 else one for one, where in pairs]


def subject(path: Path, options: GalleryOptions) -> Subject:
    """Collects the known facts about a run, a model or an evaluation."""
    if not path.exists():
        raise BadInput(f"{path}: no such file or folder")
    found = _metrics_file(path)
    figures = None if found is None else read_metrics(found)
    written = log.read(path / log.LOG) if (path / log.LOG).is_file() else None
    notes: list[str] = []
    shown: list[Shown] = []
    if found is not None and figures is not None and options.each:
        shown, why = _gallery(found.parent, figures, options)
        notes += why
    places = [path] if path.is_dir() else []
    places += [Path(place)] if (place := (figures or {}).get("model")) else []
    classes = next((of_model(place) for place in places if _has_model(place)), None)
    if figures is None and written is None and classes is None:
        raise BadInput(f"{path}: expected {METRICS}, {log.LOG} or a model; maskx eval --out writes the first")
    if figures is None:
        notes.append(f"There is no evaluation here yet: maskx eval {path} --out {path / 'eval'} makes one.")
    name = (path if path.is_dir() else path.parent).resolve().name
    return Subject((figures or {}).get("name") or name or str(path), figures, written, shown, classes, notes)


def _metrics_file(path: Path) -> Path | None:
    """Returns the file of figures of a path: the path, one inside it, or the newest one a folder deeper."""
    if path.is_file():
        return path
    if (path / METRICS).is_file():
        return path / METRICS
    inside = sorted(path.glob(f"*/{METRICS}"), key=lambda file: file.stat().st_mtime)
    return inside[-1] if inside else None


def _has_model(path: Path) -> bool:
    try:
        folder.find(path)
    except BadInput:
        return False
    return True


def _gallery(evaluation: Path, figures: JsonView, options: GalleryOptions) -> tuple[list[Shown], list[str]]:
    """The pictures, or why there are none."""
    data = figures.get("data") or {}
    if not (evaluation / store.DETECTIONS).is_file():
        return [], [f"No pictures: {evaluation} holds no {store.DETECTIONS}, which maskx eval --out writes."]
    asked = DataConfig.model_validate({key: data[key] for key in ("val", "names") if key in data})
    places = [place for source in asked.val for place in (source.images, source.annotations, source.masks_b)]
    needed = [Path(place) for place in (*places, asked.names) if place is not None]
    if not asked.val or not all(place.exists() for place in needed):
        return [], ["No pictures: the data set that was evaluated is no longer where it was."]
    dataset = validation_set(asked)
    truth = coco_write.as_coco(dataset)
    records = {entry["id"]: record for entry, record in zip(truth["images"], dataset.images, strict=True)}

    def pixels(image_id: int) -> NDArray[np.uint8]:
        with naming(records[image_id], dataset.name):
            return load_pixels(records[image_id])

    def results() -> Iterator[tuple[int, list[Json]]]:
        return store.images(evaluation / store.DETECTIONS)

    shown = gallery.pictures(
        truth,
        results,
        pixels,
        a_classes=figures.get("a_classes"),
        each=options.each,
        score=options.score,
        seed=options.seed,
    )
    return shown, []
