"""Arrays in an uncompressed zip (.npz), member by member: each has a checksum, and none needs the others in memory."""

from __future__ import annotations

import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from maskx_tf.errors import BadInput, reason, visible
from maskx_tf.files import open_regular

# The errors of zipfile and of NumPy's header reader for damaged bytes, which have no common base class.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    KeyError,
    RuntimeError,
    MemoryError,
)
# A header may claim any number of bytes. Weights compress little: an array that expands more than this is no weights.
MOST_EXPANSION, ALWAYS_ALLOWED = 50, 2**28


class ArrayHeader(NamedTuple):
    """The shape and type of an array, from its header.

    Attributes:
        shape: the shape of the array.
        dtype: the type of its numbers.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]


def write(path: Path, arrays: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes named arrays; the same arrays make the same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                # ascontiguousarray would make a number an array of one.
                np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)


def read_header(stream: IO[bytes], size: int) -> ArrayHeader:
    """The header of an array in NumPy's format; the stream is then at its first number.

    Args:
        stream: a stream at the beginning of the array.
        size: bytes of the array with its header.

    Raises:
        ValueError: it is no such array, it holds Python objects, or it needs another number of bytes.
    """
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"NumPy's format {version} is not known")
    shape, _, dtype = readers[version](stream)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    needed = stream.tell() + math.prod(shape) * dtype.itemsize
    if needed != size:
        raise ValueError(f"{dtype} {list(shape)} needs {needed} bytes, found {size}")
    return ArrayHeader(shape, dtype)


class Archive:
    """An open file of named arrays.

    Attributes:
        path: the path of the file.
        names: the names of the arrays.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self._archive = archive
        self.names = [name.removesuffix(".npy") for name in archive.namelist()]

    def header(self, name: str) -> ArrayHeader:
        """Returns shape and type of one array, and reads nothing else of it.

        Raises:
            BadInput: it is damaged, or no array of numbers.
        """
        try:
            with self._archive.open(f"{name}.npy") as member:
                return read_header(member, self._archive.getinfo(f"{name}.npy").file_size)
        except DAMAGE as error:
            raise self._damaged(name, error) from None

    def read(self, name: str) -> np.ndarray:
        """One array.

        Raises:
            BadInput: its bytes are damaged, or it is no array of numbers.
        """
        self.header(name)
        try:
            # All of it is read first, so that the checksum is compared before the numbers are used.
            data = self._archive.read(f"{name}.npy")
            return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        except DAMAGE as error:
            raise self._damaged(name, error) from None

    def items(self) -> Iterator[tuple[str, np.ndarray]]:
        """All arrays."""
        return ((name, self.read(name)) for name in self.names)

    def _damaged(self, name: str, error: BaseException) -> BadInput:
        return BadInput(f"{self.path}: {visible(name)}: damaged, or no array: {reason(error)}")


@contextmanager
def reading(path: Path) -> Iterator[Archive]:
    """Opens a file of named arrays.

    Raises:
        BadInput: it is not there, or no such file.
    """
    with open_zip(path) as archive:
        yield Archive(path, archive)


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens a zip whose members can be read.

    Raises:
        BadInput: it is not there, not whole, or its members would be much larger than the file.
    """
    try:
        file = open_regular(path)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {reason(error)}") from None
    with file:
        try:
            archive = zipfile.ZipFile(file)
        except DAMAGE as error:
            raise BadInput(f"{path}: cut short or damaged: {reason(error)}") from None
        with archive:
            promised = sum(one.file_size for one in archive.infolist())
            refuse_expansion(path, promised, os.fstat(file.fileno()).st_size)
            yield archive


def refuse_expansion(path: Path, promised: int, size: int) -> None:
    """Refuses a file whose contents would fill the memory.

    Args:
        path: the path of the file.
        promised: how many bytes its headers speak of.
        size: the size of the file.

    Raises:
        BadInput: they are many more than weights have.
    """
    if promised > max(MOST_EXPANSION * size, ALWAYS_ALLOWED):
        raise BadInput(f"{path}: expected weights, found a file of {size} bytes that unpacks to {promised}")
