"""The progress that a task reports while it runs."""

from __future__ import annotations


class Progress:
    """Receives the messages and the progress of a task, and ignores them; the terminal's progress bar shows them."""

    def started(self, total: int) -> None:
        """The number of steps is known."""

    def advance(self) -> None:
        """One more step is done."""

    def at(self, completed: int, text: str) -> None:
        """Sets the number of finished steps, and a text about them."""

    def say(self, text: str) -> None:
        """A line that stays on the screen."""


SILENT = Progress()
