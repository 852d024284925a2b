"""Imports TensorFlow without its messages about the machine, which would hide a command's own line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from maskx_tf import interrupts

ALL = "0"  # of TF_CPP_MIN_LOG_LEVEL: a user who sets this wants to read the messages
GOOD = b"\0"  # ends what is not worth reading

# Reads to the end, and prints what it read unless the import succeeded. So the last messages of a process that
# TensorFlow ends are seen, such as those about a processor without AVX.
KEEPER = "import sys; held = sys.stdin.buffer.read(); held.endswith(b'\\0') or sys.stdout.buffer.write(held)"


def import_tensorflow() -> None:
    """Imports TensorFlow, and hides what it prints unless the import fails or TF_CPP_MIN_LOG_LEVEL asks for it.

    TF_CPP_MIN_LOG_LEVEL=3 does for the rest of the process, but the first notes are written before it is read.
    """
    if "tensorflow" in sys.modules or sys.stderr is None:
        return
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == ALL:
        return
    with held_back():
        import tensorflow  # noqa: F401
    interrupts.check()  # TensorFlow swallows Ctrl-C here and there while it is imported


@contextmanager
def held_back() -> Iterator[None]:
    """Hides what is written to file descriptor 2, by C++ too, unless the block fails or the process dies."""
    end, beginning = os.pipe()
    shown = os.dup(2)
    keeper = subprocess.Popen(  # in a session of its own, where Ctrl-C does not end it
        [sys.executable, "-ISc", KEEPER], stdin=end, stdout=shown, stderr=subprocess.DEVNULL, start_new_session=True
    )
    os.close(end)
    os.dup2(beginning, 2)
    last = GOOD
    try:
        yield
    except Exception:
        last = b""
        raise
    finally:
        os.dup2(shown, 2)
        os.write(beginning, last)
        os.close(beginning)
        os.close(shown)
        keeper.wait()
