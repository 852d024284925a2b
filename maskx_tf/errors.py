"""The exception that means that the user's input is wrong, and the words of its one-line messages."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60
_short.maxlist = _short.maxdict = _short.maxtuple = 4
_short.maxlevel = 2

# Characters that a terminal obeys instead of showing: control characters, halves of surrogate pairs, line separators,
# and marks that change the direction of writing.
COMMANDS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class BadInput(Exception):
    """Input that the user can correct.

    The message is one line that says which file, which record and what was expected. The command line prints it
    without a traceback and exits with code 2.
    """


def visible(text: str, keep: str = "") -> str:
    r"""The text with every character that a terminal obeys written as \uXXXX, which JSON reads back.

    Args:
        text: a text such as the name of a file or class.
        keep: characters that stay, such as newlines.
    """
    return COMMANDS.sub(lambda found: found[0] if found[0] in keep else f"\\u{ord(found[0]):04x}", text)


def reason(error: BaseException) -> str:
    """Returns an error's message on one line, without the path that an OSError repeats; its type if it has none."""
    return visible(" ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split()))


def shorten(value: object) -> str:
    """A value in a few printable characters."""
    return _short.repr(value)


def listed(names: Iterable[str], most: int = 3) -> str:
    """Names in the order of the alphabet: a, b, c and 12 more."""
    every = sorted(names)
    rest = len(every) - most
    return ", ".join(map(visible, every[:most])) + (f" and {rest} more" if rest > 0 else "")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question that ends the message about a misspelt name; nothing if no known name is like it."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""
