"""Finds the files of a data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from maskx_tf.errors import BadInput


def list_files(folder: Path, pattern: str, expected: str) -> list[Path]:
    """The files of a folder and its subfolders that match a pattern, sorted.

    Args:
        folder: the folder that is searched.
        pattern: a pattern such as "*.xml"; hidden files, and those in hidden folders, do not match.
        expected: what the files are, for the message.

    Raises:
        BadInput: there is none.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: expected a folder with {expected}")
    found = visible_files(folder, pattern)
    if not found:
        raise BadInput(f"{folder}: expected {expected}, found no {pattern}")
    check_names(found)
    return found


def visible_files(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder and its subfolders that match a pattern, sorted, without what is hidden."""

    def is_hidden(path: Path) -> bool:
        return any(part.startswith(".") for part in path.relative_to(folder).parts)

    return sorted(path for path in folder.rglob(pattern) if not is_hidden(path))


def check_names(paths: Sequence[Path]) -> None:
    """Raises BadInput for a name that is not text, which a disk can hold, but neither a screen nor JSON."""
    for path in paths:
        try:
            path.as_posix().encode()
        except UnicodeEncodeError:
            raise BadInput(f"{path.parent.as_posix()!r}: expected names in UTF-8, found {path.name!r}") from None


def first_file(paths: Sequence[Path]) -> Path | None:
    """The first of these paths that is a regular file, or None."""
    return next((path for path in paths if os.path.isfile(path)), None)  # Path.is_file raises for impossible names
