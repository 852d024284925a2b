"""Work on the images of a data set in threads: decoding an image lets other threads run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from maskx_tf.data.dataset import Id, ImageRecord
from maskx_tf.data.problems import Item, Problem, Report, Result, noted


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(function: Callable[[Item, Report], Result], items: Sequence[Item], report: Report) -> Iterator[Result]:
    """Yields a function's result for each item, in order, and reports the problems in the same order."""

    def run(item: Item) -> tuple[Result, list[Problem]]:
        problems: list[Problem] = []
        return function(item, problems.append), problems

    pool = ThreadPoolExecutor(cores())
    try:
        for result, problems in pool.map(run, items):
            for problem in problems:
                report(problem)
            yield result
    finally:  # neither an interrupt nor a problem waits for a hundred thousand images
        pool.shutdown(cancel_futures=True)


def read_records(
    items: Sequence[Item], where: Callable[[Item], str], read: Callable[[Item, Report], ImageRecord], report: Report
) -> tuple[ImageRecord, ...]:
    """The record of each item, in order; what is `Unfit` or repeats an id is reported and left out."""

    def read_one(item: Item, tell: Report) -> ImageRecord | None:
        with noted(tell, where(item)):
            return read(item, tell)
        return None

    records: dict[Id, ImageRecord] = {}
    for record in in_threads(read_one, items, report):
        if record is not None and record.id in records:
            report(Problem("duplicate", str(record.id), "expected one record of an image, found another"))
        elif record is not None:
            records[record.id] = record
    return tuple(records.values())
