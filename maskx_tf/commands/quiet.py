"""TensorFlow without its notes about the machine, which would bury a command's one line."""

from __future__ import annotations

import os


def import_tensorflow() -> None:
    """Imports TensorFlow in silence, unless TF_CPP_MIN_LOG_LEVEL is set: then it says what the user asked for.

    Its first notes are written before it reads that variable, so only closing their way out keeps them back.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        import tensorflow  # noqa: F401
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
