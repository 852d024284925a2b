"""The images of a job: found once, when the job is planned, and read when their shard runs.

An image is a file, or lies in a file of many: a member of a tar as WebDataset has them, a record of a TFRecord file, or
a row of a Parquet file. The plan stores the place of each image, so that a shard reads only its own images.
"""

from __future__ import annotations

import itertools
import os
import struct
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from maskx_tf.data.paths import check_names
from maskx_tf.errors import BadInput, listed, reason
from maskx_tf.files import open_regular, read_text
from maskx_tf.tasks.batch import arrow
from maskx_tf.tasks.images import SUFFIXES, find_images

LIST, TAR, RECORDS, PARQUET = ".txt", ".tar", ".tfrecord", ".parquet"
FEATURE = "image/encoded"  # key in a TFRecord's example, as in TensorFlow's object detection
FRAME = struct.Struct("<QI")  # before a record: its length, and a checksum of the length
AFTER = 4  # bytes of the record's checksum


class ImagePlace(NamedTuple):
    """Where an image is.

    Attributes:
        key: its name in the job; unique.
        file: the image file, or the file of many that it lies in; absolute.
        first: in a file of many images: its first byte, or its row of Parquet.
        length: in a file of many images: its number of bytes; in Parquet 0.
    """

    key: str
    file: str
    first: int = -1
    length: int = 0

    @property
    def has_own_file(self) -> bool:
        """Whether the file is the image."""
        return self.first < 0


def find(names: Sequence[str], column: str) -> Iterator[ImagePlace]:
    """The images of files, folders, patterns, lists (.txt, a name a line) and files of many, in order.

    Args:
        names: names of files, folders and patterns.
        column: the column of Parquet files that holds the bytes of the images, or structs with the field `bytes`.

    Raises:
        BadInput: a name fits nothing, a file of many cannot be read, or an image is named twice.
    """
    seen: set[str] = set()
    for item in _found(names, column):
        if item.key in seen:
            raise BadInput(f"{item.key}: expected each image once, found it twice")
        check_names([Path(item.key)])
        seen.add(item.key)
        yield item


def _found(names: Sequence[str], column: str) -> Iterator[ImagePlace]:
    for path in find_images(names, any_match=True):
        if path.suffix == LIST:
            for line in filter(None, map(str.strip, read_text(path).split("\n"))):
                yield ImagePlace(Path(line).as_posix(), os.path.abspath(line))
        elif path.suffix == TAR:
            yield from _members(path)
        elif path.suffix == PARQUET:
            for row in range(arrow.row_count(path, column)):
                yield ImagePlace(f"{path.as_posix()}:{row}", os.path.abspath(path), row)
        elif RECORDS in path.name:  # such as train.tfrecord-00003-of-00010
            yield from _records(path)
        elif path.suffix.lower() in SUFFIXES:
            yield ImagePlace(path.as_posix(), os.path.abspath(path))
        else:
            expected = listed([*SUFFIXES, LIST, TAR, RECORDS, PARQUET], most=20)
            raise BadInput(f"{path}: expected one of {expected}")


def _members(path: Path) -> Iterator[ImagePlace]:
    try:
        with open_regular(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            size = os.fstat(file.fileno()).st_size
            for member in tar:
                if not member.isreg() or Path(member.name).suffix.lower() not in SUFFIXES:
                    continue
                if member.offset_data + member.size > size:
                    raise tarfile.ReadError(f"it ends within {member.name}")
                yield ImagePlace(
                    f"{path.as_posix()}/{member.name}", os.path.abspath(path), member.offset_data, member.size
                )
            # Python takes a damaged header for the end. The zeros at the end may be missing, as for other programs.
            file.seek(tar.offset)
            if any(file.read(tarfile.BLOCKSIZE)):
                raise tarfile.ReadError(f"its header at byte {tar.offset} is damaged")
    except (OSError, tarfile.TarError) as error:
        raise BadInput(f"{path}: expected a tar, not compressed: {reason(error)}") from None


def _records(path: Path) -> Iterator[ImagePlace]:
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            at = 0
            for number in itertools.count():
                if at == size:
                    return
                frame = file.read(FRAME.size)
                first = at + FRAME.size
                if len(frame) < FRAME.size or first + (length := FRAME.unpack(frame)[0]) + AFTER > size:
                    raise BadInput(f"{path}: expected TFRecords: record {number} reaches beyond the end of the file")
                yield ImagePlace(f"{path.as_posix()}:{number}", os.path.abspath(path), first, length)
                at = file.seek(first + length + AFTER)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {reason(error)}") from None


def sizes(items: Sequence[ImagePlace]) -> dict[str, int]:
    """Returns the sizes of container files, by which a later change is noticed."""
    files = {item.file for item in items if not item.has_own_file}
    return {file: os.stat(file).st_size for file in sorted(files)}


def contents(items: Sequence[ImagePlace], known: dict[str, int], column: str) -> Iterator[tuple[str, bytes | Path]]:
    """The key of each image, and its path or its bytes.

    Args:
        items: those of a shard, in its order.
        known: see `sizes`.
        column: see `find`.

    Raises:
        BadInput: a file of many cannot be read, or has changed.
    """
    for name, group in itertools.groupby(items, key=lambda item: "" if item.has_own_file else item.file):
        if not name:
            yield from ((item.key, Path(item.file)) for item in group)
            continue
        try:
            yield from _from_one(name, list(group), known[name], column)
        except OSError as error:
            raise BadInput(f"{name}: cannot be read: {reason(error)}") from None


def _from_one(name: str, items: Sequence[ImagePlace], size: int, column: str) -> Iterator[tuple[str, bytes]]:
    with open_regular(name) as file:
        now = os.fstat(file.fileno()).st_size
        if now != size:
            raise BadInput(f"{name}: expected {size} bytes, as when the job was planned, found {now}")
        if name.endswith(PARQUET):
            images = arrow.column_values(file, column, items[0].first, len(items))
            yield from zip((item.key for item in items), images, strict=True)
            return
        for item in items:
            file.seek(item.first)
            data = file.read(item.length)
            yield item.key, data if name.endswith(TAR) else _example_image(data)


def _example_image(data: bytes) -> bytes:
    """The image in a tf.train.Example; no bytes where there is none."""
    import tensorflow as tf

    try:
        values = tf.train.Example.FromString(data).features.feature[FEATURE].bytes_list.value
    except Exception:  # protobuf's error, whose class is in another module in each of its implementations
        return b""
    return values[0] if values else b""
