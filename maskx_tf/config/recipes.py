"""The recipes that come with the package: their names, files and purposes."""

from __future__ import annotations

import os
import re
from pathlib import Path

PACKAGED = Path(__file__).resolve().parents[1] / "recipes"  # in a clone a link to configs/
RECIPE_NAME = re.compile(r"\w+(/\w+)*")


def find(name: str, folder: str | os.PathLike[str] = "") -> str:
    """Returns the path of a recipe, a study or a file of class names: the file in a folder, or else the package's.

    Args:
        name: a path, relative to the folder, or a name that `names` has.
        folder: the current one by default.
    """
    path = os.path.join(folder, name)
    if not os.path.isfile(path) and RECIPE_NAME.fullmatch(name):
        for packaged in (PACKAGED / f"{name}.yaml", PACKAGED / "study" / f"{name}.yaml", PACKAGED / f"{name}.yml"):
            if packaged.is_file():
                return str(packaged)
    return path


def purposes(part: str = "") -> dict[str, str]:
    """Returns the purpose of each recipe by name: the first line of its file.

    Args:
        part: a folder among the recipes, such as "study".
    """
    found = {}
    for path in sorted((PACKAGED / part).glob("*.yaml")):
        with path.open(encoding="utf-8") as file:
            found[path.stem] = file.readline().strip("# \n")
    return found


def names() -> list[str]:
    """The names of all recipes and studies."""
    return [*purposes(), *purposes("study")]
