"""The model that a command's argument names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskx_tf.checkpoints.io import Loaded


def is_recipe(model: str) -> bool:
    """Whether the argument is a recipe, of which there are no weights, rather than a folder."""
    return model.endswith((".yaml", ".yml"))


def open_or_build(model: str, class_names: tuple[str, ...] = ()) -> Loaded:
    """The model of a folder, or one with random weights of a recipe, whose classes are these unless it names some."""
    from maskx_tf.checkpoints.io import Loaded, open_model

    if not is_recipe(model):
        return open_model(model)
    from maskx_tf.config import load
    from maskx_tf.models.build import build

    config = load(model)
    config = config.with_classes(config.model.class_names or class_names)
    return Loaded(build(config.model), config, {})
