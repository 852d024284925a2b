"""The precisions of LiteRT models. The command imports this file, so it imports nothing large."""

from __future__ import annotations

from enum import StrEnum


class Precision(StrEnum):
    """The number type that a LiteRT model computes with."""

    float32 = "float32"
    float16 = "float16"
    dynamic = "dynamic"
    mixed = "mixed"
    int8 = "int8"
