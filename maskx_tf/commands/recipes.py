"""`maskx recipes`: the recipes that come with the package."""

from __future__ import annotations

import re
from typing import Annotated

import typer

EXAMPLE = "Example: maskx recipes own_data > mine.yaml"


def complete(incomplete: str) -> list[str]:
    """The names of recipes that begin so, for a shell's Tab key."""
    from maskx_tf.config import recipes

    return [name for name in recipes.names() if name.startswith(incomplete)]


def recipes_(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="Print the file of this recipe, to start your own.", autocompletion=complete
        ),
    ] = None,
) -> None:
    """List the recipes of the package. Every command that takes a recipe takes its name."""
    from pathlib import Path

    from maskx_tf.config import recipes
    from maskx_tf.errors import BadInput, did_you_mean

    if name is None:
        for title, part in (("maskx train", ""), ("maskx study", "study")):
            found = recipes.purposes(part)
            width = max(map(len, found))
            print(f"{title}:")
            for one, purpose in found.items():
                print(f"  {one:{width}}  {purpose}")
        return
    if name not in recipes.names():
        raise BadInput(f"{name}: expected a name that maskx recipes lists{did_you_mean(name, recipes.names())}")
    text = Path(recipes.find(name, recipes.PACKAGED)).read_text(encoding="utf-8")
    # Paths relative to the package's folder become names, which hold from any folder.
    print(re.sub(r"\b(base|recipe): (?:\.\./)?([\w/]+)\.yaml", r"\1: \2", text).rstrip())
