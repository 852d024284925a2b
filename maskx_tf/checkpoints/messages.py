"""Words for messages of one line."""

from __future__ import annotations

from collections.abc import Iterable


def listed(names: Iterable[str], most: int = 3) -> str:
    """Names in order: a, b, c and 12 more."""
    every = sorted(names)
    rest = len(every) - most
    return ", ".join(map(shown, every[:most])) + (f" and {rest} more" if rest > 0 else "")


def reason(error: BaseException) -> str:
    """What an error says, on one line; its kind if it says nothing."""
    return shown(" ".join(str(error).split()) or type(error).__name__)


def shown(text: str) -> str:
    """A text that comes from a file, which may hold what a terminal would obey."""
    return text if text.isprintable() else ascii(text)
