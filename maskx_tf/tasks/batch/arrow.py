"""Parquet files: those that images come from, and those that rows of results go to. pyarrow is imported when needed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from maskx_tf.errors import BadInput, listed, reason
from maskx_tf.files import Json, new_file

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from maskx_tf.prediction.rows import ImageRow

ROWS_AT_A_TIME = 256
PLAN = b"maskx_plan"  # key of the metadata of a file of rows


def require() -> None:
    """Raises BadInput if pyarrow is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise BadInput("batch jobs: expected the package pyarrow: pip install 'maskx_tf[batch]'") from None


def _opened(source: Path | BinaryIO) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(source)
    except (OSError, pa.ArrowException) as error:
        name = source if isinstance(source, Path) else source.name
        raise BadInput(f"{name}: expected a Parquet file: {reason(error)}") from None


# Images


def row_count(path: Path, column: str) -> int:
    """How many rows a file has whose column holds images.

    Raises:
        BadInput: it cannot be read, or has no such column.
    """
    require()
    with _opened(path) as file:
        names = file.schema_arrow.names
        if column not in names:
            raise BadInput(f"{path}: expected a column {column}, found {listed(names)}")
        return int(file.metadata.num_rows)


def column_values(source: BinaryIO, column: str, first: int, count: int) -> Iterator[bytes]:
    """The images of rows of a file, a few rows in memory at a time; no bytes where a row has none.

    Raises:
        BadInput: they cannot be read.
    """
    import pyarrow as pa

    with _opened(source) as file:
        lengths = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        ends = list(itertools.accumulate(lengths))
        groups = [group for group, end in enumerate(ends) if end > first and end - lengths[group] < first + count]
        skipped = first - ends[groups[0]] + lengths[groups[0]] if groups else 0
        try:
            batches = file.iter_batches(ROWS_AT_A_TIME, groups, [column])
            values = itertools.chain.from_iterable(batch.column(0) for batch in batches)
            for value in itertools.islice(values, skipped, skipped + count):
                yield _bytes_of(value.as_py())
        except (OSError, pa.ArrowException) as error:
            raise BadInput(f"{source.name}: cannot be read: {reason(error)}") from None


def _bytes_of(value: Any) -> bytes:
    inner = value.get("bytes") if isinstance(value, dict) else value
    return inner if isinstance(inner, bytes) else b""


# Rows of results


def schema(with_annotations: bool = False) -> pa.Schema:
    """The columns of rows of detections: those of `prediction.rows.ImageRow`.

    In a labelling job, boxes are the given ones, scores the qualities of the masks, annotations the ids of the boxes as
    JSON, and mask_source the name of the model; the mask of a box that got none is null. Masks are the text of COCO's
    run lengths of an image of this height and width. Keypoints are x, y and a score, one after the other.
    """
    import pyarrow as pa

    columns = pa.schema(
        {
            "key": pa.string(),
            "status": pa.string(),
            "height": pa.int32(),
            "width": pa.int32(),
            "boxes": pa.list_(pa.list_(pa.float32(), 4)),
            "scores": pa.list_(pa.float32()),
            "classes": pa.list_(pa.int64()),
            "names": pa.list_(pa.string()),
            "masks": pa.list_(pa.string()),
            "keypoints": pa.list_(pa.list_(pa.float32())),
        }
    )
    if with_annotations:
        columns = columns.append(pa.field("annotations", pa.list_(pa.string())))
        columns = columns.append(pa.field("mask_source", pa.string()))
    return columns


def as_record(row: ImageRow) -> Json:
    """A row as its columns have it."""
    points = row.keypoints
    return {
        **row._asdict(),
        "boxes": row.boxes.tolist(),
        "scores": row.scores.tolist(),
        "classes": row.classes.tolist(),
        "masks": None if row.masks is None else [mask["counts"] for mask in row.masks],
        "keypoints": None if points is None else [one.ravel().tolist() for one in points],
    }


def in_tables(records: Iterable[Json], columns: pa.Schema) -> Iterator[pa.Table]:
    """The records in tables of a few rows, which become row groups."""
    import pyarrow as pa

    iterator = iter(records)
    while some := list(itertools.islice(iterator, ROWS_AT_A_TIME)):
        yield pa.Table.from_pylist(some, columns)


def write(path: Path, tables: Iterable[pa.Table], columns: pa.Schema, plan: str) -> None:
    """Writes a file of rows, whole or not at all; one table is in memory at a time.

    Args:
        path: the file.
        tables: the rows.
        columns: the columns of the tables.
        plan: the id of the plan.

    Raises:
        BadInput: it cannot be written.
    """
    import pyarrow.parquet as pq

    with (
        new_file(path) as unfinished,
        open(unfinished, "wb") as file,  # whose errors have the system's words, unlike those of pyarrow's own files
        pq.ParquetWriter(file, columns.with_metadata({PLAN: plan}), compression="zstd") as writer,
    ):
        for table in tables:
            writer.write_table(table.cast(writer.schema))


def read(path: Path, plan: str, names: list[str] | None = None) -> pa.Table:
    """The rows of a file of this plan.

    Args:
        path: the file.
        plan: see `write`.
        names: the columns; all unless given.

    Raises:
        BadInput: it cannot be read, or belongs to another plan.
    """
    import pyarrow as pa

    with _opened(path) as file:
        found = (file.schema_arrow.metadata or {}).get(PLAN, b"").decode()
        if found != plan:
            raise BadInput(f"{path}: expected rows of the plan {plan}, found {found or 'none'}")
        try:
            return file.read(names)
        except (OSError, pa.ArrowException) as error:
            raise BadInput(f"{path}: cannot be read: {reason(error)}") from None
