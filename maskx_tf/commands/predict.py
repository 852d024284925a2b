"""`maskx predict`: pictures in; pictures with masks, and COCO results, out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskx_tf.commands.progress import progress as progress_bar
from maskx_tf.errors import BadInput
from maskx_tf.quiet import import_tensorflow
from maskx_tf.tasks.images import SUFFIXES, find_images

Refine = Annotated[bool, typer.Option("--refine", help="Move masks' outlines to edges of colour (GrabCut).")]
Disjoint = Annotated[bool, typer.Option("--disjoint", help="Pixels of several masks go to the smallest box.")]
Augment = Annotated[bool, typer.Option("--augment", help="Also use mirrored views, and 3/4 and 5/4 of the size.")]
Scales = Annotated[
    str | None, typer.Option(metavar="PIXELS,...", help="Short sides for --augment, such as 400,600,800.")
]
Ensemble = Annotated[
    list[str] | None, typer.Option(metavar="MODEL", help="Another model of the ensemble; may be repeated.")
]
EXAMPLE = "Example: maskx predict runs/my_model photos/ --out predictions --json results.json --score 0.7"


def predict(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A run, checkpoint or import; a .yaml: random weights; torchvision:NAME."),
    ],
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE", help="Image files, folders of them, or quoted patterns.")
    ],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for the pictures.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write COCO results, with file names.")
    ] = None,
    score: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Show and write detections with at least this score.")
    ] = 0.5,
    cityscapes: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write Cityscapes' submission: text files, masks as PNG.")
    ] = None,
    no_images: Annotated[bool, typer.Option("--no-images", help="Write no pictures.")] = False,
    augment: Augment = False,
    scales: Scales = None,
    ensemble: Ensemble = None,
    refine: Refine = False,
    disjoint: Disjoint = False,
) -> None:
    """Find and segment objects in images."""
    files = list(find_images(images))
    if not files:
        raise BadInput(f"{' '.join(images)}: no image there ({', '.join(SUFFIXES)})")
    if no_images and json_file is None and cityscapes is None:
        raise BadInput("--no-images without --json or --cityscapes leaves nothing to write")
    if not no_images and out is None:
        raise BadInput("expected --out DIR for the pictures, or --no-images")

    sides = augmentation(augment, scales)
    import_tensorflow()
    from maskx_tf.masks.steps import MaskSteps
    from maskx_tf.tasks.models import local
    from maskx_tf.tasks.predict import predict_files

    with progress_bar("downloading") as bar:
        folder = local(model, bar)
    with progress_bar("predicting") as bar:
        count = predict_files(
            folder,
            files,
            pictures=None if no_images else out,
            results=json_file,
            cityscapes=cityscapes,
            score=score,
            augment=sides,
            ensemble=ensemble or (),
            steps=MaskSteps(refine=refine, disjoint=disjoint),
            progress=bar,
        )
    print(f"{len(files)} images, {count} detections" + ("" if no_images else f", pictures in {out}"))


def augmentation(augment: bool, scales: str | None) -> bool | tuple[int, ...]:
    """Returns the views that --augment and --scales ask for; see `prediction.views.views_of`."""
    if scales is None:
        return augment
    sides = tuple(int(part) if part.isdecimal() else 0 for part in scales.split(","))
    if not all(sides):
        raise BadInput(f"--scales: expected whole numbers of pixels with commas between them, found {scales!r}")
    return sides
