"""Settings of the test session."""

from __future__ import annotations

from hypothesis import settings

# The same examples on every run and machine: a failure is a change of the code. No deadline: these are busy machines.
settings.register_profile("maskx", derandomize=True, deadline=None, max_examples=50, database=None)
settings.load_profile("maskx")
