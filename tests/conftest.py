"""Settings of the test session."""

from __future__ import annotations

import gc
import signal

from hypothesis import settings

# A shell's background jobs ignore Ctrl-C and pass that on to what they start, but tests need it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples on every run and machine: a failure is a change of the code. No deadline: these are busy machines.
settings.register_profile("maskx", derandomize=True, deadline=None, max_examples=50, database=None)
settings.load_profile("maskx")


def pytest_collection_finish() -> None:
    """Spares the garbage collector what the imports have made: to walk through it took a tenth of the tests' time."""
    gc.collect()
    gc.freeze()
