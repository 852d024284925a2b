"""Image files in, rows of a table out: for jobs of many images, in any number of processes."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from maskx_tf.prediction.engines import open_engine
from maskx_tf.prediction.rows import ImageRow

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")


@dataclass(frozen=True)
class Segmenter:
    """Finds and segments objects in image files. It may be pickled: each process opens the model when it first asks.

    A file that is no image, or a broken one, gives a row with a status. Files are read and decoded in threads while
    the model computes. Rows do not depend on the machine's threads, but may depend in the last bits on which images
    share a batch.

    Attributes:
        model: a run, checkpoint or model folder, or one version of an exported SavedModel.
        score: the least score of detections; None for the model's own threshold, below which an export has none.
        batch: images that are computed at a time; None for as many as suit the model's canvas.
    """

    model: str | os.PathLike[str]
    score: float | None = None
    batch: int | None = None

    def __call__(self, images: Iterable[tuple[str, bytes | Path]]) -> Iterator[ImageRow]:
        """Yields a row for each image, in order. A few batches are in memory at a time.

        Args:
            images: a key and the bytes of an image file, or its path, for each image.

        Raises:
            BadInput: the model cannot be opened, or a disk fails.
        """
        engine = open_engine(self.model, self.score)
        size = self.batch or engine.batch
        readers, computers = ThreadPoolExecutor(), ThreadPoolExecutor(engine.streams)
        try:
            read = _ahead(readers, engine.read, images, 2 * size)
            answers = _ahead(computers, engine.compute, _in_batches(read, size), engine.streams)
            for batch in answers:  # masks are pasted here, while the next batch is computed
                yield from (answer.row(self.score or 0.0) for answer in batch)
        finally:
            for pool in (readers, computers):
                pool.shutdown(cancel_futures=True)


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[InputT], OutputT], items: Iterable[InputT], depth: int
) -> Iterator[OutputT]:
    """Yields a function's results in order, while the pool works on the next so many."""
    waiting: deque[Future[OutputT]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _in_batches(items: Iterable[InputT], size: int) -> Iterator[list[InputT]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
