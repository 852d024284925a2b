"""Keeps Ctrl-C from being lost in a library that swallows KeyboardInterrupt."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 130  # what a shell reports for a program that Ctrl-C ended
_received = threading.Event()


@contextmanager
def remembered() -> Iterator[None]:
    """Notes every Ctrl-C during the block, and raises KeyboardInterrupt as Python itself does."""
    if threading.current_thread() is not threading.main_thread():  # no other thread may set handlers
        yield
        return

    def hear(number: int, frame: FrameType | None) -> None:
        _received.set()
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # where the user has it ignored, as nohup does, it stays so
        signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        _received.clear()


def was_received() -> bool:
    """Whether there was a Ctrl-C, even if a library swallowed it."""
    return _received.is_set()


def check() -> None:
    """Raises KeyboardInterrupt if there was a Ctrl-C and the program continued."""
    if _received.is_set():
        raise KeyboardInterrupt
