"""`maskx train`: one run over a configuration, from its data to a model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskx_tf import interrupts
from maskx_tf.commands import recipes
from maskx_tf.commands.progress import progress
from maskx_tf.errors import BadInput
from maskx_tf.quiet import import_tensorflow

if TYPE_CHECKING:
    from maskx_tf.config import Config

EXAMPLE = "Example: maskx train synthetic_mask_x train.steps=2000 --out runs/first"


def train(
    config_file: Annotated[
        str | None,
        typer.Argument(
            metavar="CONFIG",
            help="A recipe: a YAML file, or a name that maskx recipes lists.",
            autocompletion=recipes.complete,
        ),
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
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the folder, if any.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build everything, make two steps on made-up images, and print the cost.")
    ] = False,
    replay: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Repeat the step at which a run failed.")
    ] = None,
    workers: Annotated[
        str | None, typer.Option(metavar="HOST:PORT,...", help="All machines of this run, as in TF_CONFIG.")
    ] = None,
    worker_index: Annotated[int, typer.Option(min=0, help="Index of this machine in --workers; 0 writes the run.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """Train a model, on one device or many. Ctrl-C saves and stops, --resume goes on."""
    if replay is not None:
        _replay(replay, as_json)
        return
    if config_file is None:
        raise BadInput("expected a recipe: a YAML file, or a name that maskx recipes lists")
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
    from maskx_tf.tasks.train import train as train_model

    with progress("starting", config.train.steps) as bar:
        trained = train_model(config, run, resume=resume, progress=bar)
        if trained.stopped_by:
            bar.say(f"stopped at step {trained.steps}; --resume goes on from there")
    if trained.stopped_by:
        raise typer.Exit(interrupts.EXIT_CODE)
    if as_json:
        print(json.dumps({"steps": trained.steps, "run": str(run), "figures": trained.figures}, indent=2))
    else:
        print(f"{trained.steps} steps; the model is in {run / 'model'}")


def _dry_run(config: Config, as_json: bool) -> None:
    """Prints what a run would cost."""
    from maskx_tf.tasks.train import dry_run

    found = dry_run(config)
    if as_json:
        print(json.dumps(found._asdict(), indent=2))
        return
    made_up = "" if config.model.class_names else ", made up: the recipe names none, and a dry run reads no data"
    print(f"classes      {found.classes}{made_up}")
    print(f"parameters   {found.parameters:,}, of which {found.trained:,} learn")
    print(f"losses       {'  '.join(f'{name} {value:.3f}' for name, value in found.losses.items())}")
    print(f"memory       {found.memory_mib:,} MiB at most, with TensorFlow itself")
    print(
        f"step         {found.step_seconds} s for {config.train.batch} images on {found.devices} device(s); "
        f"the first one {found.first_step_seconds} s"
    )
    print(f"whole run    about {found.hours} hours for {config.train.steps:,} steps")


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
