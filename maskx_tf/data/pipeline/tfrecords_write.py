"""Writes the TFRecord files that `data.pipeline.tfrecords` reads, in several processes; a second call continues."""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from maskx_tf import files
from maskx_tf.data.dataset import Dataset, MaskFile
from maskx_tf.data.formats import records
from maskx_tf.data.formats.records import Unfit
from maskx_tf.data.pipeline import tfrecords
from maskx_tf.data.pipeline.examples import (
    Examples,
    InstanceArrays,
    fields_with,
    image_numbers,
    instance_arrays,
    pixels,
)
from maskx_tf.data.pipeline.tfrecords import INDEX, LISTS, RECORDS_VERSION
from maskx_tf.data.pipeline.workers import in_processes, nothing
from maskx_tf.errors import BadInput
from maskx_tf.files import Json
from maskx_tf.structures import MASK_SIDE, Field

PER_SHARD = 500  # images: about 80 MB of usual photos
RECORD_HEAD, RECORD_FOOT = 12, 4  # bytes around a record: its length and that number's checksum; its own checksum


class _ShardTask(NamedTuple):
    """One shard: where it goes, what it holds, the points of the whole data set, and a checksum of all that."""

    path: Path
    dataset: Dataset
    numbers: tuple[int, ...]
    points: tuple[Field, ...]
    fingerprint: str


def write(
    dataset: Dataset,
    out: Path,
    *,
    per_shard: int = PER_SHARD,
    workers: int = 1,
    started: Callable[[int], None] = lambda images: None,
    advance: Callable[[], None] = nothing,
    prepare: Callable[[], None] = nothing,
) -> Json:
    """Writes a data set, or what is still missing of it.

    Args:
        dataset: the data set that `readers.for_training` returns: masks that training may not see are not written.
        out: a new folder, an empty one, or one in which the same call was interrupted.
        per_shard: images a file.
        workers: processes; the files do not depend on it.
        started: is called with the number of images.
        advance: is called after each image.
        prepare: is called first in each process.

    Returns:
        How many images, instances, masks, shards and bytes there are, and how many shards were there before.

    Raises:
        BadInput: an image or mask cannot be read, or the folder holds something else.
    """
    if not dataset.images:
        raise BadInput(f"{dataset.name}: expected images to write, found none")
    tasks = _tasks(dataset, out, per_shard)
    started(len(dataset.images))
    kept = _kept(out, tasks)
    for shard in kept.values():
        for _ in range(shard["images"]):
            advance()
    missing = [task for task in tasks if task.path.name not in kept]
    if missing:
        # A folder without an index is not finished.
        for name, shard in kept.items():
            files.write_json(_piece(out / name), shard, indent=None)
        (out / INDEX).unlink(missing_ok=True)
        written = in_processes(_write_shard, missing, min(workers, len(missing)), advance=advance, prepare=prepare)
        kept |= {shard["file"]: shard for shard in written}
    shards = [kept[task.path.name] for task in tasks]
    totals = {key: sum(shard[key] for shard in shards) for key in ("images", "instances", "with_masks", "bytes")}
    index = {
        "version": RECORDS_VERSION,
        "name": dataset.name,
        "mask_side": MASK_SIDE,
        "class_names": dataset.class_names,
        "category_ids": dataset.category_ids,
        **totals,
        "shards": shards,
    }
    files.write_json(out / INDEX, index, indent=None)
    for task in tasks:
        _piece(task.path).unlink(missing_ok=True)
    return {"out": str(out), **totals, "shards": len(shards), "shards_kept": len(shards) - len(missing)}


def open_written(dataset: Dataset, folder: Path) -> Examples:
    """The records of this very data set: the same images in the same order, with the same masks.

    Raises:
        BadInput: they are of another one, or as `tfrecords.open_records` does.
    """
    shards = tfrecords.read_index(folder)["shards"]
    tasks = _tasks(dataset, folder, max((shard["images"] for shard in shards), default=PER_SHARD))
    if [task.fingerprint for task in tasks] != [shard["fingerprint"] for shard in shards]:
        what = f"expected records of {dataset.name} as it is now, with the same classes and the same masks"
        raise BadInput(f"{folder}: {what}, found others; write them again")
    return tfrecords.open_records(folder, dataset.points)


def _tasks(dataset: Dataset, out: Path, per_shard: int) -> list[_ShardTask]:
    numbers = image_numbers(dataset)
    points = tuple(field._replace(mirror=()) for field in dataset.points)  # reading, not writing, depends on the mirror
    starts = range(0, len(numbers), per_shard)
    tasks = []
    for place, start in enumerate(starts):
        part = dataset._replace(images=dataset.images[start : start + per_shard])
        own = tuple(numbers[start : start + per_shard])
        path = out / f"records-{place:05d}-of-{len(starts):05d}.tfrecord"
        tasks.append(_ShardTask(path, part, own, points, _fingerprint(part, own, points)))
    return tasks


def _fingerprint(dataset: Dataset, numbers: tuple[int, ...], points: tuple[Field, ...]) -> str:
    """A checksum of all that decides what stands in a shard, but for the pixels of the images."""
    digest = hashlib.sha256()

    def add(*values: object) -> None:
        digest.update(repr(values).encode() + b"\n")

    add(RECORDS_VERSION, MASK_SIDE, dataset.class_names, dataset.category_ids, *points)
    for number, image in zip(numbers, dataset.images, strict=True):
        file = hashlib.sha256(image.file).hexdigest() if isinstance(image.file, bytes) else str(image.file)
        add(number, file, image.width, image.height)
        for one in image.instances:
            add(one.box, one.label, one.crowd)
            for known in (one.keypoints, one.clicks):
                if known is not None:
                    digest.update(known.tobytes())
            form = one.segmentation
            if isinstance(form, tuple):
                for polygon in form:
                    digest.update(polygon.tobytes())
            add(str(form.path) if isinstance(form, MaskFile) else form if isinstance(form, dict) else form is None)
    return digest.hexdigest()


def _kept(out: Path, tasks: list[_ShardTask]) -> dict[str, Json]:
    """Returns the shards that an earlier call finished, by file name; makes the folder if it is missing.

    Raises:
        BadInput: the folder holds something else.
    """
    files.make_folder(out)
    with files.writing(out):
        present = sorted(path.name for path in out.iterdir())
    tfrecords.remove_leftovers(out)
    expected = {task.path.name: task.fingerprint for task in tasks}
    known = {INDEX, *expected, *(_piece(task.path).name for task in tasks)}
    foreign = next((name for name in present if name not in known and not name.startswith(".")), None)
    if foreign is not None:
        raise BadInput(f"{out}: expected a new folder, or one with a part of these records, found {foreign} in it")
    kept = {}
    for shard in _finished(out, present):
        if expected.get(shard["file"]) != shard["fingerprint"]:
            raise BadInput(f"{out}: expected a new folder, or one with a part of these records, found others")
        path = out / shard["file"]
        if path.is_file() and path.stat().st_size == shard["bytes"] and files.sha256(path) == shard["sha256"]:
            kept[path.name] = shard
    return kept


def _finished(out: Path, present: list[str]) -> Iterator[Json]:
    """Yields the facts of each finished shard, from the index or, without one, from the file next to each shard."""
    if INDEX in present:
        yield from tfrecords.read_index(out)["shards"]
        return
    for name in present:
        if name.startswith("records-") and name.endswith(".json"):
            shard = files.read_json(out / name)
            try:
                tfrecords.check_shard(records.mapping(shard, name))
            except Unfit as problem:
                raise BadInput(f"{out / name}: {problem}; remove the file") from None
            yield shard


def _write_shard(task: _ShardTask, step: Callable[[], None]) -> Json:
    """Writes one shard and what the index is to say of it."""
    totals = dict.fromkeys(("images", "instances", "with_masks", "bytes"), 0)
    lists: dict[str, list[int]] = {key: [] for key in LISTS}
    fields = fields_with(task.points)
    with files.new_file(task.path) as unfinished:
        with tf.io.TFRecordWriter(str(unfinished)) as writer:
            for place, number in enumerate(task.numbers):
                found = instance_arrays(task.dataset, place, task.points)
                record = _serialised(number, _encoded(task.dataset, place), fields, found)
                writer.write(record)
                lists["offsets"].append(totals["bytes"] + RECORD_HEAD)
                lists["lengths"].append(len(record))
                lists["crc32"].append(zlib.crc32(record))
                totals["images"] += 1
                totals["instances"] += len(found["boxes"])
                totals["with_masks"] += int(found["has_mask"].sum())
                totals["bytes"] += RECORD_HEAD + len(record) + RECORD_FOOT
                step()
        checksum = files.sha256(unfinished)
    shard = {"file": task.path.name, **totals, "sha256": checksum, "fingerprint": task.fingerprint, **lists}
    files.write_json(_piece(task.path), shard, indent=None)
    return shard


def _serialised(number: int, image: bytes, fields: Iterable[Field], found: InstanceArrays) -> bytes:
    def whole(values: ArrayLike) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=np.ravel(values).astype(np.int64)))

    def data(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    feature = {"image": data(image), "image_id": whole(number)}
    for field in fields:
        values = found[field.name]
        if field.dtype == "uint8":
            feature[field.name] = data(values.tobytes())
        elif field.dtype == "float32":
            feature[field.name] = tf.train.Feature(float_list=tf.train.FloatList(value=values.ravel()))
        else:
            feature[field.name] = whole(values)
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString(deterministic=True)


def _encoded(dataset: Dataset, place: int) -> bytes:
    """The file of an image where TensorFlow decodes it to the pixels that we see, otherwise a PNG file of those."""
    record = dataset.images[place]
    seen = pixels(dataset, place)
    data = record.file if isinstance(record.file, bytes) else record.file.read_bytes()
    if _is_decoded_to(data, seen):
        return data
    stream = io.BytesIO()
    Image.fromarray(seen).save(stream, format="PNG")
    return stream.getvalue()


def _is_decoded_to(data: bytes, seen: NDArray[np.uint8]) -> bool:
    try:
        return np.array_equal(np.asarray(tfrecords.decode(data)), seen)
    except tf.errors.InvalidArgumentError:  # a type that it does not know
        return False


def _piece(path: Path) -> Path:
    """Where the part of the index stands that belongs to a shard, until the index is written."""
    return path.with_suffix(".json")
