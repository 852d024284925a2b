"""What a run wrote about its training, as far as it got: log.csv, a line every few steps."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from maskx_tf.errors import BadInput

LOG = "log.csv"


def read(path: Path) -> dict[str, list[float]]:
    """The columns of a log; NaN where a line has nothing to say.

    A last line that is cut short counts for nothing, nor does a line without a step.

    Raises:
        BadInput: the file cannot be read, or has no column of steps.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""), restval="")
    names = [name for name in reader.fieldnames or [] if name]
    if "step" not in names:
        raise BadInput(f"{path}: expected a column step, found {', '.join(names) or 'none'}")
    rows = [row for row in reader if math.isfinite(_number(row["step"]))]
    return {name: [_number(row[name]) for row in rows] for name in names}


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
