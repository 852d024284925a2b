"""Counts the results of a job's shards, and merges them into one file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from maskx_tf.errors import BadInput
from maskx_tf.files import AnyPath, Json, as_json, new_file
from maskx_tf.masks.results import coco_entry
from maskx_tf.tasks.batch import arrow
from maskx_tf.tasks.batch.plan import BatchJob, open_job
from maskx_tf.tasks.images import image_ids

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET_FILE, COCO_FILE = ".parquet", ".json"


class Status(NamedTuple):
    """How far a job is.

    Attributes:
        shards: the number of shards of the plan.
        missing: the numbers of those that are not done.
        images: the number of images of the plan.
        rows: images of the shards that are done, by the first word of their status, such as ok or broken.
    """

    shards: int
    missing: list[int]
    images: int
    rows: dict[str, int]


def status(folder: AnyPath) -> Status:
    """How far a job is.

    Raises:
        BadInput: its plan or its rows cannot be read.
    """
    arrow.require()
    job = open_job(folder)
    missing = job.missing
    words: Counter[str] = Counter()
    for number in sorted(set(range(len(job.counts))) - set(missing)):
        column = arrow.read(job.output(number), job.id, ["status"]).column("status")
        words.update(text.partition(":")[0] for text in column.to_pylist())
    return Status(len(job.counts), missing, sum(job.counts), dict(sorted(words.items())))


class Merged(NamedTuple):
    """The result of a merge.

    Attributes:
        images: how many rows, each of another image.
        detections: the number of detections in all images.
        unread: images that could not be read.
    """

    images: int
    detections: int
    unread: int


def merge(folder: AnyPath, out: Path) -> Merged:
    """Writes the rows of all shards, in the order of the plan, to one file.

    The rows of one shard are in memory at a time; for COCO's results, whose ids are numbers, all names of images, too.

    Args:
        folder: the folder of the job.
        out: a .parquet file of the rows, or a .json file of COCO's results.

    Raises:
        BadInput: a shard is not done, does not have the images of the plan, or the file cannot be written.
    """
    arrow.require()
    job = open_job(folder)
    if out.suffix not in (PARQUET_FILE, COCO_FILE):
        raise BadInput(f"{out}: expected a file {PARQUET_FILE} for rows, or {COCO_FILE} for COCO's results")
    if out.suffix == COCO_FILE and job.settings.boxes is not None:
        raise BadInput(f"{folder}: expected a job that finds objects; maskx label --job writes the file of this one")
    tally = _Tally()
    tables = (tally.counted(table) for table in tables_of(job))
    if out.suffix == PARQUET_FILE:
        arrow.write(out, tables, job.columns, job.id)
    else:
        _write_coco(out, job, tables)
    return Merged(tally.images, tally.detections, tally.unread)


class _Tally:
    """Counts the rows that pass through."""

    images = detections = unread = 0

    def counted(self, table: pa.Table) -> pa.Table:
        lengths = table.column("scores").to_pylist()
        self.images += len(lengths)
        self.detections += sum(map(len, lengths))
        self.unread += sum(text != "ok" for text in table.column("status").to_pylist())
        return table


def tables_of(job: BatchJob) -> Iterator[pa.Table]:
    """The rows of each shard.

    Raises:
        BadInput: one is not done, or does not have the images of the plan.
    """
    missing = job.missing
    if missing:
        numbers = ", ".join(map(str, missing[:10]))
        raise BadInput(f"{job.folder}: expected all {len(job.counts)} shards, {len(missing)} are not done: {numbers}")
    for number in range(len(job.counts)):
        table = arrow.read(job.output(number), job.id)
        keys = [item.key for item in job.inputs(number)[0]]
        if table.column("key").to_pylist() != keys:
            raise BadInput(
                f"{job.output(number)}: expected the {len(keys)} images of shard {number}, each once, in order"
            )
        yield table


def _write_coco(out: Path, job: BatchJob, tables: Iterator[pa.Table]) -> None:
    keys = [Path(item.key) for number in range(len(job.counts)) for item in job.inputs(number)[0]]
    numbers = image_ids(keys)
    with new_file(out) as unfinished, open(unfinished, "w", encoding="utf-8") as file:
        before = "["
        for table in tables:
            for row in table.to_pylist():
                for entry in _results(row, numbers[Path(row["key"])]):
                    file.write(before + as_json(entry, indent=None).rstrip("\n"))
                    before = ",\n"
        file.write("[]\n" if before == "[" else "]\n")


def _results(row: Json, image_id: int) -> Iterator[Json]:
    """COCO's results of a row, each with the key of the image."""
    none = [None] * len(row["scores"])
    lists = (row["boxes"], row["scores"], row["classes"], row["masks"] or none, row["keypoints"] or none)
    for box, score, number, counts, numbers in zip(*lists, strict=True):
        rle = None if counts is None else {"size": [row["height"], row["width"]], "counts": counts}
        points = None if numbers is None else np.reshape(numbers, [-1, 3])
        yield {"image_id": image_id, **coco_entry(number, box, score, rle, points), "file_name": row["key"]}
