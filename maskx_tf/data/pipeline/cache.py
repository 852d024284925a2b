"""A folder of arrays by key: proposals or features that were computed once and are read in every epoch.

It belongs to what they were computed with. A `fingerprint` of the weights and the configuration says what that was;
with another fingerprint, what the folder holds is worthless, and goes. Nothing here knows a model: it takes arrays, and
callables that make them.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskx_tf.data import files
from maskx_tf.errors import BadInput

MANIFEST = "cache.json"
VERSION = 1
CHECKSUM = 4  # bytes of it, before the arrays
PARSING = threading.Lock()

Arrays = Mapping[str, NDArray[Any]]


def fingerprint(arrays: Iterable[NDArray[Any]], *texts: str) -> str:
    """A checksum of arrays, in their order, and of texts, such as all weights and the configuration."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(repr(text).encode() + b"\n")
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class ArrayCache:
    """Arrays by key, in one file each.

    What no longer fits is not stored, rather than something else removed: training reads all keys in turn, and a cache
    that makes room for the newest would never hold the next.

    Args:
        folder: new, empty, or a cache; one with another fingerprint is emptied.
        fingerprint: of what the arrays are computed with.
        limit_mib: the most that it takes of the disk. It is counted by each process for itself.

    Raises:
        BadInput: the folder holds something else, or cannot be written.
    """

    def __init__(self, folder: Path, fingerprint: str, limit_mib: int) -> None:
        self._folder = folder
        self._left = limit_mib << 20
        self._lock = threading.Lock()
        self._open(fingerprint)
        self._left -= sum(path.stat().st_size for path in folder.glob("*/*.arrays"))

    def get(self, key: int | str) -> dict[str, NDArray[Any]] | None:
        """The arrays of a key, or None if there are none.

        Raises:
            BadInput: their file is damaged.
        """
        path = self._path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
        # A zip file has checksums of its parts, but not of all that stands between them.
        if _checksum(data[CHECKSUM:]) != data[:CHECKSUM]:
            raise BadInput(f"{path}: expected the arrays that were stored for {key!r}, found others; remove the file")
        # One at a time: NumPy reads headers with Python's parser, which in 3.11 fails now and then among threads.
        with PARSING, np.load(io.BytesIO(data[CHECKSUM:]), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}

    def put(self, key: int | str, arrays: Arrays) -> bool:
        """Stores the arrays of a key; one that has some keeps them.

        Returns:
            Whether they are there now; otherwise there was no room.
        """
        for name, array in arrays.items():
            if array.dtype.kind not in "biuf":  # bfloat16 and objects would not come back as what they were
                raise ValueError(f"{name} is {array.dtype}, expected numbers that NumPy knows")
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=False, **arrays)
        data = stream.getvalue()
        path = self._path(key)
        with self._lock:
            if path.exists():
                return True
            if CHECKSUM + len(data) > self._left:
                return False
            try:
                path.parent.mkdir(exist_ok=True)
            except OSError as error:
                raise BadInput(f"{path.parent}: cannot be written: {error.strerror}") from None
            files.write_bytes(path, _checksum(data) + data)
            self._left -= CHECKSUM + len(data)
        return True

    def get_or_make(self, key: int | str, make: Callable[[], Arrays]) -> dict[str, NDArray[Any]]:
        """The arrays of a key; what is not there is made, and stored as far as there is room."""
        found = self.get(key)
        if found is None:
            found = dict(make())
            self.put(key, found)
        return found

    def _open(self, fingerprint: str) -> None:
        """Makes the folder a cache of this fingerprint."""
        folder, manifest = self._folder, self._folder / MANIFEST
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not manifest.exists() and any(folder.iterdir()):
                raise BadInput(f"{folder}: expected a new folder, an empty one, or one with {MANIFEST}")
            if manifest.exists() and files.read_json(manifest) == _manifest(fingerprint):
                return
            for path in folder.glob("*/*.arrays"):
                path.unlink()
        except OSError as error:
            raise BadInput(f"{folder}: cannot be written: {error.strerror}") from None
        # Last, so that a cache which is emptied half-way still has its old fingerprint.
        files.write_bytes(manifest, json.dumps(_manifest(fingerprint)).encode())

    def _path(self, key: int | str) -> Path:
        # Folders of some hundred files each; an int and its text are different keys.
        name = hashlib.sha256(repr(key).encode()).hexdigest()[:32]
        return self._folder / name[:2] / f"{name}.arrays"


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(CHECKSUM, "big")


def _manifest(fingerprint: str) -> dict[str, Any]:
    return {"version": VERSION, "fingerprint": fingerprint}
