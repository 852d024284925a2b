"""Images, instances and packed masks in TFRecord files, and an index for random access.

A folder holds the shards and index.json, which is written last: without it, the folder is not finished. Images are read
in any order, so the index keeps the place of each; and what is read is compared with the checksum in the index.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from maskx_tf import files
from maskx_tf.data.formats import records
from maskx_tf.data.formats.records import Unfit
from maskx_tf.data.pipeline.examples import Examples, fields_with
from maskx_tf.data.pipeline.sample import Sample, as_sample
from maskx_tf.errors import BadInput
from maskx_tf.files import Json, JsonView
from maskx_tf.structures import MASK_SIDE, Field

RECORDS_VERSION = 1
INDEX = "index.json"
MAX_IMAGES = 2**40
# Keys of a shard in the index that hold a number for each of its images.
LISTS = ("offsets", "lengths", "crc32")


def open_records(folder: Path, points: Sequence[Field] = ()) -> Examples:
    """The images in a folder that `maskx data records` wrote.

    Args:
        folder: the folder with the index.
        points: the sets of points of the data set that was written.

    Raises:
        BadInput: it is not finished, or a file is missing or of another size than it was.
    """
    index = read_index(folder)
    paths = [folder / shard["file"] for shard in index["shards"]]
    for path, shard in zip(paths, index["shards"], strict=True):
        found = path.stat().st_size if path.is_file() else None
        if found != shard["bytes"]:
            what = "no such file" if found is None else f"{found} bytes"
            raise BadInput(f"{path}: expected {shard['bytes']} bytes, as {INDEX} says, found {what}")
    shard_of = np.repeat(np.arange(len(paths)), [len(shard["offsets"]) for shard in index["shards"]])
    offsets, lengths, checksums = (
        np.concatenate([np.array(shard[key], np.int64) for shard in index["shards"]] or [np.zeros(0, np.int64)])
        for key in LISTS
    )
    fields = fields_with(points)

    def fetch(place: NDArray[np.int64]) -> NDArray[np.object_]:
        at = int(place)
        data = _read(paths[shard_of[at]], int(offsets[at]), int(lengths[at]), int(checksums[at]))
        return np.array(data, np.object_)  # NumPy's text type would lose zeros at its end

    def read(place: tf.Tensor) -> tuple[tf.Tensor, Sample]:
        return parse(tf.ensure_shape(tf.numpy_function(fetch, [place], tf.string), []), fields)

    return Examples(str(folder), tuple(index["class_names"]), len(offsets), fields, read)


def parse(serialised: tf.Tensor, fields: Sequence[Field]) -> tuple[tf.Tensor, Sample]:
    """Number and Sample of one record, string [], with the fields that it was written with."""
    head = {"image": tf.io.FixedLenFeature([], tf.string), "image_id": tf.io.FixedLenFeature([], tf.int64)}
    found = tf.io.parse_single_example(serialised, head | {field.name: _feature(field) for field in fields})
    values = {field.name: _value(field, found[field.name]) for field in fields}
    return found["image_id"], as_sample(decode(found["image"]), fields, values)


def _feature(field: Field) -> tf.io.FixedLenFeature | tf.io.FixedLenSequenceFeature:
    """How the values of all instances of an image are stored."""
    if field.dtype == "uint8":
        return tf.io.FixedLenFeature([], tf.string)
    dtype = tf.float32 if field.dtype == "float32" else tf.int64
    return tf.io.FixedLenSequenceFeature(field.shape, dtype, allow_missing=True)


def _value(field: Field, stored: tf.Tensor) -> tf.Tensor:
    if field.dtype == "uint8":
        return tf.reshape(tf.io.decode_raw(stored, field.dtype), [-1, *field.shape])
    return tf.cast(stored, field.dtype)


def decode(data: tf.Tensor) -> tf.Tensor:
    """The pixels of a JPEG or PNG file, uint8 [h, w, 3].

    The accurate method is what Pillow uses; TensorFlow's usual one differs by up to 7 of 255.
    """
    return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")


def read_index(folder: Path) -> Json:
    """The index of a folder, checked.

    Raises:
        BadInput: there is none, or it is not what was written.
    """
    path = folder / INDEX
    if folder.is_dir() and not path.is_file():
        raise BadInput(f"{folder}: expected {INDEX}, which maskx data records writes last; start it again to finish")
    index = files.read_json(path)
    try:
        _check(records.mapping(index, INDEX))
    except Unfit as problem:
        raise BadInput(f"{path}: {problem}") from None
    return index


def _check(index: JsonView) -> None:
    for key, expected in (("version", RECORDS_VERSION), ("mask_side", MASK_SIDE)):
        if index.get(key) != expected:
            raise records.unfit(key, f"{expected}: write the records again", index.get(key))
    for _, name in records.entries(index, "class_names"):
        records.as_text(name, "class_names")
    for number, shard in records.entries(index, "shards"):
        check_shard(records.mapping(shard, f"shards[{number}]"))


def check_shard(shard: JsonView) -> None:
    """Raises Unfit unless this is a valid entry of the index for a shard."""
    for key in ("file", "sha256", "fingerprint"):
        records.text(shard, key)
    counts = [records.whole(shard, key, 0, MAX_IMAGES) for key in ("images", "instances", "with_masks", "bytes")]
    for key in LISTS:
        numbers = shard.get(key)
        if not isinstance(numbers, list) or len(numbers) != counts[0] or not all(type(one) is int for one in numbers):
            raise records.unfit(key, f"{counts[0]} whole numbers", numbers)


def _read(path: Path, offset: int, length: int, checksum: int) -> bytes:
    """One record, without the frame of TFRecord, whose own checksum nothing in Python computes fast enough."""
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            data = file.read(length)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(data) != length or zlib.crc32(data) != checksum:
        raise BadInput(
            f"{path}: byte {offset}: expected the record that was written; remove the file and write the records again"
        )
    return data


def remove_leftovers(folder: Path) -> None:
    """Removes unfinished files of a killed process."""
    for path in folder.glob(".records-*"):
        path.unlink(missing_ok=True)
    for path in folder.glob(f".{INDEX}.*"):
        os.unlink(path)
