"""The progress bar of the commands that take their time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Bar:
    """A progress bar whose length is known later than its beginning."""

    def __init__(self, bar: Any, task: Any) -> None:
        self._bar, self._task = bar, task

    def started(self, total: int) -> None:
        """The length becomes known."""
        self._bar.update(self._task, total=total)

    def advance(self) -> None:
        """One more is done."""
        self._bar.advance(self._task)


@contextmanager
def progress(title: str) -> Iterator[Bar]:
    """A bar on the standard error output, which goes when it is done; none where nobody looks."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield Bar(bar, bar.add_task(title, total=None))
