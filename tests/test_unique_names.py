"""Classes, aliases and constants at the top of a file have names that no other file of the package gives to others."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "maskx_tf"
# What every command has, under one name; and names of TF Serving and of rooms that wait for a better one.
SHARED = {"EXAMPLE", "app", "log"}
WAITING = {
    "Arrays",
    "Batch",
    "CLASSES",
    "Colour",
    "FIELDS",
    "GROUPS",
    "Labels",
    "MIN_SIDE",
    "MODEL",
    "MOST_BYTES",
    "Masks",
    "OK",
    "PARTS",
    "ROUNDINGS",
    "Sample",
    "Scene",
    "TEXT",
}


def names_of(file: Path) -> Iterator[str]:
    """The classes, aliases and constants at the top of a file."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.AnnAssign):
            yield ast.unparse(node.target)
        elif isinstance(node, ast.Assign):
            yield from (name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name))


def test_no_two_things_have_one_name() -> None:
    files = defaultdict(set)
    for file in PACKAGE.rglob("*.py"):
        for name in names_of(file):
            files[name].add(file.relative_to(PACKAGE).as_posix())
    twice = {name: places for name, places in files.items() if len(places) > 1 and not name.startswith("__")}
    assert {name: places for name, places in twice.items() if name not in SHARED | WAITING} == {}
