"""The progress bar of the commands that take their time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Bar:
    """A progress bar on the standard error output, of which nothing is seen where nobody looks, and lines above it."""

    def __init__(self, bar: Any, task: Any) -> None:
        self._bar, self._task = bar, task

    def started(self, total: int) -> None:
        """The length becomes known."""
        self._bar.update(self._task, total=total)

    def advance(self) -> None:
        """One more is done."""
        self._bar.advance(self._task)

    def at(self, completed: int, text: str) -> None:
        """So many are done, and this is what to say of them."""
        self._bar.update(self._task, completed=completed, description=text)

    def say(self, text: str) -> None:
        """Prints a line that stays, whether anybody looks or not."""
        if self._bar.disable:
            print(text, file=sys.stderr, flush=True)
        else:
            self._bar.console.print(text, highlight=False, markup=False)


@contextmanager
def progress(title: str, total: int | None = None) -> Iterator[Bar]:
    """A bar, which goes when it is done; its length may become known later."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield Bar(bar, bar.add_task(title, total=total))
