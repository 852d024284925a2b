"""The progress bar of long commands."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from maskx_tf.errors import visible
from maskx_tf.tasks.progress import Progress

if TYPE_CHECKING:
    from rich import progress as rich_progress


class Bar(Progress):
    """A progress bar on the standard error output, with lines above it. The bar is shown only on a terminal."""

    def __init__(self, bar: rich_progress.Progress, task: rich_progress.TaskID, prefix: str) -> None:
        self._bar, self._task, self._prefix = bar, task, prefix

    def started(self, total: int) -> None:
        """Sets the length of the bar."""
        self._bar.update(self._task, total=total)

    def advance(self) -> None:
        """Adds a step."""
        self._bar.advance(self._task)

    def at(self, completed: int, text: str) -> None:
        """Sets the number of steps that are done, and the text next to the bar."""
        self._bar.update(self._task, completed=completed, description=text)

    def say(self, text: str) -> None:
        """Prints a line above the bar, on a terminal or not."""
        line = visible(self._prefix + text, keep="\n")
        if self._bar.disable:
            print(line, file=sys.stderr, flush=True)
        else:
            self._bar.console.print(line, highlight=False, markup=False)


@contextmanager
def progress(title: str, total: int | None = None, *, prefix: str = "") -> Iterator[Bar]:
    """A bar, which disappears at the end.

    Args:
        title: the text next to the bar.
        total: its length; None if the task tells it later.
        prefix: the beginning of each line above the bar.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield Bar(bar, bar.add_task(title, total=total), prefix)
