"""Layers that are made of layers which come from outside: how such parts are built, written down and read again."""

from __future__ import annotations

from typing import Any

import keras

# The sizes of a tensor, None where unknown; nested as the inputs of a layer are.
Shape = Any
# What Keras stores of a layer, to make it again.
LayerConfig = dict[str, Any]


def build_once(part: keras.layers.Layer, shape: Shape) -> None:
    """Builds a part that came from outside, unless Keras did so already when it read the part's configuration."""
    if not part.built:
        part.build(shape)


def with_parts(config: LayerConfig, names: tuple[str, ...]) -> LayerConfig:
    """The configuration with its parts made, not built: their owner does that, and names their weights after itself."""
    return {
        key: keras.saving.deserialize_keras_object(_unbuilt(value)) if key in names else value
        for key, value in config.items()
    }


def _unbuilt(serialised: object) -> object:
    """What Keras serialised, without the shapes for which it would build layers at once."""
    if isinstance(serialised, dict):
        return {key: _unbuilt(value) for key, value in serialised.items() if key != "build_config"}
    return [_unbuilt(value) for value in serialised] if isinstance(serialised, list) else serialised
