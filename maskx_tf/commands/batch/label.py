"""`maskx label`: a COCO file with boxes in, the same file with masks out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskx_tf.commands.data import Images
from maskx_tf.commands.predict import Disjoint, Refine
from maskx_tf.commands.progress import progress as progress_bar
from maskx_tf.quiet import import_tensorflow

EXAMPLE = "Example: maskx label runs/mine --images photos --annotations boxes.json --out labelled.json"


def label(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run, checkpoint or model folder.")],
    images: Images,
    annotations: Annotated[Path, typer.Option("--annotations", metavar="FILE", help="The COCO file with the boxes.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The COCO file to write.")],
    least: Annotated[
        float, typer.Option("--least", metavar="QUALITY", min=0.0, max=1.0, help="Flag masks below this quality.")
    ] = 0.5,
    polygons: Annotated[
        float | None,
        typer.Option(
            "--polygons", metavar="PIXELS", min=0.0, help="Write polygons of this tolerance, not run lengths."
        ),
    ] = None,
    review: Annotated[
        Path | None,
        typer.Option("--review", metavar="FILE", help="Also write a page of masks, the most doubtful first."),
    ] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="Masks on that page.")] = 200,
    refine: Refine = False,
    disjoint: Disjoint = False,
    job: Annotated[
        Path | None,
        typer.Option("--job", metavar="DIR", help="Folder of the job; with it, a stopped run continues."),
    ] = None,
) -> None:
    """Make masks of boxes. Those that are there stay; low-quality ones are flagged."""
    import_tensorflow()
    from maskx_tf.masks.steps import MaskSteps
    from maskx_tf.tasks.batch.label import LabelOptions
    from maskx_tf.tasks.batch.label import label as label_boxes

    options, steps = LabelOptions(least, polygons, review, most), MaskSteps(refine=refine, disjoint=disjoint)
    with progress_bar("making masks") as bar:
        done = label_boxes(model, images, annotations, out, job=job, steps=steps, options=options, progress=bar)
    unread = f", {done.unread} images not read" if done.unread else ""
    print(f"wrote {out}: {done.made} masks made, {done.flagged} boxes to review{unread}")
