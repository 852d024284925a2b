"""`maskx batch`: jobs of many images, in shards, on any number of machines."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from maskx_tf.commands.data import AsJson
from maskx_tf.commands.predict import Disjoint, Refine
from maskx_tf.commands.progress import progress as progress_bar
from maskx_tf.errors import BadInput
from maskx_tf.quiet import import_tensorflow

PART = re.compile(r"(\d{1,9})/(\d{1,9})")

app = typer.Typer(
    name="batch",
    help="Segment any number of images, in shards.",
    epilog="Example: maskx batch plan runs/mine photos/ --out jobs/first",
)


class ShardEngine(StrEnum):
    """The engine that runs shards."""

    here = "here"
    ray = "ray"


JobFolder = Annotated[Path, typer.Argument(metavar="JOB", help="The folder of the job.")]


@app.command(epilog="Example: maskx batch plan runs/mine 'tars/*.tar' --out jobs/first --size 10000")
def plan(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run or model folder, or a version of an export.")],
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE", help="Images, folders, patterns, lists (.txt), or files of many: tar, TFRecord, Parquet."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="JOB", help="The folder of the job; new, or empty.")],
    size: Annotated[int, typer.Option(min=1, max=1_000_000, help="Images per shard.")] = 1000,
    score: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Least score of detections; the model's own if not given.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Images computed at a time; chosen by the canvas if not given.")
    ] = None,
    column: Annotated[
        str, typer.Option(metavar="NAME", help="Column of Parquet files that holds the images.")
    ] = "image",
    boxes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Make masks of the boxes in this COCO file, as maskx label does."),
    ] = None,
    refine: Refine = False,
    disjoint: Disjoint = False,
) -> None:
    """Write down the images of a job, in shards, and the model."""
    from maskx_tf.masks.steps import MaskSteps
    from maskx_tf.tasks.batch import boxes as box_ops
    from maskx_tf.tasks.batch import items
    from maskx_tf.tasks.batch.plan import BatchSettings, write

    steps = MaskSteps(refine=refine, disjoint=disjoint)
    if boxes is not None:
        if len(images) != 1 or not Path(images[0]).is_dir():
            raise BadInput(f"{' '.join(images)}: expected with --boxes the folder of the file's images")
        if (score, batch, column) != (None, None, "image"):
            raise BadInput("--score, --batch and --column: expected none of them with --boxes")
        job = box_ops.write_plan(out, model, Path(images[0]), boxes, size=size, steps=steps)
    elif steps.names:
        raise BadInput("--refine and --disjoint: expected --boxes with them")
    else:
        settings = BatchSettings(score=score, batch=batch, column=column)
        job = write(out, model, items.find(images, column), size=size, settings=settings)
    print(f"wrote {out}: {sum(job.counts)} images in {len(job.counts)} shards, plan {job.id}")


@app.command(epilog="Example: maskx batch run jobs/first --shard 3/8")
def run(
    job: JobFolder,
    shard: Annotated[
        str, typer.Option("--shard", metavar="I/N", help="Run only part I of N of the shards, from 0/N to N-1/N.")
    ] = "0/1",
    engine: Annotated[
        ShardEngine, typer.Option(help="Where shards run: in this process, or on a Ray cluster.")
    ] = ShardEngine.here,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Address of the cluster; auto finds it; without it, a new one is started."
        ),
    ] = None,
    actors: Annotated[
        int | None, typer.Option(min=1, help="The most processes of Ray; as many as fit if not given.")
    ] = None,
    cpus: Annotated[float, typer.Option(min=0.0, help="Processors of each process.")] = 1.0,
    gpus: Annotated[float, typer.Option(min=0.0, help="GPUs of each process; with 0.5, two share one.")] = 0.0,
) -> None:
    """Run the shards that are not done. A run may be stopped at any moment, and started again."""
    found = PART.fullmatch(shard)
    if not found or int(found[1]) >= int(found[2]):
        raise BadInput(f"--shard {shard}: expected I/N with I from 0 to N - 1, such as 0/8")
    part = int(found[1]), int(found[2])
    options = (address, actors, cpus, gpus)
    if engine is ShardEngine.here and options != (None, None, 1.0, 0.0):
        raise BadInput("--address, --actors, --cpus and --gpus: expected --engine ray with them")
    import_tensorflow()
    from maskx_tf.tasks.batch.on_ray import RayOptions, run_on_ray
    from maskx_tf.tasks.batch.run import run as run_here

    with progress_bar("segmenting") as bar:
        ran = (
            run_here(job, part, bar) if engine is ShardEngine.here else run_on_ray(job, part, RayOptions(*options), bar)
        )
    print(f"{ran.done} shards with {ran.images} images done, {ran.before} were done before")


@app.command(epilog="Example: maskx batch status jobs/first --json")
def status(job: JobFolder, as_json: AsJson = False) -> None:
    """Count shards that are done, and images by their status."""
    from maskx_tf.tasks.batch.merge import status as status_of

    found = status_of(job)
    if as_json:
        print(json.dumps(found._asdict(), indent=2))
        return
    done = found.shards - len(found.missing)
    rows = ", ".join(f"{count} {word}" for word, count in found.rows.items()) or "none"
    print(f"{done} of {found.shards} shards done; of {found.images} images: {rows}")


@app.command(epilog="Example: maskx batch merge jobs/first --out found.parquet")
def merge(
    job: JobFolder,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="A .parquet file of rows, or a .json of COCO's results.")
    ],
) -> None:
    """Write the rows of all shards to one file."""
    from maskx_tf.tasks.batch.merge import merge as merge_job

    found = merge_job(job, out)
    print(f"wrote {out}: {found.images} images, {found.detections} detections, {found.unread} images not read")
