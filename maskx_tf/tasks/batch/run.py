"""Runs the shards of a job. Each can be run anywhere, any number of times: its rows are the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from maskx_tf.errors import BadInput
from maskx_tf.files import AnyPath, Json, Unwritable, remove_unfinished
from maskx_tf.locks import InUse, locked
from maskx_tf.prediction.engines import MISSING
from maskx_tf.prediction.segmenter import Segmenter
from maskx_tf.tasks.batch import arrow
from maskx_tf.tasks.batch import items as item_ops
from maskx_tf.tasks.batch.boxes import LabelWork
from maskx_tf.tasks.batch.items import ImagePlace
from maskx_tf.tasks.batch.plan import BatchJob, open_job
from maskx_tf.tasks.progress import SILENT, Progress


class Ran(NamedTuple):
    """The result of a run.

    Attributes:
        done: shards that were written.
        before: shards that were done before.
        images: the number of images of the shards that were written.
    """

    done: int
    before: int
    images: int

    def plus(self, job: BatchJob, number: int) -> Ran:
        """This and a shard that was written."""
        return self._replace(done=self.done + 1, images=self.images + job.counts[number])


# Makes the rows of a shard of its images and of the sizes of the files that these lie in.
Work = Callable[[Sequence[ImagePlace], dict[str, int]], Iterator[Json]]


def run(folder: AnyPath, part: tuple[int, int] = (0, 1), progress: Progress = SILENT) -> Ran:
    """Runs the shards of a job that are not done.

    If a shard fails, or another process works on it, the run goes on with the others.

    Args:
        folder: the folder of the job.
        part: i and n: of all shards, those whose number gives i when it is divided by n.
        progress: each image is a step.

    Raises:
        BadInput: the plan or the model cannot be read, the model has changed, or rows cannot be written. After the last
            shard: one failed, or another process still works on it.
    """
    job, waiting, ran = waiting_shards(folder, part)
    work = work_of(job)
    progress.started(sum(job.counts[number] for number in waiting))
    if waiting:
        list(work([], {}))  # opens the model, whose errors are those of all shards
    problems: dict[int, BadInput] = {}
    for number in waiting:
        try:
            if run_shard(job, number, work, progress):
                ran = ran.plus(job, number)
        except Unwritable:  # the next shard is written to the same disk
            raise
        except BadInput as problem:
            if not isinstance(problem, InUse):
                job.check_model()
            progress.say(str(problem))
            problems[number] = problem
    check_done(job, ran, problems)
    return ran


def check_done(job: BatchJob, ran: Ran, problems: Mapping[int, BadInput]) -> None:
    """Raises BadInput at the end of a run if some of the shards with problems are not done."""
    left = [number for number in problems if not job.output(number).exists()]
    if left:
        numbers, first = ", ".join(map(str, left[:10])), problems[left[0]]
        raise BadInput(f"{job.folder}: {ran.done} shards done, {len(left)} not: {numbers}; the first: {first}")


def waiting_shards(folder: AnyPath, part: tuple[int, int]) -> tuple[BatchJob, list[int], Ran]:
    """The job, the shards of a part that are not done, and what a run has done so far; see `run`."""
    arrow.require()
    job = open_job(folder)
    index, of = part
    mine = range(index, len(job.counts), of)
    waiting = [number for number in mine if not job.output(number).exists()]
    if waiting:
        job.check_model()
    return job, waiting, Ran(0, len(mine) - len(waiting), 0)


def work_of(job: BatchJob) -> Work:
    """Returns the function that does a job's work. It can be pickled, and opens the model at its first call."""
    if job.settings.boxes is not None:
        return LabelWork(job.model, job.model_digest, job.settings.boxes, job.settings.steps)
    return SegmentWork(Segmenter(job.model, score=job.settings.score, batch=job.settings.batch), job.settings.column)


@dataclass(frozen=True)
class SegmentWork:
    """Finds objects.

    Attributes:
        segmenter: finds them.
        column: see `items.find`.
    """

    segmenter: Segmenter
    column: str

    def __call__(self, items: Sequence[ImagePlace], sizes: dict[str, int]) -> Iterator[Json]:
        """Yields the rows of these images."""
        return map(arrow.as_record, self.segmenter(item_ops.contents(items, sizes, self.column)))


def run_shard(job: BatchJob, number: int, work: Work, progress: Progress = SILENT) -> bool:
    """Writes the rows of a shard, unless they exist; the file is complete or absent.

    Returns:
        Whether it wrote them.

    Raises:
        InUse: another process works on this shard.
        BadInput: the images cannot be read, the model has changed, or the rows cannot be written.
    """
    output = job.output(number)
    with locked(job.lock(number), f"{job.folder}: shard {number}: expected one that nobody works on") as is_held:
        if output.exists():
            return False
        if is_held:  # or else another process may be writing one of them
            remove_unfinished(output)
        records = _records(job, number, work, progress)
        arrow.write(output, arrow.in_tables(records, job.columns), job.columns, job.id)
    return True


def _records(job: BatchJob, number: int, work: Work, progress: Progress) -> Iterator[Json]:
    """The rows of a shard.

    Raises:
        BadInput: none of its images is there, nor another file in their folder: a disk is not mounted. Or the model has
            changed, such as by further training, after the plan was made or while the shard was running.
    """
    items, sizes = job.inputs(number)
    anything = False
    for record in work(items, sizes):
        anything = anything or not record["status"].startswith(MISSING)
        yield record
        progress.advance()
    boxes = job.settings.boxes
    where = os.path.dirname(items[0].file) if boxes is None else boxes.images
    if not anything and _is_empty(where):
        raise BadInput(f"{job.folder}: shard {number}: expected images, such as in {where}, found none of {len(items)}")
    job.check_model()


def _is_empty(folder: str) -> bool:
    """Whether a folder holds nothing, or cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return True
