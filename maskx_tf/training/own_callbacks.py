"""The user's Keras callbacks, which a recipe names."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from maskx_tf.config.training import CallbackConfig
from maskx_tf.errors import BadInput, reason
from maskx_tf.plugins import imported


def make(callbacks: Sequence[CallbackConfig]) -> list[keras.callbacks.Callback]:
    """The callbacks of `train.callbacks`.

    Raises:
        BadInput: a name cannot be imported, is no callback, or does not take its arguments.
    """
    return [_make(f"train.callbacks[{index}]", one) for index, one in enumerate(callbacks)]


def _make(key: str, wanted: CallbackConfig) -> keras.callbacks.Callback:
    found = imported(f"{key}.name", wanted.name)
    if not (isinstance(found, type) and issubclass(found, keras.callbacks.Callback)):
        raise BadInput(f"{key}.name: expected a class derived from keras.callbacks.Callback, found {wanted.name}")
    try:
        return found(**wanted.arguments)
    except Exception as error:  # whatever the class raises
        raise BadInput(f"{key}: {wanted.name} cannot be made: {reason(error)}") from None
