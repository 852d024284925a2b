"""Counts the weights that a layer would have, without making them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import keras
import pytest


class Weight(NamedTuple):
    """A weight that was asked for."""

    layer: str
    name: str
    size: int
    trainable: bool


def record_weights(monkeypatch: pytest.MonkeyPatch) -> list[Weight]:
    """From here on layers that are built write their weights into the list that this returns, and make none."""
    weights: list[Weight] = []

    def add_weight(self: keras.layers.Layer, shape: Any, trainable: bool = True, name: str = "", **_: Any) -> None:
        weights.append(Weight(self.name, name, math.prod(shape), trainable and self.trainable))

    monkeypatch.setattr(keras.layers.Layer, "add_weight", add_weight)
    return weights


def total(weights: list[Weight], *names: str) -> int:
    """The numbers in all weights, or in those with one of these names."""
    return sum(weight.size for weight in weights if not names or weight.name in names)
