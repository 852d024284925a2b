"""The user's Keras callbacks, which a recipe names."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import keras

from maskx_tf.config.schema import CallbackConfig
from maskx_tf.errors import BadInput, did_you_mean, reason


def make(callbacks: Sequence[CallbackConfig]) -> list[keras.callbacks.Callback]:
    """The callbacks of `train.callbacks`.

    Raises:
        BadInput: a name cannot be imported, is no callback, or does not take its arguments.
    """
    with _modules_of_this_folder():
        return [_make(f"train.callbacks[{index}]", one) for index, one in enumerate(callbacks)]


def _make(key: str, wanted: CallbackConfig) -> keras.callbacks.Callback:
    module_name, _, name = wanted.name.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the module raises
        raise BadInput(f"{key}.name: {module_name} cannot be imported: {reason(error)}") from None
    found = getattr(module, name, None)
    if found is None:
        raise BadInput(f"{key}.name: {module_name} has no {name}{did_you_mean(name, dir(module))}")
    if not (isinstance(found, type) and issubclass(found, keras.callbacks.Callback)):
        raise BadInput(f"{key}.name: expected a class derived from keras.callbacks.Callback, found {wanted.name}")
    try:
        return found(**wanted.arguments)
    except Exception as error:  # whatever the class raises
        raise BadInput(f"{key}: {wanted.name} cannot be made: {reason(error)}") from None


@contextmanager
def _modules_of_this_folder() -> Iterator[None]:
    """Lets modules in the current folder be imported, as `python` does and an installed command does not."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
