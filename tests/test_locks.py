"""One process writes a folder at a time, and a lock ends with its process."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maskx_tf import locks
from maskx_tf.errors import BadInput
from tests import disk

HOLD = """
import sys, time
from maskx_tf import locks
with locks.locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_is_held_by_one_process_and_let_go_when_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        found = f"process {holder.pid} on {socket.gethostname()}"
        with pytest.raises(BadInput) as caught, locks.locked(path):
            pass
        assert str(caught.value) == f"{tmp_path}: expected a folder that is not in use, found {found} at work"
        holder.kill()
    assert path.exists()
    with locks.locked(path), pytest.raises(BadInput, match=f"found process {os.getpid()} on"), locks.locked(path):
        pass
    assert disk.names_in(tmp_path) == []


def test_a_removed_lock_file_is_locked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, flock, calls = tmp_path / ".lock", fcntl.flock, []

    def slow(file: Any, flags: int) -> None:
        if not calls:
            path.unlink()  # as its holder does at the end of its block
        calls.append(flags)
        flock(file, flags)

    monkeypatch.setattr(fcntl, "flock", slow)
    with locks.locked(path) as is_held:
        assert is_held
        assert len(calls) == 2
        with pytest.raises(BadInput, match="not in use"), locks.locked(path):
            pass


def test_without_locks_on_the_disk_there_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(file: Any, flags: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    with locks.locked(tmp_path / ".lock") as first, locks.locked(tmp_path / ".lock") as second:
        assert not first
        assert not second
    with (
        pytest.raises(BadInput, match=r"nowhere/\.lock: cannot be written: No such file"),
        locks.locked("nowhere/.lock"),
    ):
        pass
