"""Helpers of the tests of the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from maskx_tf.config import load
from maskx_tf.errors import BadInput


def put(path: str, text: str | bytes) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def problem(path: str, overrides: Sequence[str] = ()) -> str:
    """The one line that loading ends with."""
    with pytest.raises(BadInput) as caught:
        load(path, overrides)
    text = str(caught.value)
    assert text.isprintable(), text
    return text
