"""Reads the fields of one record of a JSON, XML or CSV file, and says what was expected where they do not fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from maskx_tf.data.dataset import Id
from maskx_tf.errors import shorten
from maskx_tf.files import JsonView

MAX_IMAGE_SIDE = 100_000  # pixels; larger numbers are mistakes, and would make polygons take all the memory
MAX_ID = 2**53  # beyond it, float64 (and JavaScript) cannot represent each whole number


class Unfit(Exception):
    """A record that does not fit; the reader reports it as this kind of problem and goes on without the record."""

    def __init__(self, what: str, kind: str = "malformed") -> None:
        super().__init__(what)
        self.kind = kind


def unfit(key: str, expected: str, found: object) -> Unfit:
    """The exception for a field whose value is not what was expected."""
    return Unfit(f"{key}: expected {expected}, found {shorten(found)}")


def entries(data: JsonView, key: str) -> Iterator[tuple[int, Any]]:
    """Yields the items of a list with their numbers from 0 on."""
    items = data.get(key)
    if not isinstance(items, list):
        raise unfit(key, "a list", items)
    return enumerate(items)


def mapping(value: Any, what: str = "record") -> JsonView:
    """The value, if it is a mapping."""
    if not isinstance(value, Mapping):
        raise unfit(what, "a mapping", value)
    return value


def as_number(value: Any, key: str, low: float = -MAX_IMAGE_SIDE, high: float = MAX_IMAGE_SIDE) -> float:
    """Returns a finite number in low..high; text is accepted because XML and CSV have only text."""
    try:
        number = math.nan if isinstance(value, bool) or value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not low <= number <= high:
        raise unfit(key, f"a number from {low:g} to {high:g}", value)
    return number


def number(record: JsonView, key: str, low: float = -MAX_IMAGE_SIDE, high: float = MAX_IMAGE_SIDE) -> float:
    """A finite number in low..high that is no text."""
    value = record.get(key)
    if isinstance(value, str):
        raise unfit(key, f"a number from {low:g} to {high:g}", value)
    return as_number(value, key, low, high)


def whole(record: JsonView, key: str, low: int, high: int) -> int:
    """A whole number in low..high; 640.0 counts, because some programs write all numbers so."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high or value != int(value):
        raise unfit(key, f"a whole number from {low} to {high}", value)
    return int(value)


def text(record: JsonView, key: str) -> str:
    """Text that is not empty and that files and screens can hold."""
    return as_text(record.get(key), key)


def as_text(value: Any, key: str) -> str:
    """The value, if it is text that is not empty and that files and screens can hold."""
    # Half of a surrogate pair, which JSON can hold, is encodable nowhere; a null character ends no file's name.
    if (
        not isinstance(value, str)
        or not value.strip()
        or "\0" in value
        or any("\ud800" <= c <= "\udfff" for c in value)
    ):
        raise unfit(key, "text", value)
    return value


def identity(record: JsonView, key: str) -> Id:
    """An id: a whole number or text."""
    value = record.get(key)
    if isinstance(value, str):
        return text(record, key)
    return whole(record, key, -MAX_ID, MAX_ID)
