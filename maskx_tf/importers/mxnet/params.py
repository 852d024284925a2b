"""Reads MXNet's `.params` files: lists of named arrays, of numbers alone. Nothing in them can be run.

    uint64 0x112, uint64 0
    uint64 number of arrays, and each array:
        uint32 form: 0xF993FAC8 (version 1), 0xF993FAC9 (2), 0xF993FACA (3); another is the rank of the oldest form
        int32 storage, in version 2 and 3: 0 is dense, the only one that is read here
        uint32 rank, and as many sizes: uint32 in the oldest form, int64 in the others
        int32 kind of device, int32 number of the device, int32 type; absent for an array of rank 0
        the numbers, row by row
    uint64 number of names, and each name: uint64 length, text

A name begins with `arg:` or, for moving statistics, with `aux:`.
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from maskx_tf.errors import BadInput, reason, visible
from maskx_tf.files import open_regular

LIST_MAGIC = 0x112
MXNET_FORMS = {0xF993FAC8: 1, 0xF993FAC9: 2, 0xF993FACA: 3}
MXNET_TYPES = ("<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8")
MOST_ARRAYS = 100_000
MOST_RANK = 32
LONGEST_PARAM_NAME = 4096


def read_params(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by their names, without `arg:` and `aux:`.

    Raises:
        BadInput: no such file, another format, or damage.
    """
    try:
        with open_regular(path) as file:
            return _Reader(file, path).arrays()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {reason(error)}") from None


class _Reader:
    """One file, read from its beginning to its end; sizes in it are checked against the bytes of the file."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._left = os.fstat(file.fileno()).st_size

    def arrays(self) -> dict[str, np.ndarray]:
        if self._number("<Q") != LIST_MAGIC:
            raise BadInput(f"{self._path}: expected a .params file of MXNet, found other bytes at its start")
        self._number("<Q")
        arrays = [self._array() for _ in range(self._count("arrays"))]
        names = [self._name() for _ in range(self._count("names"))]
        if self._left:
            raise BadInput(f"{self._path}: expected an end after the names, found {self._left} bytes more")
        if len(names) != len(arrays):
            raise BadInput(f"{self._path}: expected a name for each of {len(arrays)} arrays, found {len(names)}")
        named: dict[str, np.ndarray] = {}
        for name, array in zip(names, arrays, strict=True):
            if name in named:
                raise BadInput(f"{self._path}: expected no name twice, found {visible(name)} again")
            named[name] = array
        return named

    def _bytes(self, size: int) -> bytes:
        if size > self._left:
            raise BadInput(f"{self._path}: damaged: expected {size} bytes more, found {self._left}")
        self._left -= size
        found = self._file.read(size)
        if len(found) < size:
            raise BadInput(f"{self._path}: damaged: it became shorter while it was read")
        return found

    def _number(self, form: str) -> int:
        return int(struct.unpack(form, self._bytes(struct.calcsize(form)))[0])

    def _count(self, what: str) -> int:
        count = self._number("<Q")
        if count > MOST_ARRAYS:
            raise BadInput(f"{self._path}: damaged: expected at most {MOST_ARRAYS} {what}, found {count}")
        return count

    def _array(self) -> np.ndarray:
        rank = self._number("<I")
        version = MXNET_FORMS.get(rank, 0)
        if version >= 2 and (storage := self._number("<i")) != 0:
            raise BadInput(f"{self._path}: expected dense arrays (storage 0), found storage {storage}")
        if version:
            rank = self._number("<I")
        if rank > MOST_RANK:
            raise BadInput(f"{self._path}: damaged: expected an array of at most {MOST_RANK} dimensions, found {rank}")
        sizes = [self._number("<q" if version else "<I") for _ in range(rank)]
        if not rank:
            raise BadInput(f"{self._path}: expected arrays with numbers, found one without dimensions")
        if min(sizes) < 0:
            raise BadInput(f"{self._path}: damaged: expected sizes of at least 0, found {sizes}")
        self._number("<q")  # the device
        kind = self._number("<i")
        if not 0 <= kind < len(MXNET_TYPES):
            raise BadInput(f"{self._path}: expected a type of 0 to {len(MXNET_TYPES) - 1}, found {kind}")
        dtype = np.dtype(MXNET_TYPES[kind])
        return np.frombuffer(self._bytes(math.prod(sizes) * dtype.itemsize), dtype).reshape(sizes)

    def _name(self) -> str:
        length = self._number("<Q")
        if length > LONGEST_PARAM_NAME:
            raise BadInput(
                f"{self._path}: damaged: expected a name of at most {LONGEST_PARAM_NAME} bytes, found {length}"
            )
        name = self._bytes(length).decode("utf-8", "replace")
        return name.removeprefix("arg:").removeprefix("aux:")
