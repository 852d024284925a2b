"""Runs the shards of a job on a Ray cluster, whose nodes may die.

Each actor holds the model and works on one shard at a time, which it writes to the job's folder itself. The driver
gives a shard whose actor died to another one. So only numbers of shards are sent, and memory is bounded by what each
actor needs for its batches.
"""

from __future__ import annotations

import socket
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maskx_tf.errors import BadInput, reason
from maskx_tf.files import AnyPath, Unwritable
from maskx_tf.locks import InUse
from maskx_tf.tasks.batch.plan import BatchJob
from maskx_tf.tasks.batch.run import Ran, Work, check_done, run_shard, waiting_shards, work_of
from maskx_tf.tasks.progress import SILENT, Progress

if TYPE_CHECKING:
    import ray

TRIES_OF_A_SHARD = 5  # attempts for a shard, and for the start of an actor
STARTING = -1  # in place of the number of a shard
SECONDS_FOR_AN_ANSWER = 10
SECONDS_FOR_A_LOCK = 60  # a process on a node that died may hold its shard a little longer


ShardAnswer = tuple[bool, BadInput | None]  # whether a shard was written, and what went wrong


@dataclass(frozen=True)
class RayOptions:
    """Where and how actors run.

    Attributes:
        address: the address of the cluster, as `ray.init` takes it; None for a cluster on this machine alone.
        actors: how many at most; None for as many as the cluster has room for when the run starts.
        cpus: the number of processors of each actor.
        gpus: the number of GPUs of each actor; a half lets two share one.
    """

    address: str | None = None
    actors: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0


class _Worker:
    """An actor that runs shards."""

    def __init__(self, job: BatchJob, work: Work) -> None:
        self._job, self._work = job, work

    def start(self) -> ShardAnswer:
        """Opens the model, whose errors are those of all shards."""
        try:
            list(self._work([], {}))
        except BadInput as problem:
            return False, problem
        return False, None

    def run(self, number: int) -> ShardAnswer:
        """Writes a shard, unless it is there."""
        until = time.monotonic() + SECONDS_FOR_A_LOCK
        while True:
            try:
                return run_shard(self._job, number, self._work), None
            except InUse as problem:
                if time.monotonic() > until:
                    return False, problem
                time.sleep(1.0)
            except BadInput as problem:  # which is returned: Ray would add the traceback of another machine
                return False, problem


def run_on_ray(folder: AnyPath, part: tuple[int, int], options: RayOptions, progress: Progress = SILENT) -> Ran:
    """Runs the shards of a job that are not done on the actors of a cluster.

    All nodes see the job, the model and the images under the same paths. A node may die, and others may join. If a
    shard fails several times, the run goes on with the others.

    Args:
        folder: the folder of the job.
        part: see `run.run`.
        options: the options of the cluster.
        progress: each image is a step.

    Raises:
        BadInput: as `run.run` raises it; or Ray is not installed, not reached, or without room for an actor.
    """
    job, waiting, ran = waiting_shards(folder, part)
    if not waiting:
        return ran
    progress.started(sum(job.counts[number] for number in waiting))
    problems: dict[int, BadInput] = {}
    with _cluster(options) as (kind, room):
        pool = _Pool(kind, (job, work_of(job)), min(options.actors or room, len(waiting)))
        for number, (wrote, problem) in pool.finish(waiting):
            if problem is not None:
                progress.say(str(problem))
                problems[number] = problem
                continue
            if wrote:
                ran = ran.plus(job, number)
            for _ in range(job.counts[number]):
                progress.advance()
    check_done(job, ran, problems)
    return ran


@contextmanager
def _cluster(options: RayOptions) -> Iterator[tuple[Any, int]]:
    """Connects to a cluster: gives the class of its actors, and for how many there is room."""
    try:
        import ray
    except ImportError:
        raise BadInput("--engine ray: expected the package ray: pip install 'maskx_tf[ray]'") from None
    address = options.address or "local"  # None would join a cluster that RAY_ADDRESS or a file in /tmp names
    _check_address(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise BadInput(f"--address {address}: expected a Ray cluster: {' '.join(str(error).split())}") from None
    try:
        resources = ray.cluster_resources()
        room = [
            int(resources.get(name, 0) // each) for name, each in (("CPU", options.cpus), ("GPU", options.gpus)) if each
        ]
        if not min(room, default=1):
            wanted = f"{options.cpus:g} CPUs and {options.gpus:g} GPUs"
            raise BadInput(f"--engine ray: expected a cluster with room for an actor of {wanted}, found none")
        yield ray.remote(num_cpus=options.cpus, num_gpus=options.gpus)(_Worker), min(room, default=1)
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Raises BadInput if nobody answers at HOST:PORT: Ray itself would go on asking for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), SECONDS_FOR_AN_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise BadInput(f"--address {address}: expected a Ray cluster: {reason(error)}") from None


class _Pool:
    """Actors, each of which works on one shard at a time.

    Args:
        kind: the class of the actors.
        arguments: the arguments of a new one.
        count: how many.
    """

    def __init__(self, kind: Any, arguments: tuple[BatchJob, Work], count: int) -> None:
        self._kind, self._arguments = kind, arguments
        # For each pending answer, its actor and the number of its shard.
        self._coming: dict[ray.ObjectRef, tuple[Any, int]] = {}
        for _ in range(count):
            self._hire()

    def _hire(self) -> None:
        """Asks for an actor. It starts when a node has room for it, which may be never."""
        actor = self._kind.remote(*self._arguments)
        self._coming[actor.start.remote()] = actor, STARTING

    def finish(self, numbers: list[int]) -> Iterator[tuple[int, ShardAnswer]]:
        """Yields each shard's number and last answer, as soon as it is done or has failed several times.

        Raises:
            BadInput: no actor starts or can open the model, the model has changed, or rows cannot be written after
                several tries.
        """
        import ray

        waiting, idle, tries, left = deque(numbers), deque[Any](), Counter[int](), set(numbers)
        while left:
            while waiting and idle:
                actor, number = idle.popleft(), waiting.popleft()
                self._coming[actor.run.remote(number)] = actor, number
            [answer], _ = ray.wait(list(self._coming), num_returns=1)
            actor, of = self._coming.pop(answer)
            try:
                wrote, problem = ray.get(answer)
                fit = of != STARTING or problem is None
            # Its node died, or the memory of the node was full, which has an exception outside of RayActorError.
            except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:
                wrote, problem = False, BadInput(f"an actor ended: {reason(error)}")
                fit = False
            if fit:
                idle.append(actor)
            else:
                del actor  # Ray ends it then, and the next one may need its place
                self._hire()
            if problem is None:
                tries[of] = 0
            else:
                self._arguments[0].check_model()  # a model that has changed fails every shard
                tries[of] += 1
                if tries[of] < TRIES_OF_A_SHARD:
                    if of != STARTING:
                        waiting.append(of)
                    continue
                if of == STARTING or isinstance(problem, Unwritable):  # which other shards would meet as well
                    raise problem
            if of != STARTING:
                left.remove(of)
                yield of, (wrote, problem)
