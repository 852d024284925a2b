"""`maskx config`: shows what a recipe comes to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from maskx_tf.errors import BadInput

EXAMPLE = "Example: maskx config configs/mask_rcnn_r50_fpn_coco.yaml train.steps=1000 'model.input.canvas=[512, 512]'"


def config(
    recipe: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, with or without a base.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings that win over the file's, such as train.steps=1000."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of YAML.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write to this file instead of printing.")] = None,
) -> None:
    """Print every setting that a recipe comes to. Its bases and the overrides are resolved and checked."""
    import json

    from maskx_tf.config import dump, load
    from maskx_tf.config.loader import replace_text

    resolved = load(recipe, overrides or ())
    if as_json:
        text = json.dumps(resolved.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    else:
        text = dump(resolved)
    if out is None:
        print(text, end="")
        return
    if out.exists() and os.path.samefile(out, recipe):
        raise BadInput(
            f"--out {out}: expected another file, for it would replace the recipe, its base and its comments"
        )
    replace_text(out, text)
    print(f"wrote {out}")
