"""`maskx vocabulary`: which classes a model knows, and other ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from maskx_tf.commands.quiet import import_tensorflow
from maskx_tf.errors import BadInput

EXAMPLE = "Example: maskx vocabulary runs/first add zebra okapi --like horse --out runs/more"

Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the new model: a new one, or a model's to replace.")]
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
        typer.Option("--from", metavar="FILE", help="An .npz with class_rows, box_rows, ... of the new classes."),
    ] = None,
    like: Annotated[str | None, typer.Option(metavar="CLASS", help="Copy the rows of this class.")] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of random rows, without --from and --like.")] = 0,
) -> None:
    """Add classes at the end. Rows are given, copied or random; transfer makes masks of them at once."""
    surgery = _surgery()
    if rows is not None and like is not None:
        raise BadInput("expected --from or --like, found both")

    def change(model: Any, config: Any) -> Any:
        if rows is not None:
            new = surgery.read(rows, model, config, len(names))
        elif like is not None:
            new = surgery.like(model, config, like, len(names))
        else:
            new = surgery.fresh(model, config, len(names), seed)
        return surgery.add(model, config, names, new)

    _change(context.obj, out, f"added {', '.join(names)}", change)


@app.command(epilog="Example: maskx vocabulary runs/first drop 'hair drier' toaster --out runs/fewer")
def drop(context: typer.Context, names: Names, out: Out) -> None:
    """Drop classes; the weights of the others stay as they are."""
    surgery = _surgery()
    _change(context.obj, out, f"dropped {', '.join(names)}", lambda model, config: surgery.drop(model, config, names))


@app.command(epilog="Example: maskx vocabulary runs/first reorder dog cat --only --out runs/pets")
def reorder(
    context: typer.Context,
    names: Names,
    out: Out,
    only: Annotated[bool, typer.Option("--only", help="Drop the classes that are not named.")] = False,
) -> None:
    """Put the named classes first, in this order. The others follow as they stood."""
    surgery = _surgery()
    change, what = (surgery.keep, "kept") if only else (surgery.reorder, "put first")
    _change(context.obj, out, f"{what} {', '.join(names)}", lambda model, config: change(model, config, names))


@app.command(
    "attach-masks", epilog="Example: maskx vocabulary imported attach-masks --out start model.transfer.layers=3"
)
def attach_masks(
    context: typer.Context,
    out: Out,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings such as model.mask.mlp_branch=lean.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the new weights.")] = 0,
) -> None:
    """Make a Mask^X R-CNN of a Faster R-CNN. Its mask branch is new and waits for training."""
    surgery = _surgery()
    import keras

    keras.utils.set_random_seed(seed)
    _change(
        context.obj,
        out,
        "attached masks",
        lambda model, config: surgery.attach_masks(model, config, overrides or ()),
    )


def _surgery() -> Any:
    """The module that does the work, which brings TensorFlow."""
    import_tensorflow()
    from maskx_tf.checkpoints import vocabulary

    return vocabulary


def _change(model: Path, out: Path, what: str, change: Callable[[Any, Any], Any]) -> None:
    """Opens a model, changes it, writes it, and says so."""
    from maskx_tf.checkpoints import folder, io

    folder.refuse_other(out)
    loaded = io.open_model(model)
    changed, config = change(loaded.model, loaded.config)
    old, new = loaded.config.model.class_names, config.model.class_names
    meta = {
        **loaded.meta,
        "category_ids": _surgery().category_ids(loaded.meta.get("category_ids"), old, new),
        "changes": [*loaded.meta.get("changes", []), what],
    }
    io.save(changed, config, out, **meta)
    print(f"wrote {out}: {config.model.family}, {len(new)} classes ({len(old)} before)")
