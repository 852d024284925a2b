"""Pickles that may come from anywhere, read without running them.

A pickle is a program that names functions to call. Only the names that arrays and containers are made of are accepted
here, and none of them leads to the real function: our stand-ins build an array of plain numbers from its bytes, or
refuse. Any other name ends the reading.
"""

from __future__ import annotations

import pickle
import re
import struct
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from maskx_tf.errors import BadInput, reason
from maskx_tf.files import open_regular

# The errors of the unpickler and the stand-ins for invalid input; none of them is a bug.
NONSENSE = (
    pickle.UnpicklingError,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    NameError,
    RecursionError,
    TypeError,
    ValueError,
)
NUMBER_TYPES = re.compile(r"[fiu][1248]|b1")


class ForbiddenError(Exception):
    """The pickle names something that is neither array nor container."""


class ArrayUnpickler(pickle.Unpickler):
    """Reads containers, texts, numbers and NumPy arrays, written by Python 2 or 3.

    Args:
        file: opened to read bytes.
    """

    def __init__(self, file: IO[bytes]) -> None:
        # Python 2 has no bytes: what it wrote as text may be the contents of an array, which latin1 keeps.
        super().__init__(file, encoding="latin1")
        self.known = self.names()

    def names(self) -> dict[tuple[str, str], Any]:
        """The names that a pickle may use, and our stand-in for each."""
        known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("_codecs", "encode"): self.encode,
            ("numpy", "ndarray"): "ndarray",  # only ever handed to _reconstruct
            ("numpy", "dtype"): self.number_type,
        }
        for builtins in ("builtins", "__builtin__"):  # of Python 3 and 2
            known[builtins, "set"] = set
            known[builtins, "frozenset"] = frozenset
            known[builtins, "bytes"] = self.empty_bytes
        for core in ("numpy.core", "numpy._core"):
            known[f"{core}.multiarray", "_reconstruct"] = self.array
            known[f"{core}.multiarray", "scalar"] = self.scalar
            known[f"{core}.numeric", "_frombuffer"] = self.array_of_buffer
        return known

    def find_class(self, module: str, name: str) -> Any:
        """Our stand-in for a name."""
        try:
            return self.known[module, name]
        except KeyError:
            raise ForbiddenError(f"{module}.{name}") from None

    # Methods, because a pickle may set attributes of what it is given: of a method it cannot.
    def array(self, *_: Any) -> _Array:
        """An array that its state will fill."""
        return _Array()

    def number_type(self, name: str, *_: Any) -> _NumberType:
        """The type of an array's numbers."""
        return _NumberType(name)

    def scalar(self, number_type: _NumberType, data: str | bytes) -> Any:
        """One number."""
        return np.frombuffer(_bytes(data), number_type.numpy(), count=1)[0]

    def array_of_buffer(self, data: Any, number_type: _NumberType, shape: tuple[int, ...], order: str) -> _Array:
        """An array that comes with its bytes."""
        array = _Array()
        array.__setstate__((1, shape, number_type, order == "F", bytes(data)))
        return array

    def encode(self, text: str, encoding: str = "latin1") -> bytes:
        """The bytes that Python 3 writes as text, for Python 2 to read."""
        if encoding != "latin1":
            raise ForbiddenError(f"_codecs.encode to {encoding}")
        return text.encode("latin1")

    def empty_bytes(self) -> bytes:
        """The only bytes that are written as a call."""
        return b""


class _NumberType:
    """Stands in for a NumPy dtype."""

    __slots__ = ("name", "order")

    def __init__(self, name: str) -> None:
        self.name = name
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype[Any]:
        if not NUMBER_TYPES.fullmatch(self.name) or self.order not in ("<", ">", "|", "="):
            raise ForbiddenError(f"an array of {self.order}{self.name}")
        return np.dtype(("<" if self.order == "=" else self.order) + self.name)


class _Array:
    """Stands in for a NumPy array."""

    __slots__ = ("values",)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, number_type, fortran, data = state
        order: Any = "F" if fortran else "C"
        self.values = np.frombuffer(_bytes(data), number_type.numpy()).reshape(shape, order=order)


def _bytes(data: str | bytes) -> bytes:
    return data.encode("latin1") if isinstance(data, str) else data


def read_pickle(path: Path) -> Any:
    """The containers and arrays of a pickle.

    Raises:
        BadInput: it is damaged, or names something that is neither; nothing of it was run.
    """
    with open_regular(path) as file:
        return unpickle(ArrayUnpickler(file), path)


def unpickle(unpickler: pickle.Unpickler, path: Path) -> Any:
    """Returns the contents of a pickle, with stand-ins replaced by plain values; the path is for messages."""
    try:
        return _plain(unpickler.load())
    except ForbiddenError as error:
        raise BadInput(
            f"{path}: expected only arrays and containers, found {reason(error)}; nothing was run: save only weights"
        ) from None
    except NONSENSE as error:
        raise BadInput(f"{path}: cut short, damaged or no pickle: {reason(error)}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.values
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
