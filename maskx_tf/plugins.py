"""The user's own functions and classes, which recipes name by module and name."""

from __future__ import annotations

import importlib
import os
import sys

from maskx_tf.errors import BadInput, did_you_mean, reason

DOTTED_NAME = r"^\w+(\.\w+)+$"


def imported(key: str, dotted: str) -> object:
    """Imports the object of a dotted name such as mine.Watcher; modules of the current folder are found, too.

    Args:
        key: the setting, for messages.
        dotted: the name.

    Raises:
        BadInput: it cannot be imported.
    """
    module_name, _, name = dotted.rpartition(".")
    folder = os.getcwd()
    sys.path.insert(0, folder)  # as python itself does, but an installed command does not
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the module raises
        raise BadInput(f"{key}: {module_name} cannot be imported: {reason(error)}") from None
    finally:
        sys.path.remove(folder)
    if not hasattr(module, name):
        raise BadInput(f"{key}: {module_name} has no {name}{did_you_mean(name, dir(module))}")
    return getattr(module, name)
