"""Writes files and folders that are complete or absent.

A new file or folder gets a temporary name in the same folder, and is renamed when everything is on the disk. If writing
ends earlier (a full disk, an interrupt, an error of the caller), the temporary one is removed.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from maskx_tf import interrupts
from maskx_tf.errors import BadInput, reason
from maskx_tf.files.read import AnyPath, require_regular

# What a disk or its owner objects to; the errors of TensorFlow hold the same words.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)
LONGEST_STEM = 50  # letters of a name that its temporary name repeats; a name has 255 bytes at most


class Unwritable(BadInput):
    """A file or folder that cannot be written.

    Attributes:
        why: what the system says, without the path.
    """

    why = ""


def _unwritable(path: AnyPath, why: str) -> Unwritable:
    error = Unwritable(f"{os.fspath(path)}: cannot be written: {why}")
    error.why = why  # not an argument of the class: pickle hands an exception only its message
    return error


@contextmanager
def new_file(path: AnyPath) -> Iterator[Path]:
    """Yields the temporary name of a file to write, and puts the file in its place after the block.

    Folders above it are made. A file that is there is replaced; a symbolic link stays, and the file that it points to
    is replaced.

    Raises:
        BadInput: it cannot be written, in the block or here.
    """
    with writing(path):
        place = Path(os.path.realpath(path))
        if place.exists():
            require_regular(place.stat().st_mode, path)  # /dev/null must not become a file
        unfinished = _temporary(place)
        with _folders_above(place):
            try:
                yield unfinished
                interrupts.check()
                _sync(unfinished)
                os.replace(unfinished, place)
                _sync(place.parent)
            finally:
                unfinished.unlink(missing_ok=True)


def check_writable(path: AnyPath) -> None:
    """Checks that a file can be written, before the work for it begins; leaves nothing behind.

    Raises:
        Unwritable: it cannot be written.
    """
    with writing(path):
        place = Path(os.path.realpath(path))
        if place.exists():
            require_regular(place.stat().st_mode, path)
        # Missing folders are not made: another command could count on one that would be removed again.
        tempfile.TemporaryFile(dir=next(folder for folder in place.parents if folder.exists())).close()


def make_folder(path: AnyPath) -> None:
    """Makes a folder, and those above it, unless it is there.

    Raises:
        Unwritable: it cannot be made.
    """
    with writing(path):
        os.makedirs(path, exist_ok=True)


def write_bytes(path: AnyPath, data: bytes) -> None:
    """Writes a file; see `new_file`."""
    with new_file(path) as unfinished:
        unfinished.write_bytes(data)


def write_text(path: AnyPath, text: str) -> None:
    """Writes a text file in UTF-8; see `new_file`."""
    write_bytes(path, text.encode())


def write_json(path: AnyPath, value: object, *, indent: int | None = 2) -> None:
    """Writes a JSON file; see `new_file`. Without an indent it is one line without spaces."""
    write_text(path, as_json(value, indent=indent))


def as_json(value: object, *, indent: int | None = 2) -> str:
    """A value as the text of a JSON file."""
    separators = (",", ":") if indent is None else None
    text = json.dumps(value, indent=indent, separators=separators, ensure_ascii=False)
    # Half of a surrogate pair, which JSON can hold and UTF-8 cannot, is escaped.
    return text.encode("utf-8", "backslashreplace").decode() + "\n"


def append(path: AnyPath, data: bytes) -> None:
    """Adds bytes to the end of a file, or of a new one; if that fails, the file has the length that it had.

    Raises:
        BadInput: it cannot be written.
    """
    with writing(path), open(path, "ab", buffering=0) as file:
        length = file.seek(0, os.SEEK_END)
        try:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
        except BaseException:
            file.truncate(length)
            raise


@contextmanager
def new_folder(path: AnyPath, *, replace: bool = False) -> Iterator[Path]:
    """Yields a temporary folder to fill, and puts it in its place after the block; folders above it are made.

    Args:
        path: the folder, which is not there yet, or is empty.
        replace: also take the place of a folder that holds something. At every moment there is the old one, none or
            the new one, never a mixture.

    Raises:
        BadInput: it cannot be written, in the block or here.
    """
    with writing(path):
        place = Path(os.path.realpath(path))
        unfinished = _temporary(place)
        with _folders_above(place):
            try:
                unfinished.mkdir()
                yield unfinished
                interrupts.check()
                for folder, _, names in os.walk(unfinished):
                    for name in names:
                        _sync(Path(folder, name))
                    _sync(Path(folder))
                _put(unfinished, place, replace=replace)
                _sync(place.parent)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)


def _put(unfinished: Path, place: Path, *, replace: bool) -> None:
    """Renames a finished folder; an old one leaves its place first, and returns if the new one cannot take it."""
    if not (replace and place.exists()):
        os.replace(unfinished, place)
        return
    old = _temporary(place)
    try:
        os.replace(place, old)
        os.replace(unfinished, place)
    finally:
        if place.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(old, place)


@contextmanager
def _folders_above(place: Path) -> Iterator[None]:
    """Makes the missing folders above a place for the block, and removes them again unless the block fills them."""
    missing = [folder for folder in place.parents if not folder.exists()]
    try:
        if missing:
            place.parent.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for folder in missing:
            with suppress(OSError):  # one that holds something stays
                folder.rmdir()


@contextmanager
def writing(path: AnyPath) -> Iterator[None]:
    """Explains what the system objects to while the block writes a path.

    Raises:
        Unwritable: there was an OSError, or what TensorFlow raises instead of one.
    """
    if "\0" in os.fspath(path):
        raise _unwritable(path, "a path has no null character")
    try:
        yield
    except Exception as error:
        if isinstance(error, Unwritable):  # of a file in this folder: its temporary name would not help the user
            why = error.why
        elif isinstance(error, OSError):
            why = reason(error)
        elif type(error).__module__.startswith("tensorflow."):
            why = next((words for words in map(os.strerror, DISK) if words in str(error)), "")
        else:
            raise
        if not why:
            raise
        raise _unwritable(path, why) from None


def remove_unfinished(path: AnyPath) -> None:
    """Removes temporary files of killed processes for a file of `new_file`; no process may be writing it now."""
    place = Path(os.path.realpath(path))
    for unfinished in place.parent.glob(f".{glob.escape(place.name[:LONGEST_STEM])}.*"):
        unfinished.unlink(missing_ok=True)


def _temporary(place: Path) -> Path:
    """Returns an unused name in the same folder."""
    if not place.name:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(place))
    return place.with_name(f".{place.name[:LONGEST_STEM]}.{os.getpid()}.{secrets.token_hex(3)}")


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk, where the disk can tell."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # errors of some network disks for folders
            raise
    finally:
        os.close(descriptor)
