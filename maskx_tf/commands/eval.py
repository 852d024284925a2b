"""`maskx eval`: how good a model is on a data set, over classes with masks (A) and without (B)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskx_tf.commands.data import Format, MasksB, Outside
from maskx_tf.commands.predict import Augment, Disjoint, Ensemble, Refine, Scales, augmentation
from maskx_tf.commands.progress import progress as progress_bar
from maskx_tf.errors import BadInput
from maskx_tf.quiet import import_tensorflow

if TYPE_CHECKING:
    from maskx_tf.config.data import Source
    from maskx_tf.tasks.evaluate import Metric

EXAMPLE = "Example: maskx eval runs/my_model --images val --annotations instances_val.json --masks voc --out evals/a"
METRIC_NAMES: dict[str, Metric] = {"coco": "coco", "cityscapes": "cityscapes", "lvis": "lvis"}
NO_DATA = "expected --images and --annotations, or a run whose configuration has data.val"


def eval_(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A run, checkpoint or imported-model folder; a .yaml: random weights."),
    ],
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="Folder of the images; else the run's data.val."),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option("--annotations", metavar="PATH", help="The images' annotations: a file or a folder."),
    ] = None,
    form: Format = "coco",
    masks_b: MasksB = None,
    outside: Outside = False,
    masks: Annotated[
        str | None,
        typer.Option(
            metavar="POLICY",
            help="The classes A; else those of the model folder, its configuration, or the data.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for detections.jsonl, results.json, metrics.json; a stopped evaluation there continues.",
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write all figures to this file.")
    ] = None,
    boxes: Annotated[str, typer.Option(metavar="detected|truth", help="truth: masks of the true boxes.")] = "detected",
    per_class: Annotated[bool, typer.Option("--per-class", help="Also print the figures of each class.")] = False,
    oracle: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="metrics.json of an oracle; prints the gap to it."),
    ] = None,
    grabcut: Annotated[bool, typer.Option("--grabcut", help="Score GrabCut's masks of the boxes instead.")] = False,
    refine: Refine = False,
    disjoint: Disjoint = False,
    augment: Augment = False,
    scales: Scales = None,
    ensemble: Ensemble = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images at a time; evaluate.batch if not given.")] = None,
    faster: Annotated[bool, typer.Option("--faster", help="Score with faster-coco-eval: the same figures.")] = False,
    metric: Annotated[
        str, typer.Option(metavar="RULES", help="Rules of coco, cityscapes (masks only) or lvis.")
    ] = "coco",
) -> None:
    """Measure average precision of boxes, masks and keypoints. Over classes with masks (A), without (B), and all."""
    if boxes not in ("detected", "truth"):
        raise BadInput(f"--boxes: expected detected or truth, found {boxes!r}")
    if metric not in METRIC_NAMES:
        raise BadInput(f"--metric: expected one of {', '.join(METRIC_NAMES)}, found {metric!r}")
    if faster and metric != "coco":
        raise BadInput(f"--faster: expected --metric coco with it, found {metric}")
    from maskx_tf.data import splits
    from maskx_tf.evaluation.table import as_text, gap_text, read_metrics
    from maskx_tf.files import check_writable
    from maskx_tf.masks.steps import MaskSteps

    sources = _sources(images, annotations, form, masks_b, outside=outside)
    sides = augmentation(augment, scales)
    policy = None if masks is None else splits.parse_text(masks)
    best = None if oracle is None else read_metrics(oracle)
    if json_file is not None:
        check_writable(json_file)
    import_tensorflow()
    from maskx_tf.tasks import evaluate
    from maskx_tf.tasks.models import is_recipe

    if not sources and is_recipe(model):
        raise BadInput(f"{model}: {NO_DATA}")
    options = evaluate.EvaluateOptions(
        boxes="truth" if boxes == "truth" else "detected",
        steps=MaskSteps(grabcut, refine, disjoint),
        augment=sides,
        ensemble=tuple(ensemble or ()),
        batch=batch,
        engine="faster" if faster else "pycocotools",
        metric=METRIC_NAMES[metric],
        out=out,
    )
    with progress_bar("evaluating", prefix="maskx: ") as bar:
        found = evaluate.evaluate(model, sources, policy, options, bar)
    figures = found.as_json()
    try:
        if json_file is not None:
            evaluate.write_metrics(found, json_file)
    finally:  # the figures took long, so they are printed even if the file cannot be written
        print(as_text(figures, per_class=per_class))
        if best is not None:
            print("\n" + gap_text(figures, best))


def _sources(
    images: Path | None, annotations: Path | None, form: str, masks_b: Path | None, *, outside: bool
) -> tuple[Source, ...]:
    """The data set that the options name; nothing for what the run itself names."""
    from maskx_tf.config.data import Source
    from maskx_tf.data.formats.readers import READERS

    if images is None or annotations is None:
        given = {"--images": images, "--annotations": annotations, "--masks-b": masks_b}
        for option, path in given.items():
            if path is not None:
                raise BadInput(f"{option} {path}: expected both --images and --annotations")
        return ()
    if form not in READERS:
        raise BadInput(f"--format: expected one of {', '.join(READERS)}, found {form!r}")
    kept = None if masks_b is None else str(masks_b)
    places = {"images": str(images), "annotations": str(annotations), "masks_b": kept}
    return (Source.model_validate({**places, "format": form, "outside": outside}),)
