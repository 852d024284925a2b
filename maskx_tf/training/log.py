"""log.csv of a run: a line every few steps, which training adds and reports read. Needs no TensorFlow."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from maskx_tf import files
from maskx_tf.errors import BadInput, listed

LOG = "log.csv"
Row = Mapping[str, object]


def read(path: Path) -> dict[str, list[float]]:
    """The columns of a log; NaN where a line has no number.

    Raises:
        BadInput: the file cannot be read, or has no column of steps.
    """
    rows, names = _rows(path)
    if "step" not in names:
        raise BadInput(f"{path}: expected a column step, found {listed(names) or 'none'}")
    return {name: [_number(row[name]) for row in rows] for name in names}


def add(path: Path, row: Row) -> None:
    """Adds a line; for a new column the file is written again."""
    _, names = _rows(path, most=0) if path.exists() else ([], [])
    new = [name for name in row if name not in names]
    if names and not new:
        files.append(path, _text([row], names).encode())
    else:
        rows, _ = _rows(path) if names else ([], [])
        _write(path, [*rows, row], [*names, *new])


def cut(path: Path, step: int) -> None:
    """Drops the lines of later steps, which a run that goes on from this one logs again."""
    if not path.exists():
        return
    rows, names = _rows(path)
    kept = [row for row in rows if int(row["step"]) <= step]
    if len(kept) < len(rows) or (names and not path.read_bytes().endswith(b"\n")):
        _write(path, kept, names)


def _rows(path: Path, most: int | None = None) -> tuple[list[dict[str, str]], list[str]]:
    """The lines that have a step, `most` at most, and the columns; a last line that was cut short is left out."""
    text = files.read_text(path)
    reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""), restval="")
    try:
        names = [name for name in reader.fieldnames or [] if name]
        rows = (row for row in reader if row.get("step", "").isdecimal())
        return [{name: row[name] for name in names} for row in itertools.islice(rows, most)], names
    except csv.Error as error:
        raise BadInput(f"{path}: expected CSV: {error}") from None


def _write(path: Path, rows: Sequence[Row], names: Sequence[str]) -> None:
    files.write_text(path, _text([dict(zip(names, names, strict=True)), *rows], names))


def _text(rows: Sequence[Row], names: Sequence[str]) -> str:
    stream = io.StringIO()
    csv.DictWriter(stream, names, restval="", lineterminator="\n").writerows(rows)
    return stream.getvalue()


def _number(text: str) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
