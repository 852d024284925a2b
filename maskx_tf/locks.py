"""A lock on a folder, or on a part of a job, so that two processes do not write it at the same time."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

from maskx_tf.errors import BadInput
from maskx_tf.files import AnyPath, writing


class InUse(BadInput):
    """Another process holds the lock."""


@contextmanager
def locked(path: AnyPath, subject: str = "") -> Iterator[bool]:
    """Holds a lock file during the block, so that two processes do not write one folder; yields whether it does.

    The system releases the lock when the process ends for any reason, so a file that is left locks nothing. On a disk
    without locks, such as some network disks, nothing is held: another process may be in its block, too.

    Args:
        path: the lock file.
        subject: what the message begins with; "FOLDER: expected a folder that is not in use" unless given.

    Raises:
        InUse: another process holds it.
        BadInput: it cannot be written.
    """
    place = Path(path)
    with writing(path):
        file, is_held = _locked_file(place, subject or f"{place.parent}: expected a folder that is not in use")
    with file:
        with writing(path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        try:
            yield is_held
        finally:
            place.unlink(missing_ok=True)


def _locked_file(place: Path, subject: str) -> tuple[TextIOWrapper, bool]:
    """The open lock file, and whether it is locked."""
    while True:
        file = open(place, "a+", encoding="utf-8")  # noqa: SIM115, the caller closes it
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                file.seek(0)
                holder = file.read(100).strip() or "another process"
            raise InUse(f"{subject}, found {holder} at work") from None
        except OSError:
            return file, False
        # Between opening and locking, the holder may have removed the file: then the lock is on nothing.
        if place.exists() and os.path.samestat(place.stat(), os.fstat(file.fileno())):
            return file, True
        file.close()
