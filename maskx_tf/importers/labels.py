"""Names of an imported model's classes: COCO's where the number of classes fits, or those of a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from maskx_tf.errors import BadInput, shorten
from maskx_tf.files import read_json, read_text
from maskx_tf.names import COCO_IDS


class NamedClasses(NamedTuple):
    """The classes of a model.

    Attributes:
        names: the names in the order of their indices 1..K.
        category_ids: the id of each in its data set, or None where no id is known.
    """

    names: tuple[str, ...]
    category_ids: tuple[int, ...] | None = None


def choose(file: Path | None, count: int, path: Path, *, only: str = "class 1") -> NamedClasses:
    """The labels of a model with a number of foreground classes: a file's, COCO's if there are 80, or numbers.

    Args:
        file: the file of class names, if there is one.
        count: the number of the foreground classes.
        path: the path of the model's file, for messages.
        only: the name of a class that is alone.
    """
    if file is not None:
        labels = read(file)
        if len(labels.names) != count:
            raise BadInput(f"{file}: names {len(labels.names)} classes, expected the {count} of {path}")
        return labels
    if count == len(COCO_IDS):
        return NamedClasses(tuple(COCO_IDS.values()), tuple(COCO_IDS))
    if count == 1:
        return NamedClasses((only,))
    return NamedClasses(tuple(f"class {index}" for index in range(1, count + 1)))


def all_ids() -> NamedClasses:
    """COCO's 90 ids, ten of which are unused."""
    ids = range(1, max(COCO_IDS) + 1)
    return NamedClasses(tuple(COCO_IDS.get(number, f"unused {number}") for number in ids), tuple(ids))


def read(file: Path) -> NamedClasses:
    """Class names of a text file, one a line, or of JSON: a list of names, or COCO's categories in a list or a file.

    Raises:
        BadInput: it cannot be read, or names no class, or a name or an id twice.
    """
    if file.suffix == ".json":
        labels = _of_json(file, read_json(file))
    else:
        lines = (line.strip() for line in read_text(file).split("\n"))
        labels = NamedClasses(tuple(line for line in lines if line))
    _check(file, labels.names)
    return labels


def _of_json(file: Path, content: object) -> NamedClasses:
    entries = content.get("categories") if isinstance(content, dict) else content
    if isinstance(entries, list) and all(isinstance(entry, str) for entry in entries):
        return NamedClasses(tuple(entries))
    if not isinstance(entries, list) or not all(map(_is_category, entries)):
        raise BadInput(f"{file}: expected a JSON list of names, or COCO's categories, found {shorten(content)}")
    names = {entry["id"]: entry["name"] for entry in sorted(entries, key=lambda entry: entry["id"])}
    if len(names) < len(entries):
        raise BadInput(f"{file}: expected no id twice, found {len(entries)} categories with {len(names)} ids")
    return NamedClasses(tuple(names.values()), tuple(names))


def _is_category(entry: object) -> bool:
    return isinstance(entry, dict) and type(entry.get("id")) is int and isinstance(entry.get("name"), str)


def _check(file: Path, names: Sequence[str]) -> None:
    if not names:
        raise BadInput(f"{file}: names no class")
    seen: set[str] = set()
    for name in names:
        if name in seen or not name:
            raise BadInput(f"{file}: expected no name twice, found {name!r}")
        seen.add(name)
