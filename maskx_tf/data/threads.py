"""Work on the images of a data set in threads: decoding an image lets other threads run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from maskx_tf.data.problems import Problem, Report

Item = TypeVar("Item")
Result = TypeVar("Result")


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
