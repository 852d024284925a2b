"""`maskx config`: prints the resolved settings of a recipe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from maskx_tf.commands import recipes
from maskx_tf.errors import BadInput

EXAMPLE = "Example: maskx config mask_rcnn_r50_fpn_coco train.steps=1000 'model.input.canvas=[512, 512]'"

REFERENCE = """# Configuration

A recipe is a YAML file, or the name of a recipe of the package (`maskx recipes`). If there is a file of this name, the
file is used. Its key `base` may name another recipe, relative to it, whose settings apply unless the recipe replaces
them. Settings on the command line replace both. Every key below has a default or must be given. An unknown key is
refused, and the message names the nearest known key. `maskx config RECIPE key=value ...` prints the resulting
configuration.

```yaml
base: mask_x_rcnn_r50_fpn_coco_voc
train:
  batch: 8
  rate: 0.01
```

```
maskx train recipe.yaml train.rate=0.005 'model.input.canvas=[512, 512]' data.val=[]
```

Paths are relative to the folder in which the command runs. This page is what `maskx config --reference` prints.

{recipe}
# Studies

These are the keys of the file of `maskx study`, which [study.md](study.md) describes. Recipes are relative to the file.

{study}"""


def _print_reference(wanted: bool) -> None:
    if not wanted:
        return
    from maskx_tf.config import Config
    from maskx_tf.config.reference import as_markdown
    from maskx_tf.study.config import StudyConfig

    recipe, study = as_markdown(Config, "A recipe"), as_markdown(StudyConfig, "A study")
    print(REFERENCE.format(recipe=recipe, study=study), end="")
    raise typer.Exit


def config(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG",
            help="A YAML file, or a name that maskx recipes lists.",
            autocompletion=recipes.complete,
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings that override the file's, such as train.steps=1000."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of YAML.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write to this file instead of printing.")] = None,
    reference: Annotated[
        bool,
        typer.Option("--reference", callback=_print_reference, is_eager=True, help="Print all keys, and exit."),
    ] = False,
) -> None:
    """Print every setting of a recipe. Its bases and the overrides are resolved and checked."""
    from maskx_tf.config import dump, load
    from maskx_tf.config.recipes import find
    from maskx_tf.files import as_json as json_text
    from maskx_tf.files import write_text

    resolved = load(recipe, overrides or ())
    if as_json:
        text = json_text(resolved.model_dump(mode="json"))
    else:
        text = dump(resolved)
    if out is None:
        print(text, end="")
        return
    if out.exists() and os.path.samefile(out, find(recipe)):
        raise BadInput(
            f"--out {out}: expected another file, because it would replace the recipe, its base and its comments"
        )
    write_text(out, text)
    print(f"wrote {out}")
