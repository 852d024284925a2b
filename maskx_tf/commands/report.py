"""`maskx report`: one page about runs and evaluations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskx_tf.errors import BadInput

if TYPE_CHECKING:
    from maskx_tf.report.embeddings import Map
    from maskx_tf.report.gallery import Shown
    from maskx_tf.report.page import Subject

EXAMPLE = "Example: maskx report runs/mask_x evals/mask_x evals/oracle --out report.html"
METRICS, DETECTIONS, LOG = "metrics.json", "detections.jsonl", "log.csv"


def report(
    folders: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN_OR_EVAL",
            help="Run folders, model folders, and folders that maskx eval --out wrote, or their metrics.json.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The HTML file to write.")],
    pictures: Annotated[
        int, typer.Option(min=0, max=50, help="Images of each kind in the gallery: best, median, worst, random.")
    ] = 3,
    score: Annotated[float, typer.Option(min=0.0, max=1.0, help="Show and judge detections from this score on.")] = 0.5,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the choice of random images.")] = 0,
) -> None:
    """Write one HTML page about runs and evaluations. Tables, curves, classes, and truth beside prediction."""
    from maskx_tf.config.loader import replace_text
    from maskx_tf.report.page import page

    subjects = told_apart([subject(Path(folder), pictures, score, seed) for folder in folders], folders)
    text = page(subjects)
    replace_text(out, text)
    print(f"wrote {out}: {len(subjects)} in {len(text.encode()) / 2**20:.1f} MiB")


def told_apart(subjects: Sequence[Subject], folders: Sequence[str]) -> list[Subject]:
    """The subjects under names of their own: of one model there may be several evaluations."""
    names = [one.name for one in subjects]
    pairs = zip(subjects, folders, strict=True)
    return [one._replace(name=f"{one.name} ({where})") if names.count(one.name) > 1 else one for one, where in pairs]


def subject(path: Path, pictures: int, score: float, seed: int) -> Subject:
    """What can be told about one argument of the command."""
    from maskx_tf.evaluation.table import read_metrics
    from maskx_tf.report import logs
    from maskx_tf.report.page import Subject

    if not path.exists():
        raise BadInput(f"{path}: no such file or folder")
    found = _metrics_file(path)
    figures = None if found is None else read_metrics(found)
    log = path / LOG
    written = logs.read(log) if log.is_file() else None
    notes: list[str] = []
    shown: list[Shown] = []
    if found is not None and figures is not None and pictures:
        shown, why = _gallery(found.parent, figures, pictures, score, seed)
        notes += why
    model = path if path.is_dir() and _has_model(path) else Path((figures or {}).get("model") or "")
    classes = _classes(model) if (figures or {}).get("model") or model == path else None
    if figures is None and written is None and classes is None:
        raise BadInput(f"{path}: expected {METRICS}, {LOG} or a model; maskx eval --out writes the first")
    if figures is None:
        notes.append(f"There is no evaluation here yet: maskx eval {path} --out {path / 'eval'} makes one.")
    name = path.name if path.is_dir() else path.resolve().parent.name
    return Subject((figures or {}).get("name") or name or str(path), figures, written, shown, classes, notes)


def _metrics_file(path: Path) -> Path | None:
    """The figures that a path means: itself, those inside, or the newest one folder further in."""
    if path.is_file():
        return path
    if (path / METRICS).is_file():
        return path / METRICS
    inside = sorted(path.glob(f"*/{METRICS}"), key=lambda file: file.stat().st_mtime)
    return inside[-1] if inside else None


def _has_model(path: Path) -> bool:
    from maskx_tf.checkpoints import folder

    try:
        folder.find(path)
    except BadInput:
        return False
    return True


def _classes(model: Path) -> Map | None:
    """The map of a model's classes; None where the model has moved away."""
    from maskx_tf.report.embeddings import of_model

    return of_model(model) if model.exists() else None


def _gallery(
    folder: Path, figures: dict[str, Any], each: int, score: float, seed: int
) -> tuple[list[Shown], list[str]]:
    """The pictures, or why there are none."""
    from maskx_tf.config.schema import DataConfig
    from maskx_tf.data import files
    from maskx_tf.data.formats import coco_write
    from maskx_tf.data.formats.records import Unfit
    from maskx_tf.data.opening import validation_set
    from maskx_tf.evaluation import store
    from maskx_tf.report import gallery

    data = figures.get("data") or {}
    if not (folder / DETECTIONS).is_file():
        return [], [f"No pictures: {folder} holds no {DETECTIONS}, which maskx eval --out writes."]
    asked = DataConfig.model_validate({key: data[key] for key in ("val", "names") if key in data})
    places = [Path(place) for source in asked.val for place in (source.images, source.annotations)]
    if not places or not all(place.exists() for place in places):
        return [], ["No pictures: the data set that was evaluated is no longer where it was."]
    dataset = validation_set(asked)
    truth = coco_write.as_coco(dataset, Path())
    records = {entry["id"]: record for entry, record in zip(truth["images"], dataset.images, strict=True)}

    def pixels(image_id: int) -> Any:
        try:
            return files.pixels(records[image_id])
        except Unfit as problem:
            raise BadInput(f"{dataset.name}: image {image_id}: {problem}") from None

    def results() -> Iterator[tuple[int, list[dict[str, Any]]]]:
        return store.images(folder / DETECTIONS)

    shown = gallery.pictures(
        truth, results, pixels, a_classes=figures.get("a_classes"), each=each, score=score, seed=seed
    )
    return shown, []
