"""Answers requests of both ports: checks them, cuts them into slices, runs them, and counts them."""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as NotInTime
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from maskx_tf.protocol import messages
from maskx_tf.protocol.messages import SERVING_DEFAULT
from maskx_tf.serving import status as codes
from maskx_tf.serving.server.batching import Arrays, Batcher, Parameters, Task
from maskx_tf.serving.server.budget import Budget
from maskx_tf.serving.server.metrics import ServerMetrics
from maskx_tf.serving.server.versions import Version, Versions
from maskx_tf.serving.status import ServingError, invalid, quoted, result, too_large

LONGEST_WAIT = 3600.0  # seconds, for a request without a deadline; gRPC then says some centuries
ASSERTION = re.compile(r"assertion failed: \[(.*?)\]")
log = logging.getLogger("maskx.serving")
OnTask = Callable[[Task], object]


class Limits(NamedTuple):
    """Limits of a server.

    Attributes:
        max_bytes: the largest size of a message, in both directions.
        max_images: the largest number of images of a request.
        max_held_bytes: the largest number of bytes of all requests and answers in the server.
        seconds: the time limit of an answer over HTTP, which has no deadlines.
    """

    max_bytes: int = 32 * 2**20
    max_images: int = 64
    max_held_bytes: int = 256 * 2**20
    seconds: float = 60.0


class Service:
    """One model, for all ports.

    Args:
        versions: the versions of the model.
        parameters: the parameters of the batches.
        limits: the limits of the requests.
    """

    def __init__(self, versions: Versions, parameters: Parameters, limits: Limits) -> None:
        self.versions, self.limits = versions, limits
        self.budget = Budget(limits.max_held_bytes)
        self.metrics = ServerMetrics(
            lambda: self.batcher.waiting(),
            self.budget.held,
            lambda: {number: state for number, (state, _) in versions.states().items()},
        )
        self.batcher = Batcher(_run, parameters, self.metrics.batches.observe)
        self._slice, self._slices_at_once = parameters.max_batch_size, parameters.num_batch_threads
        self.is_draining = False

    def predict(
        self,
        port: str,
        spec: tuple[str, int | None],
        signature: str,
        inputs: Arrays | Callable[[Version], Arrays],
        outputs: Iterable[str],
        *,
        seconds: float | None = None,
        on_task: OnTask = lambda task: None,
    ) -> tuple[int, Arrays]:
        """The version that answered, and named outputs of it; all if none are named.

        Args:
            port: "grpc" or "rest", for the counts.
            spec: name of the model and number of the version.
            signature: its name; empty for the default.
            inputs: the inputs by name, or a function that makes them once the version is known.
            outputs: names.
            seconds: until the deadline.
            on_task: receives each task, to cancel it.

        Raises:
            ServingError: the request is refused or fails.
        """
        start = time.monotonic()
        name = signature or SERVING_DEFAULT
        code = codes.INTERNAL
        try:
            deadline = start + min(LONGEST_WAIT if seconds is None else seconds, LONGEST_WAIT)
            with self.versions.using(*spec) as version:
                _check_signature(version, name)
                arrays = inputs(version) if callable(inputs) else inputs
                check(version, name, arrays, outputs, self.limits.max_images)
                found = self._in_slices((version, name), arrays, deadline, on_task)
            code = codes.OK
            for one in found.get("image_status", ()):
                self.metrics.images.labels(one.decode("utf-8", "replace").split(":")[0]).inc()
            return version.number, {key: found[key] for key in found if key in set(outputs) or not outputs}
        except ServingError as error:
            code = error.code
            raise
        finally:
            # A name invented by a client would become a time series.
            known = name if code == codes.OK or self._knows(name) else "other"
            self.metrics.requests.labels(port, known, code).inc()
            self.metrics.seconds.labels(port).observe(time.monotonic() - start)

    def is_ready(self) -> bool:
        """Whether a version is loaded and the server is not stopping."""
        states = self.versions.states().values()
        return not self.is_draining and any(state == messages.AVAILABLE for state, _ in states)

    def model_states(self, name: str, number: int | None) -> list[tuple[int, int, str]]:
        """Number, state and problem of each version, the newest first, or of the one that is asked for.

        Raises:
            ServingError: there is no such model or version.
        """
        known = self.versions.name
        if name not in ("", known):
            raise ServingError(codes.NOT_FOUND, f"no model of the name {quoted(name)}, expected {known!r}")
        states = self.versions.states()
        if number is not None and number not in states:
            raise ServingError(codes.NOT_FOUND, f"no version {number} of {known!r}")
        chosen = sorted(states if number is None else [number], reverse=True)
        return [(one, *states[one]) for one in chosen]

    def _in_slices(
        self, key: tuple[Version, str], inputs: Arrays, deadline: float, on_task: OnTask
    ) -> dict[str, np.ndarray]:
        """The outputs of a request, of which no more rows are run at a time than a batch holds."""
        rows = len(next(iter(inputs.values())))
        pending: deque[Task] = deque()
        parts: list[Arrays] = []
        try:
            for start in range(0, rows, self._slice):
                if len(pending) == self._slices_at_once:
                    parts.append(_wait(pending.popleft()))
                task = Task({name: value[start : start + self._slice] for name, value in inputs.items()}, deadline)
                on_task(task)
                # Only the first slice may be refused: a request that has begun is finished.
                self.batcher.submit(key, task, always=start > 0)
                pending.append(task)
            parts += [_wait(task) for task in pending]
        finally:
            for task in pending:
                task.cancel()
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _knows(self, signature: str) -> bool:
        try:
            with self.versions.using("", None) as version:
                return signature in version.inputs
        except ServingError:
            return False


def check(version: Version, signature: str, inputs: Arrays, outputs: Iterable[str], max_images: int) -> None:
    """Raises an error for unknown inputs or outputs, and for too many images.

    Raises:
        ServingError: INVALID_ARGUMENT or RESOURCE_EXHAUSTED with what was expected.
    """
    specs = version.inputs[signature]
    for name in inputs:
        if name not in specs:
            raise invalid(f"{signature}: no input {quoted(name)}, expected {', '.join(specs)}")
    for name, spec in specs.items():
        if name not in inputs:
            raise invalid(f"{signature}: input {name!r} is missing")
        found = inputs[name]
        wanted = np.object_ if spec.dtype == tf.string else spec.dtype.as_numpy_dtype
        if found.dtype != wanted:
            raise invalid(f"{signature}: {name} is {_type(found.dtype)}, expected {spec.dtype.name}")
        if not spec.shape.is_compatible_with(found.shape):
            shape = [size or "any" for size in spec.shape.as_list()]
            raise invalid(f"{signature}: {name} has shape {list(found.shape)}, expected {shape}".replace("'", ""))
    counts = {len(value) for value in inputs.values()}
    if len(counts) != 1:
        raise invalid(f"{signature}: the inputs have different numbers of images")
    if not max(counts):
        raise invalid(f"{signature}: expected at least one image")
    if max(counts) > max_images:
        raise too_large(f"{signature}: a request of {max(counts)} images, expected at most {max_images}")
    for name in outputs:
        if name not in version.outputs[signature]:
            raise invalid(f"{signature}: no output {quoted(name)}, expected {', '.join(version.outputs[signature])}")


def signature_map(version: Version) -> Any:
    """The signatures as TF Serving's metadata describes them."""
    described = messages.SignatureDefMap()
    for name in version.inputs:
        one = described.signature_def[name]
        one.method_name = messages.PREDICT_METHOD
        for side, specs in (("inputs", version.inputs[name]), ("outputs", version.outputs[name])):
            for key, spec in specs.items():
                info = getattr(one, side)[key]
                info.name, info.dtype = f"{name}_{key}:0", spec.dtype.as_datatype_enum
                for size in spec.shape.as_list():
                    info.tensor_shape.dim.add(size=-1 if size is None else size)
    return described


def _check_signature(version: Version, name: str) -> None:
    if name not in version.inputs:
        expected = ", ".join(version.inputs)
        raise ServingError(codes.FAILED_PRECONDITION, f"no signature {quoted(name)}, expected {expected}")


def _run(key: tuple[Version, str], inputs: Arrays) -> Arrays:
    version, signature = key
    try:
        return version.run(signature, inputs)
    except tf.errors.InvalidArgumentError as error:
        said = ASSERTION.search(error.message)
        raise invalid(said.group(1) if said else error.message.strip().splitlines()[-1]) from None
    except tf.errors.ResourceExhaustedError:
        raise ServingError(codes.RESOURCE_EXHAUSTED, "not enough memory for this request") from None
    except Exception:
        log.exception("a request failed")
        raise ServingError(codes.INTERNAL, "the model failed; the server's log says more") from None


def _wait(task: Task) -> Arrays:
    try:
        error = task.result.exception(max(task.deadline - time.monotonic(), 0.0))
    except NotInTime:
        task.cancel()
        raise ServingError(codes.DEADLINE_EXCEEDED, "the deadline passed") from None
    except CancelledError:
        raise ServingError(codes.CANCELLED, "the client disconnected") from None
    return result(error) if isinstance(error, ServingError) else task.result.result()


def _type(dtype: np.dtype[Any]) -> str:
    return "string" if dtype == np.object_ else dtype.name
