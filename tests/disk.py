"""Errors of disks and interrupts, simulated at each step of a writer, or real ones."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
STEPS = ("open", "os.mkdir", "os.rename", "os.fsync")  # audit events; os.fsync has none of its own
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class _Trap:
    """Counts the steps of a writer and raises at one of them.

    Audit hooks see every file that Python opens for writing, every folder that it makes and every renaming, and what
    they raise comes out of the call. They stay for ever, so this one does nothing outside of `at`.
    """

    def __init__(self) -> None:
        self.left = 0
        self.error: BaseException | None = None
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.error is None or event not in STEPS:
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITES):
            return
        self.left -= 1
        # A disk that is full stays full: zipfile, for one, opens a file a second way when the first one fails.
        if self.left == 0 or (self.left < 0 and event == "open" and isinstance(self.error, OSError)):
            raise self.error

    @contextmanager
    def at(self, step: int, error: BaseException) -> Iterator[None]:
        sync = os.fsync

        def fsync(descriptor: int) -> None:
            self.hear("os.fsync", ())
            sync(descriptor)

        self.left, self.error = step, error
        os.fsync = fsync
        try:
            yield
        finally:
            os.fsync, self.error = sync, None


_trap = _Trap()


def each_step(write: Callable[[], object], error: BaseException, expected: type[BaseException]) -> Iterator[int]:
    """Runs a writer again and again with an error at its first step, its second, and so on, until none is left.

    Yields:
        The number of the step, after the writer has raised what is expected.
    """
    for step in itertools.count(1):
        with _trap.at(step, error):
            try:
                write()
            except expected:
                pass
            else:
                assert _trap.left > 0, f"step {step}: the error was swallowed"
                return
        yield step


@contextmanager
def no_room_beyond(size: int) -> Iterator[None]:
    """A limit on the size of files, which the system holds every writer to, those in C++ too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def names_in(folder: Path) -> list[str]:
    """Everything in a folder and below, hidden or not."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


each_error = pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=["full disk", "interrupt"])
