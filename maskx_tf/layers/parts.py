"""Base class of all layers, which stores and restores their options, and the policy of their types."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import keras

# The sizes of a tensor, None where unknown; nested as the inputs of a layer are.
Shape = Any
# What Keras stores of a layer, to make it again.
LayerConfig = dict[str, Any]


class Layer(keras.layers.Layer):
    """A layer whose configuration is all arguments of its constructor, defaults included."""

    def __init_subclass__(cls) -> None:
        """Lets Keras find the class by its name."""
        super().__init_subclass__()
        keras.saving.register_keras_serializable(package="maskx_tf")(cls)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Keeps the arguments, with the layers among them as they are."""
        layer = super().__new__(cls, *args, **kwargs)
        bound = inspect.signature(cls.__init__).bind(layer, *args, **kwargs)
        bound.apply_defaults()
        options = {name: value for name, value in bound.arguments.items() if name not in ("self", "kwargs")}
        vars(layer)["_options"] = options  # not by an assignment: Keras would take layers in it for children
        return layer

    def get_config(self) -> LayerConfig:
        return {**keras.saving.serialize_keras_object(self._options), **super().get_config()}

    @classmethod
    def from_config(cls, config: LayerConfig) -> Self:
        # Parts are not built yet: their owner does that, and names their weights after itself.
        return cls(**keras.saving.deserialize_keras_object(_unbuilt(config)))


@contextmanager
def dtype_policy(policy: str | keras.DTypePolicy) -> Iterator[None]:
    """Makes a policy Keras' own for a while: layers that are made then compute by it."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def build_once(part: keras.layers.Layer, shape: Shape) -> None:
    """Builds a part that came from outside, unless its owner has done so already."""
    if not part.built:
        part.build(shape)


def _unbuilt(serialised: object) -> object:
    """Returns a serialised Keras layer without its shapes, for which Keras would build it at once."""
    if isinstance(serialised, dict):
        return {key: _unbuilt(value) for key, value in serialised.items() if key != "build_config"}
    return [_unbuilt(value) for value in serialised] if isinstance(serialised, list | tuple) else serialised
