"""Reads files, with an error of one line where that fails, and makes checksums."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BufferedReader, StringIO
from typing import TYPE_CHECKING, Any

from maskx_tf.errors import BadInput, reason, shorten

if TYPE_CHECKING:
    import numpy as np  # the command must answer without it
    from numpy.typing import NDArray

AnyPath = str | os.PathLike[str]
# An object as JSON and YAML hold it, and one that is only read.
Json = dict[str, Any]
JsonView = Mapping[str, Any]


def open_regular(path: AnyPath) -> BufferedReader:
    """Opens a file to read its bytes, if it is a regular one: a pipe or a device could make the reader wait for ever.

    Raises:
        OSError: as `open` raises it, and for anything but a regular file.
    """
    # Without O_NONBLOCK, opening a pipe already waits for its writer; for a regular file it changes nothing.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        require_regular(os.fstat(descriptor).st_mode, path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def require_regular(mode: int, path: AnyPath) -> None:
    """Raises OSError for the mode of anything but a regular file."""
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))


def read_bytes(path: AnyPath) -> bytes:
    """The contents of a regular file.

    Raises:
        BadInput: it cannot be read.
    """
    try:
        with open_regular(path) as file:
            return file.read()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise BadInput(f"{os.fspath(path)}: cannot be read: {reason(error)}") from None


def read_text(path: AnyPath) -> str:
    """A text file in UTF-8, with or without a byte order mark.

    Raises:
        BadInput: it cannot be read, or is in another encoding.
    """
    try:
        return read_bytes(path).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise BadInput(f"{os.fspath(path)}: expected UTF-8 text, found byte 0x{byte:02x}") from None


def read_json(path: AnyPath) -> Any:
    """The data in a JSON file.

    Raises:
        BadInput: it cannot be read, or is not JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(f"{os.fspath(path)}: expected JSON: line {error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # a number of 5000 digits; brackets in brackets in brackets
        raise BadInput(f"{os.fspath(path)}: expected JSON: {reason(error)}") from None


def read_csv(path: AnyPath, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with a header, each after its line number; each has all of these columns.

    Raises:
        BadInput: it cannot be read, or lacks a column.
    """
    text = read_text(path)
    try:
        reader = csv.DictReader(StringIO(text, newline=""), restval="")
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            found = shorten(list(reader.fieldnames or ()))
            raise BadInput(f"{os.fspath(path)}: line 1: expected a column {missing[0]}, found {found}")
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise BadInput(f"{os.fspath(path)}: expected CSV: {error}") from None


def sha256(path: AnyPath) -> str:
    """The checksum of a file.

    Raises:
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(facts: object, arrays: Iterable[tuple[str, NDArray[np.generic]]] = ()) -> str:
    """A checksum of plain data, in which the order of keys plays no part, and of named arrays in their order."""
    total = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for name, array in arrays:
        total.update(f"{name} {array.dtype} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()
