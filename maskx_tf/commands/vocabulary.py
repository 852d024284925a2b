"""`maskx vocabulary`: lists and changes the classes of a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskx_tf.errors import BadInput
from maskx_tf.quiet import import_tensorflow

if TYPE_CHECKING:
    from maskx_tf.tasks.vocabulary import Changed

EXAMPLE = "Example: maskx vocabulary runs/first add zebra okapi --like horse --out runs/more"

Out = Annotated[
    Path, typer.Option(metavar="DIR", help="Folder of the new model: a new one, or that of a model to replace.")
]
Names = Annotated[list[str], typer.Argument(metavar="NAME", help="Names of classes.")]

app = typer.Typer(epilog=EXAMPLE)


@app.callback()
def vocabulary(
    context: typer.Context, model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model or run folder.")]
) -> None:
    """List, add, drop and reorder classes, or give a detector masks.

    Help on one of them: maskx vocabulary MODEL add --help
    """
    context.obj = model


@app.command("list", epilog="Example: maskx vocabulary runs/first list")
def list_(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text.")] = False
) -> None:
    """Print the classes with their indices, and their known ids."""
    import json

    from maskx_tf.checkpoints.folder import open_config

    config, meta = open_config(context.obj)
    names = config.model.class_names
    ids = meta.get("category_ids") or [None] * len(names)
    classes = [
        {"index": index, "name": name, "category_id": number}
        for index, (name, number) in enumerate(zip(names, ids, strict=True), start=1)
    ]
    if as_json:
        print(json.dumps(classes, indent=2, ensure_ascii=False))
        return
    for one in classes:
        print(f"{one['index']:5}  {one['name']}" + (f"  (id {one['category_id']})" if one["category_id"] else ""))


@app.command(epilog=EXAMPLE)
def add(
    context: typer.Context,
    names: Names,
    out: Out,
    rows: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="A .npz file with class_rows, box_rows, ... of the new classes."),
    ] = None,
    like: Annotated[str | None, typer.Option(metavar="CLASS", help="Copy the rows of this class.")] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of random rows, without --from and --like.")] = 0,
) -> None:
    """Add classes at the end. Rows are given, copied or random; transfer makes masks of them at once."""
    if rows is not None and like is not None:
        raise BadInput("expected --from or --like, found both")
    import_tensorflow()
    from maskx_tf.tasks import vocabulary

    _print(out, vocabulary.add(context.obj, out, names, rows=rows, like=like, seed=seed))


@app.command(epilog="Example: maskx vocabulary runs/first drop 'hair drier' toaster --out runs/fewer")
def drop(context: typer.Context, names: Names, out: Out) -> None:
    """Drop classes; the weights of the others stay as they are."""
    import_tensorflow()
    from maskx_tf.tasks import vocabulary

    _print(out, vocabulary.drop(context.obj, out, names))


@app.command(epilog="Example: maskx vocabulary runs/first reorder dog cat --only --out runs/pets")
def reorder(
    context: typer.Context,
    names: Names,
    out: Out,
    only: Annotated[bool, typer.Option("--only", help="Drop the classes that are not named.")] = False,
) -> None:
    """Put the named classes first, in this order. The others follow as they stood."""
    import_tensorflow()
    from maskx_tf.tasks import vocabulary

    _print(out, vocabulary.reorder(context.obj, out, names, only=only))


@app.command(
    "attach-masks", epilog="Example: maskx vocabulary imported attach-masks --out start model.transfer.layers=3"
)
def attach_masks(
    context: typer.Context,
    out: Out,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings such as model.mask.mlp_branch=lean.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the new weights.")] = 0,
) -> None:
    """Make a Mask^X R-CNN of a Faster R-CNN. Its mask branch is new and waits for training."""
    import_tensorflow()
    from maskx_tf.tasks import vocabulary

    _print(out, vocabulary.attach_masks(context.obj, out, overrides or (), seed=seed))


def _print(out: Path, changed: Changed) -> None:
    model = changed.config.model
    print(f"wrote {out}: {model.family}, {len(model.class_names)} classes ({len(changed.before)} before)")
