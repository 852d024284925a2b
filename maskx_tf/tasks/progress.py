"""What a task reports while it runs."""

from __future__ import annotations


class Progress:
    """Receives the messages and the progress of a task, and ignores them; the terminal's progress bar shows them."""

    def started(self, total: int) -> None:
        """The number of steps is known."""

    def advance(self) -> None:
        """One more step is done."""

    def at(self, completed: int, text: str) -> None:
        """This many steps are done, and the text describes how it goes."""

    def say(self, text: str) -> None:
        """A line that stays on the screen."""


SILENT = Progress()
