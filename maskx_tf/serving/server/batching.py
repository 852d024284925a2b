"""Collects requests into batches for the model, with TF Serving's parameters."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from google.protobuf import text_format  # type: ignore[import-untyped]

from maskx_tf.errors import BadInput
from maskx_tf.protocol.messages import BatchingParameters
from maskx_tf.serving.status import DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNAVAILABLE, ServingError, invalid

Arrays = dict[str, np.ndarray]


class Parameters(NamedTuple):
    """The settings of TF Serving's batching file, under the same names.

    Attributes:
        max_batch_size: rows of a batch.
        batch_timeout_micros: how long the first of a batch waits for others.
        max_enqueued_batches: how many batches may wait; more are refused.
        num_batch_threads: batches that run at a time.
        allowed_batch_sizes: the sizes to which batches are padded, the last one max_batch_size; empty for any size.
        together: whether requests are put together at all; else each is a batch of whatever size.
    """

    max_batch_size: int = 1
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 100
    num_batch_threads: int = 2
    allowed_batch_sizes: tuple[int, ...] = ()
    together: bool = False


def read_parameters(path: Path) -> Parameters:
    """A file for TF Serving's --batching_parameters_file; what it leaves out has TF Serving's defaults.

    Raises:
        BadInput: it cannot be read, or asks for what cannot be.
    """
    try:
        message = text_format.Parse(path.read_text(encoding="utf-8"), BatchingParameters())
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except text_format.ParseError as error:
        raise BadInput(f"{path}: expected batching parameters of TF Serving: line {error}") from None
    if message.pad_variable_length_inputs:
        raise BadInput(f"{path}: expected no pad_variable_length_inputs: images of several sizes need image_bytes")
    values = {"max_batch_size": 1000, "batch_timeout_micros": 0, "max_enqueued_batches": 10, "num_batch_threads": 2}
    values |= {name: getattr(message, name).value for name in values if message.HasField(name)}
    for name, value in values.items():
        if value < (0 if name == "batch_timeout_micros" else 1):
            raise BadInput(f"{path}: {name} is {value}, expected a positive number")
    sizes = tuple(message.allowed_batch_sizes)
    if sizes and (sorted(set(sizes)) != list(sizes) or sizes[0] < 1 or sizes[-1] != values["max_batch_size"]):
        raise BadInput(f"{path}: allowed_batch_sizes are {list(sizes)}, expected ascending ones up to max_batch_size")
    return Parameters(**values, allowed_batch_sizes=sizes, together=True)


class Task:
    """One request on its way through the model.

    Args:
        inputs: arrays of equal first dimension.
        deadline: the deadline on the clock of `time.monotonic`.
    """

    def __init__(self, inputs: Arrays, deadline: float) -> None:
        self.inputs, self.deadline = inputs, deadline
        self.rows = len(next(iter(inputs.values())))
        self.arrival = time.monotonic()
        self.result: Future[Arrays] = Future()

    def cancel(self) -> None:
        """Removes the task from the queue if it still waits, and releases its inputs."""
        if self.result.cancel():
            self.inputs = {}


class Batcher:
    """Threads that make batches of tasks and run them.

    Args:
        run: what is called with a key and the inputs of a batch.
        parameters: the parameters of the batches.
        observe: receives the rows of each batch.
    """

    def __init__(
        self, run: Callable[[Any, Arrays], Arrays], parameters: Parameters, observe: Callable[[int], None]
    ) -> None:
        self._run, self._parameters, self._observe = run, parameters, observe
        self._queues: dict[Hashable, tuple[Any, deque[Task]]] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._threads = [
            threading.Thread(target=self._work, name=f"batch-{number}", daemon=True)
            for number in range(parameters.num_batch_threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, key: Hashable, task: Task, *, always: bool = False) -> None:
        """Puts a task into the queue of its key and of the shapes of its inputs.

        Args:
            key: what the task is run with.
            task: the task to run.
            always: even if the queue is full.

        Raises:
            ServingError: it is too large, the queue is full, or the server is stopping.
        """
        parameters = self._parameters
        if parameters.together and task.rows > parameters.max_batch_size:
            limit = parameters.max_batch_size
            raise invalid(f"a request of {task.rows} rows, expected at most {limit}")
        shapes = tuple((name, array.dtype.str, array.shape[1:]) for name, array in sorted(task.inputs.items()))
        with self._changed:
            if self._closing:
                raise ServingError(UNAVAILABLE, "the server is shutting down")
            limit = parameters.max_enqueued_batches * parameters.max_batch_size
            if not always and self._waiting() + (task.rows if parameters.together else 1) > limit:
                raise ServingError(RESOURCE_EXHAUSTED, f"the queue is full: it holds at most {limit} images")
            self._queues.setdefault((key, shapes), (key, deque()))[1].append(task)
            self._changed.notify()

    def waiting(self) -> int:
        """Returns the number of rows that wait."""
        with self._changed:
            return self._waiting()

    def close(self) -> None:
        """Refuses new tasks, and returns when the accepted ones are done."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _waiting(self) -> int:
        together = self._parameters.together
        return sum(task.rows if together else 1 for _, queue in self._queues.values() for task in queue)

    def _work(self) -> None:
        while self._run_batch():
            pass

    def _run_batch(self) -> bool:
        """Waits for a batch and runs it; False if there will be none. An idle thread holds no request and no model."""
        with self._changed:
            while not (batch := self._take())[1]:
                if self._closing and not self._queues:
                    return False
                self._changed.wait(batch[2])
        key, tasks, _ = batch
        alive = [task for task in tasks if _is_wanted(task)]
        if alive:
            self._answer(key, alive)
        return True

    def _take(self) -> tuple[Any, list[Task], float | None]:
        """A batch that is ready, or none and the seconds until one may be."""
        soonest: float | None = None
        oldest_first = sorted(self._queues.items(), key=lambda item: item[1][1][0].arrival)
        for name, (key, queue) in oldest_first:
            tasks: list[Task] = []
            rows = 0
            for task in queue:
                if tasks and (not self._parameters.together or rows + task.rows > self._parameters.max_batch_size):
                    break
                tasks.append(task)
                rows += task.rows
            left = queue[0].arrival + self._parameters.batch_timeout_micros / 1e6 - time.monotonic()
            is_full = rows >= self._parameters.max_batch_size or len(tasks) < len(queue)
            if is_full or left <= 0 or self._closing:
                for _ in tasks:
                    queue.popleft()
                if not queue:
                    del self._queues[name]
                return key, tasks, None
            soonest = left if soonest is None else min(soonest, left)
        return None, [], soonest

    def _answer(self, key: Any, tasks: list[Task]) -> None:
        rows = [task.rows for task in tasks]
        names = tasks[0].inputs
        try:
            joined = {name: np.concatenate([task.inputs[name] for task in tasks]) for name in names}
            outputs = self._run(key, _padded(joined, sum(rows), self._parameters.allowed_batch_sizes))
            ends = np.cumsum(rows)
            answers = [
                {name: value[end - count : end] for name, value in outputs.items()}
                for end, count in zip(ends, rows, strict=True)
            ]
        except Exception as error:
            if len(tasks) > 1:  # only one of them is the cause, so the others are run again
                for task in tasks:
                    self._answer(key, [task])
            else:
                tasks[0].result.set_exception(error.copy() if isinstance(error, ServingError) else error)
            return
        self._observe(sum(rows))
        for task, answer in zip(tasks, answers, strict=True):
            task.result.set_result(answer)


def _is_wanted(task: Task) -> bool:
    """Whether somebody still waits for the answer; from then on the task cannot be taken back."""
    if not task.result.set_running_or_notify_cancel():
        return False
    if time.monotonic() > task.deadline:
        task.result.set_exception(ServingError(DEADLINE_EXCEEDED, "the deadline passed in the queue"))
        return False
    return True


def _padded(inputs: Arrays, rows: int, allowed: tuple[int, ...]) -> Arrays:
    """The inputs, and their first row again until their number is allowed."""
    missing = next((size for size in allowed if size >= rows), rows) - rows
    if not missing:
        return inputs
    return {name: np.concatenate([value, np.repeat(value[:1], missing, axis=0)]) for name, value in inputs.items()}
