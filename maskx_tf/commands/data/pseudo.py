"""`maskx data pseudo`: a data set whose missing masks are made by a model, or by GrabCut."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskx_tf.commands.data import Annotations, Format, Images, Masks, Outside
from maskx_tf.commands.predict import Disjoint, Refine
from maskx_tf.commands.progress import progress as progress_bar
from maskx_tf.errors import BadInput
from maskx_tf.quiet import import_tensorflow

if TYPE_CHECKING:
    from maskx_tf.masks.steps import MaskSteps
    from maskx_tf.tasks.pseudo import Maker

EXAMPLE = "Example: maskx data pseudo --images photos --annotations boxes.json --out all.json --model runs/mine"


def pseudo(
    images: Images,
    annotations: Annotations,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The COCO file to write.")],
    model: Annotated[str | None, typer.Option("--model", metavar="DIR", help="The model that makes the masks.")] = None,
    grabcut: Annotated[bool, typer.Option("--grabcut", help="GrabCut makes the masks.")] = False,
    least: Annotated[
        float, typer.Option("--least", metavar="QUALITY", min=0.0, max=1.0, help="Leave out masks below this quality.")
    ] = 0.5,
    refine: Refine = False,
    disjoint: Disjoint = False,
    form: Format = "coco",
    masks: Masks = "all",
    outside: Outside = False,
) -> None:
    """Write a COCO file with made masks for boxes without one. They are marked, and evaluation does not use them."""
    from maskx_tf.data import splits
    from maskx_tf.data.formats.readers import DataFiles
    from maskx_tf.masks.steps import MaskSteps
    from maskx_tf.tasks.pseudo import write_filled

    if (model is None) != grabcut:
        raise BadInput("expected one of --model DIR and --grabcut")
    if grabcut and (refine or disjoint):
        raise BadInput("--refine and --disjoint: expected --model DIR with them")
    source, policy = DataFiles(images, annotations, form, outside=outside), splits.parse_text(masks)
    with progress_bar("making masks") as bar:
        found = write_filled(
            source,
            out,
            _maker_for(model, MaskSteps(refine=refine, disjoint=disjoint)),
            least=least,
            policy=policy,
            progress=bar,
        )
    print(f"wrote {out}: {found.made} masks made, {found.known} as they were, {found.left} instances without")


def _maker_for(model: str | None, steps: MaskSteps) -> Callable[[tuple[str, ...]], Maker]:
    """Returns a function from class names to the maker of masks: a model's, or GrabCut where no model is given."""
    if model is None:
        from maskx_tf.tasks.pseudo import GrabCutMaker

        return lambda class_names: GrabCutMaker()
    import_tensorflow()
    from maskx_tf.tasks.model_masks import ModelMaker

    return partial(ModelMaker, model, steps=steps)
