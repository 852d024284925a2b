"""Work in several processes, with progress; all stop as soon as one of them fails or the user interrupts.

This file imports no TensorFlow: a new process reads it first, and may then import TensorFlow in the caller's way.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from maskx_tf.errors import BadInput
from maskx_tf.files import Json

POLL = 0.2  # seconds from one look at the progress to the next

Job = TypeVar("Job")
Made = TypeVar("Made")


class _Stopped(Exception):
    """Another process failed, or the user stopped the program."""


def nothing() -> None:
    """Does nothing."""


def in_processes(
    function: Callable[[Job, Callable[[], None]], Made],
    tasks: Sequence[Job],
    workers: int,
    *,
    advance: Callable[[], None] = nothing,
    prepare: Callable[[], None] = nothing,
) -> list[Made]:
    """Returns the results of a function for the tasks, in order, computed in several processes.

    Args:
        function: a function of a module's top level, so that it can be pickled. It receives the task, and a function to
            call after each piece of work.
        tasks: the arguments of the calls.
        workers: the number of processes; with one, everything runs in this process.
        advance: called in this process for each piece of work.
        prepare: called first in each process.

    Raises:
        BadInput: a process was killed; or whatever the function raises.
    """
    if workers == 1:
        return [function(task, advance) for task in tasks]
    # Fresh processes: a fork of one that has threads may hang, and one of a process with TensorFlow does.
    context = multiprocessing.get_context("spawn")
    count, stop = context.Value("q"), context.Event()
    pool = ProcessPoolExecutor(workers, context, _enter, (count, stop, prepare))
    try:
        with _interrupts_held():
            futures = [pool.submit(_run, function, task) for task in tasks]
        waiting, seen = set(futures), 0
        while waiting:
            done, waiting = wait(waiting, POLL, FIRST_EXCEPTION)
            for _ in range(count.value - seen):
                advance()
                seen += 1
            for future in done:
                future.result()
        return [future.result() for future in futures]
    except BrokenProcessPool:
        raise BadInput("a worker process was killed, perhaps for lack of memory; expected fewer --workers") from None
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Makes Ctrl-C wait for the end of the block. Processes that start in it never see it: the parent stops them."""
    is_main = threading.current_thread() is threading.main_thread()  # no other may set handlers
    noted: list[int] = []
    # The mask is that of this thread. If another receives the signal, Python still calls the handler in the main one.
    before = signal.signal(signal.SIGINT, lambda number, _: noted.append(number)) if is_main else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which the processes inherit
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if is_main:
            signal.signal(signal.SIGINT, before)
    if noted:
        signal.raise_signal(signal.SIGINT)


def _enter(count: Any, stop: Any, prepare: Callable[[], None]) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # TensorFlow would take the whole memory of every device
    _shared["count"], _shared["stop"] = count, stop
    prepare()


_shared: Json = {}  # what the parent gave to this process


def _run(function: Callable[[Job, Callable[[], None]], Made], task: Job) -> Made:
    return function(task, _step)


def _step() -> None:
    with _shared["count"].get_lock():
        _shared["count"].value += 1
    if _shared["stop"].is_set():
        raise _Stopped
