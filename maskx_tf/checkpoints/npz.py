"""Arrays in an uncompressed zip (.npz), member by member: each has a checksum, and none needs the others in memory."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from maskx_tf.checkpoints.messages import reason, shown
from maskx_tf.errors import BadInput

# What zipfile and NumPy's header reader raise on bytes that are not what they were: there is no common ancestor.
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


def write(path: Path, arrays: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes named arrays; the same arrays make the same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                # ascontiguousarray would make a number an array of one.
                np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)


class Archive:
    """An open file of named arrays.

    Attributes:
        names: of the arrays.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path = path
        self._archive = archive
        self.names = [name.removesuffix(".npy") for name in archive.namelist()]

    def read(self, name: str) -> np.ndarray:
        """One array.

        Raises:
            BadInput: its bytes are damaged, or it holds Python objects.
        """
        try:
            # Whole first: the checksum is compared before the header is believed.
            data = self._archive.read(f"{name}.npy")
            return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        except DAMAGE as error:
            raise BadInput(f"{self._path}: {shown(name)}: damaged, or no array: {reason(error)}") from None

    def items(self) -> Iterator[tuple[str, np.ndarray]]:
        """All arrays."""
        return ((name, self.read(name)) for name in self.names)


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
        BadInput: it is not there, or not whole.
    """
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except DAMAGE as error:
        raise BadInput(f"{path}: cut short or damaged: {reason(error)}") from None
    with archive:
        yield archive
