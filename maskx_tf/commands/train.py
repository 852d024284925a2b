"""`maskx train`: one run over a configuration, from its data to a model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskx_tf.commands.progress import progress
from maskx_tf.commands.quiet import import_tensorflow
from maskx_tf.errors import BadInput

if TYPE_CHECKING:
    from maskx_tf.config import Config
    from maskx_tf.data.dataset import Dataset
    from maskx_tf.training.callbacks import Hooks

EXAMPLE = "Example: maskx train configs/synthetic_mask_x.yaml train.steps=2000 --out runs/first"
MADE_UP_CLASSES, VG3K_CLASSES = 80, 3001  # of a dry run, which does not look at the data
STOPPED = 130  # as after Ctrl-C
PICTURES = 4  # on a sheet
SHOWN = 0.5  # the score from which a sheet shows a detection


def train(
    config_file: Annotated[
        str | None, typer.Argument(metavar="CONFIG", help="A recipe, such as those in configs.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE", help="Settings that replace the recipe's; maskx config --reference has all."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="RUN", help="The run folder; runs/ and the recipe's name if not given.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder, if any.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build everything, make two steps on made-up images, and tell the cost.")
    ] = False,
    replay: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Look again at a batch that a run failed with.")
    ] = None,
    workers: Annotated[
        str | None, typer.Option(metavar="HOST:PORT,...", help="All machines of this run; TF_CONFIG says the same.")
    ] = None,
    worker_index: Annotated[int, typer.Option(min=0, help="Which of --workers this one is; 0 writes the run.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """Train a model, on one device or many. Ctrl-C saves and stops, --resume goes on."""
    if replay is not None:
        _replay(replay, as_json)
        return
    if config_file is None:
        raise BadInput("expected a recipe, such as configs/synthetic_mask_x.yaml")
    from maskx_tf.config import load

    config = load(config_file, overrides or [])
    import_tensorflow()
    if workers is not None:
        from maskx_tf.training import distribute

        distribute.set_cluster(workers, worker_index)  # before TensorFlow is asked anything
    if dry_run:
        _dry_run(config, as_json)
        return
    run = out or Path("runs") / Path(config_file).stem
    with progress("starting", config.train.steps) as bar:
        figures = _train(config, run, resume, bar.say, bar.at)
    if as_json:
        print(json.dumps(figures, indent=2))
    else:
        print(f"{figures['steps']} steps; the model is in {run / 'model'}")


def _train(config: Config, run: Path, resume: bool, say: Any, advance: Any) -> dict[str, Any]:
    """Opens the data, runs, and gives what came out."""
    from maskx_tf.data import opening, stats
    from maskx_tf.data.pipeline import batches as pipeline
    from maskx_tf.training import fit, start

    if (config.evaluate.every or config.train.pictures_every) and not config.data.val:
        raise BadInput("data.val: expected data for evaluate.every and train.pictures_every, found none")
    known = fit.classes_of(run) if resume else ()
    dataset = opening.training_set(config.data, known or start.classes(config, ()))
    names = known or start.classes(config, dataset.class_names)
    config = config.with_classes(names)
    classes_a = _classes_a(config, dataset)
    meta = {"category_ids": list(dataset.category_ids), "a_classes": sorted(classes_a)}
    counts = stats.count(dataset)
    if not counts["with_masks"] and config.model.family != "faster_rcnn" and config.train.stage != "detector":
        what = f"expected masks of some class for family {config.model.family}, found none"
        raise BadInput(f"data.train: {what}; train.stage=detector learns boxes alone")
    say(
        f"{counts['images']} images, {counts['instances']} instances, {counts['with_masks']} with masks; "
        f"{len(classes_a)} of {len(names)} classes in A"
    )
    held = opening.training_examples(config.data, dataset)

    def batches(first: int, worker: int, workers: int, devices: int) -> Any:
        return pipeline.training(
            held,
            config.data,
            config.model.input,
            batch=config.train.batch,
            start=first,
            worker=worker,
            workers=workers,
            devices=devices,
        )

    with pipeline.bad_input():
        outcome = fit.run(config, run, batches, meta=meta, resume=resume, hooks=_hooks(config, classes_a, say, advance))
    if outcome.stopped_by:
        say(f"stopped at step {outcome.step}; --resume goes on from there")
        raise typer.Exit(STOPPED)
    return {"steps": outcome.step, "run": str(run), "figures": outcome.figures}


def _classes_a(config: Config, dataset: Dataset) -> frozenset[str]:
    """The classes that count as A: see `evaluate.masks`."""
    from maskx_tf.data import opening, splits, stats

    if config.evaluate.masks is not None:
        plain = config.evaluate.model_dump(mode="json")["masks"]
        return splits.a_classes(splits.parse(plain), dataset.class_names)
    if config.data.masks == "oracle":
        kept = config.data.model_copy(update={"masks": "all"})
        return stats.a_set(opening.training_set(kept, dataset.class_names), "all")
    return stats.a_set(dataset, "all")


def _hooks(config: Config, classes_a: frozenset[str], say: Any, advance: Any) -> Hooks:
    """What the run calls between its steps."""
    from maskx_tf.data import opening
    from maskx_tf.data.formats import coco_write
    from maskx_tf.data.pipeline import batches as pipeline
    from maskx_tf.data.pipeline import examples
    from maskx_tf.evaluation.evaluate import evaluate
    from maskx_tf.models.inference import Predictor
    from maskx_tf.training.callbacks import Hooks

    if not config.data.val:
        return Hooks(say=say, advance=advance)
    names = config.model.class_names
    dataset = opening.validation_set(config.data, names)
    truth = coco_write.as_coco(dataset, Path())
    held = examples.from_dataset(dataset, cache_mib=0)
    predictors: list[Any] = []

    def predictor(model: Any) -> Any:
        if not predictors:
            predictors.append(Predictor(model, config.model.input.canvas))
        predictors[0].refresh()
        return predictors[0]

    def figures(model: Any) -> tuple[dict[str, float], float | None]:
        batches = pipeline.evaluation(held, config.data, config.model.input, batch=config.evaluate.batch)
        with model.scores_above(config.evaluate.score):
            metrics = evaluate(
                predictor(model),
                batches,
                truth,
                class_names=names,
                kinds=("box",) if config.train.stage == "detector" else config.evaluate.kinds,
                classes_a=None if classes_a >= set(names) else classes_a,
                paste=config.model.detections.paste,
            )
        flat = metrics.flat()
        return flat, flat.get("mask/all/AP", flat.get("box/all/AP"))

    def picture(model: Any) -> Any:
        batch = next(iter(pipeline.evaluation(held, config.data, config.model.input, batch=PICTURES)))
        with model.scores_above(config.evaluate.score):
            found = predictor(model).detect(batch["images"], batch["image_sizes"])
        return _sheet(batch, found, config, classes_a)

    return Hooks(figures, picture, say, advance)


def _sheet(batch: Any, found: Any, config: Config, classes_a: frozenset[str]) -> Any:
    """The images of a batch with what was found in them, side by side."""
    import numpy as np

    from maskx_tf.structures import Detections
    from maskx_tf.visualize import draw, enlarged

    rows = []
    for index in range(len(batch["images"])):
        one = Detections(*(None if value is None else value[index].numpy() for value in found))
        kept = one.valid & (one.scores >= config.model.detections.score) & (one.scores >= SHOWN)
        one = Detections(*(None if value is None else value[kept] for value in one))
        pixels = np.asarray(batch["images"][index], np.uint8)
        rows.append(draw(*enlarged(pixels, one), config.model.class_names, a_classes=set(classes_a)))
    return np.concatenate(rows, axis=1)


def _dry_run(config: Config, as_json: bool) -> None:
    """Prints what a run would cost."""
    from maskx_tf.training import dry

    if not config.model.class_names:
        from_vg = any(source.format.startswith("visual_genome") for source in config.data.train)
        names = tuple(f"class {number}" for number in range(1, (VG3K_CLASSES if from_vg else MADE_UP_CLASSES) + 1))
        config = config.with_classes(names)
    found = dry.trial(config)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    print(f"classes      {len(config.model.class_names)}")
    print(f"parameters   {found['parameters']:,}, of which {found['trained']:,} learn")
    print(f"losses       {'  '.join(f'{name} {value:.3f}' for name, value in found['losses'].items())}")
    print(f"memory       {found['memory_mib']:,} MiB at most, with TensorFlow itself")
    print(
        f"step         {found['step_seconds']} s for {config.train.batch} images on {found['devices']} device(s); "
        f"the first one {found['first_step_seconds']} s"
    )
    print(f"whole run    about {found['hours']} hours for {config.train.steps:,} steps")


def _replay(folder: Path, as_json: bool) -> None:
    """Prints what a failed batch does."""
    import_tensorflow()
    from maskx_tf.training import guard

    found = guard.replay(folder)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    print(f"step {found['step']}, images {', '.join(map(str, found['images']))}")
    print("  ".join(f"{name} {value:.4g}" for name, value in found["losses"].items()))
    print(f"first that is not finite: {found['first']}")
