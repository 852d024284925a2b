"""Configurations made by a program rather than read from a recipe."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from maskx_tf.config import Config, load
from maskx_tf.config.text import format_yaml
from maskx_tf.errors import BadInput
from maskx_tf.files import Json, write_text


def resolve(settings: Json, overrides: Sequence[str] = (), *, origin: str = "settings") -> Config:
    """A configuration of settings and overrides, checked as a recipe's is.

    Args:
        settings: sections and their values, plain data.
        overrides: texts such as "model.roi.samples=1".
        origin: where the settings come from, for messages.

    Raises:
        BadInput: an override is wrong, or what it makes cannot be.
    """
    with tempfile.TemporaryDirectory(prefix="maskx-") as folder:
        recipe = Path(folder, "settings.yaml")
        write_text(recipe, format_yaml(settings))
        try:
            return load(recipe, overrides)
        except BadInput as error:
            raise BadInput(str(error).replace(str(recipe), origin)) from None
