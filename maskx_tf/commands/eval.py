"""`maskx eval`: how good a model is on a data set, over classes with masks (A) and without (B)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskx_tf.commands.data import Format, MasksB
from maskx_tf.commands.models import is_recipe, open_or_build
from maskx_tf.commands.progress import progress as progress_bar
from maskx_tf.commands.quiet import import_tensorflow
from maskx_tf.errors import BadInput

if TYPE_CHECKING:
    from maskx_tf.config import Config
    from maskx_tf.config.schema import DataConfig
    from maskx_tf.data.dataset import Dataset
    from maskx_tf.evaluation.metrics import Metrics

EXAMPLE = "Example: maskx eval runs/my_model --images val --annotations instances_val.json --masks voc --out evals/a"
NO_DATA = "expected --images and --annotations, or a run whose configuration has data.val"


def eval_(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A run, checkpoint or imported-model folder; a .yaml: random weights."),
    ],
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="Folder of the images; the run's data.val unless given."),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            "--annotations", metavar="PATH", help="File or folder of their annotations, as the format has it."
        ),
    ] = None,
    form: Format = "coco",
    masks_b: MasksB = None,
    masks: Annotated[
        str | None,
        typer.Option(
            metavar="POLICY",
            help="The classes A, as --masks of maskx data check has them; else what the model's training noted, or "
            "those with masks in the annotations.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for detections.jsonl, results.json, metrics.json; an evaluation begun there goes on.",
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write all figures to this file.")
    ] = None,
    boxes: Annotated[
        str, typer.Option(metavar="detected|truth", help="truth: score the masks of the true boxes and classes.")
    ] = "detected",
    per_class: Annotated[bool, typer.Option("--per-class", help="Also print the figures of each class.")] = False,
    oracle: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="metrics.json of a model trained with all masks: also print the gap."),
    ] = None,
    grabcut: Annotated[
        bool, typer.Option("--grabcut", help="Score GrabCut's masks of the boxes in place of the model's own.")
    ] = False,
    batch: Annotated[int | None, typer.Option(min=1, help="Images at a time; the model's evaluate.batch.")] = None,
    faster: Annotated[
        bool, typer.Option("--faster", help="Score with faster-coco-eval, which gives the same figures.")
    ] = False,
) -> None:
    """Measure average precision of boxes and masks. It is told for classes with masks (A), without (B), and all."""
    if boxes not in ("detected", "truth"):
        raise BadInput(f"--boxes: expected detected or truth, found {boxes!r}")
    from maskx_tf.evaluation.table import as_text, gap_text, read_metrics

    data = _data(images, annotations, form, masks_b)
    best = None if oracle is None else read_metrics(oracle)
    import_tensorflow()
    metrics, facts = run(data, model, masks, out, boxes, batch, grabcut=grabcut, faster=faster)
    figures = {**facts, **metrics.as_json()}
    text = json.dumps(figures, ensure_ascii=False) + "\n"
    from maskx_tf.config.loader import replace_text

    for path in (json_file, None if out is None else out / "metrics.json"):
        if path is not None:
            replace_text(path, text)
    print(as_text(figures, per_class=per_class))
    if best is not None:
        print("\n" + gap_text(figures, best))


def _data(images: Path | None, annotations: Path | None, form: str, masks_b: Path | None) -> DataConfig | None:
    """What the options name, as data.val would; None for what the run itself names."""
    from maskx_tf.config.schema import DataConfig, Source
    from maskx_tf.data.formats.readers import READERS

    if images is None or annotations is None:
        given = {"--images": images, "--annotations": annotations, "--masks-b": masks_b}
        for option, path in given.items():
            if path is not None:
                raise BadInput(f"{option} {path}: expected --images and --annotations with it")
        return None
    if form not in READERS:
        raise BadInput(f"--format: expected one of {', '.join(READERS)}, found {form!r}")
    kept = None if masks_b is None else str(masks_b)
    source = Source(images=str(images), annotations=str(annotations), format=form, masks_b=kept)  # type: ignore[arg-type]
    return DataConfig(val=(source,))


def run(
    data: DataConfig | None,
    model: str,
    masks: str | None,
    out: Path | None,
    boxes: str,
    batch: int | None,
    *,
    grabcut: bool,
    faster: bool,
) -> tuple[Metrics, dict[str, Any]]:
    """Opens data and model and evaluates; the figures, and where they are from."""
    from maskx_tf.data import opening
    from maskx_tf.data.formats import coco_write
    from maskx_tf.data.pipeline import batches as pipeline
    from maskx_tf.data.pipeline import examples
    from maskx_tf.evaluation.evaluate import evaluate
    from maskx_tf.models.inference import Predictor
    from maskx_tf.study.cutting import of_boxes

    if data is None and is_recipe(model):
        raise BadInput(f"{model}: {NO_DATA}")
    dataset = None if data is None else opening.validation_set(data)
    network, config, meta = open_or_build(model, () if dataset is None else dataset.class_names)
    class_names = config.model.class_names
    if data is None or dataset is None:
        data = config.data
        if not data.val:
            raise BadInput(f"{model}: {NO_DATA}")
        dataset = opening.validation_set(data)
    classes_a = _classes_a(masks, dataset, data, config, meta)
    truth = coco_write.as_coco(dataset, Path())
    if boxes == "truth" and not grabcut and config.model.family == "faster_rcnn":
        raise BadInput(f"{model}: --boxes truth: expected a model with masks, found family faster_rcnn")
    predictor = Predictor(network, config.model.input.canvas)
    size = batch or config.evaluate.batch
    batches = pipeline.evaluation(
        examples.from_dataset(dataset, cache_mib=0), config.data, config.model.input, batch=size
    )
    facts = {"model": config.model.model_dump(mode="json"), "score": config.evaluate.score, "files": _files(dataset)}
    above = network.scores_above(config.evaluate.score)
    with progress_bar("evaluating", len(dataset.images)) as bar, pipeline.bad_input(), above:
        metrics = evaluate(
            predictor,
            batches,
            truth,
            class_names=class_names,
            kinds=None if grabcut else config.evaluate.kinds,
            classes_a=classes_a,
            boxes="truth" if boxes == "truth" else "detected",
            paste=config.model.detections.paste,
            masks=of_boxes(dataset) if grabcut else None,
            engine="faster" if faster else "pycocotools",
            out=out,
            facts=facts,
            on_image=bar.advance,
            say=lambda text: bar.say(f"maskx: {text}"),
        )
    known = {name for name in class_names if classes_a is not None and name in classes_a}
    return metrics, {
        "model": None if is_recipe(model) else str(Path(model).resolve()),
        "name": _title(Path(model).resolve()) + (" with GrabCut" if grabcut else ""),
        "data": {"name": dataset.name, **_where(data)},
        "a_classes": None if classes_a is None else sorted(known),
    }


def _where(data: DataConfig) -> dict[str, Any]:
    """The data sets and the file of new names, as a configuration has them, with paths that hold anywhere."""
    plain = data.model_dump(mode="json", include={"val", "names"})
    for source in plain["val"]:
        found = {key: source[key] for key in ("images", "annotations", "masks_b") if source[key] is not None}
        source |= {key: str(Path(path).resolve()) for key, path in found.items()}
    if plain["names"] is not None:
        plain["names"] = str(Path(plain["names"]).resolve())
    return plain


def _title(model: Path) -> str:
    """What a model is called: a run's model folder has the name of all others, and its checkpoints', too."""
    if model.parent.name == "checkpoints":
        return f"{model.parent.parent.name} {model.name}"
    return model.parent.name if model.name == "model" else model.name


def _classes_a(
    masks: str | None, dataset: Dataset, data: DataConfig, config: Config, meta: dict[str, Any]
) -> frozenset[str] | None:
    """The classes whose masks training saw; None where that is all of them."""
    from maskx_tf.data import opening, splits, stats

    names = config.model.class_names
    plain = config.model_dump(mode="json")
    policies = (plain["evaluate"]["masks"], plain["data"]["masks"])
    known = next((policy for policy in policies if policy not in (None, "all", "oracle")), None)
    if masks is not None:
        found = splits.a_classes(splits.parse_text(masks), names)
    elif meta.get("a_classes") is not None:
        found = frozenset(meta["a_classes"])
    elif known is not None:
        found = splits.a_classes(splits.parse(known), names)
    elif any(source.masks_b is not None for source in data.val):
        seen = tuple(source.model_copy(update={"masks_b": None}) for source in data.val)
        found = stats.a_set(opening.validation_set(data.model_copy(update={"val": seen})), "all")
    else:
        return None
    return None if found >= set(dataset.class_names) else found


def _files(dataset: Dataset) -> list[tuple[int, int]]:
    """Size and time of each image file, which change with what it shows."""
    found = []
    for image in dataset.images:
        if isinstance(image.file, Path) and image.file.is_file():
            facts = image.file.stat()
            found.append((facts.st_size, facts.st_mtime_ns))
    return found
