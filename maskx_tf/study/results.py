"""The figures of finished cells: one JSON line each, the last one of a cell counts."""

from __future__ import annotations

import json
from pathlib import Path

from maskx_tf.errors import BadInput
from maskx_tf.files import Json, read_text, write_text

RESULTS = "results.jsonl"
NEEDED = {"group", "method", "digest", "figures"}

ResultLine = Json


def read(path: Path) -> dict[tuple[str, str], ResultLine]:
    """The line of each finished cell, by group and method; nothing where there is no file.

    Raises:
        BadInput: a line is none of a study. A last line that is cut short is left out, because its writer was killed.
    """
    if not path.exists():
        return {}
    lines = read_text(path).split("\n")
    found = {}
    for number, text in enumerate(lines, 1):
        if not text:
            continue
        try:
            line = json.loads(text)
        except ValueError:
            if number == len(lines):  # a whole line ends with a newline, after which there is one more, empty
                continue
            raise BadInput(f"{path}: line {number}: expected a JSON object") from None
        if not isinstance(line, dict) or not set(line) >= NEEDED:
            raise BadInput(f"{path}: line {number}: expected {', '.join(sorted(NEEDED))}")
        found[line["group"], line["method"]] = line
    return found


def add(path: Path, line: ResultLine) -> None:
    """Adds the line of a cell, and removes its older one; the file is never incomplete."""
    lines = read(path)
    lines.pop((line["group"], line["method"]), None)
    every = [*lines.values(), line]
    write_text(path, "".join(json.dumps(one) + "\n" for one in every))
