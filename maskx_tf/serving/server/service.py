"""What both ports of the local server answer with: requests checked, batched, run, and counted."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as NotInTime
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from maskx_tf.protocol import messages
from maskx_tf.serving import status as codes
from maskx_tf.serving.server import metrics
from maskx_tf.serving.server.batching import Arrays, Batcher, Parameters, Task
from maskx_tf.serving.server.versions import Version, Versions
from maskx_tf.serving.status import ServingError

SERVING_DEFAULT = "serving_default"
LONGEST_WAIT = 3600.0  # seconds, for who names no deadline; gRPC hands on some centuries
ASSERTION = re.compile(r"assertion failed: \[(.*?)\]")
log = logging.getLogger("maskx.serving")
# Given a task, calls back later if who asked has gone.
OnTask = Callable[[Task], None]


class Service:
    """One model, behind whatever port.

    Args:
        versions: of the model.
        parameters: of the batches.
    """

    def __init__(self, versions: Versions, parameters: Parameters) -> None:
        self.versions = versions
        self.metrics = metrics.Metrics()
        self._requests = self.metrics.counter("maskx_requests_total", "Requests by port, signature and outcome.")
        self._seconds = self.metrics.histogram(
            "maskx_request_seconds", "Seconds from a request's arrival to its answer.", metrics.SECONDS
        )
        self._images = self.metrics.counter("maskx_images_total", "Images by what became of them.")
        rows = self.metrics.histogram("maskx_batch_images", "Images of a batch.", metrics.ROWS)
        self.batcher = Batcher(_run, parameters, rows)
        self.metrics.gauge("maskx_queue_images", "Images that wait.", lambda: {(): self.batcher.waiting()})
        self.metrics.gauge("maskx_version_state", "TF Serving's number of each version's state.", self._state_gauge)

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
            signature: its name, or nothing for the default.
            inputs: by their names, or a function that makes them once the version is known.
            outputs: names.
            seconds: until the deadline.
            on_task: is handed the task, to cancel it.

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
                check(version, name, arrays, outputs)
                task = Task(arrays, deadline)
                on_task(task)
                self.batcher.submit((version, name), task)
                found = _wait(task)
                code = codes.OK
                for one in found.get("image_status", ()):
                    self._images(status=one.decode("utf-8", "replace").split(":")[0])
                return version.number, {key: found[key] for key in found if key in set(outputs) or not outputs}
        except ServingError as error:
            code = error.code
            raise
        finally:
            # A signature of the client's own invention would make a series of its own.
            known = name if code == codes.OK or self._knows(name) else "other"
            self._requests(port=port, signature=known, code=code)
            self._seconds(time.monotonic() - start, port=port)

    def _knows(self, signature: str) -> bool:
        try:
            with self.versions.using("", None) as version:
                return signature in version.inputs
        except ServingError:
            return False

    def _state_gauge(self) -> dict[metrics.Labels, float]:
        return {(("version", str(number)),): state for number, (state, _) in self.versions.states().items()}


def check(version: Version, signature: str, inputs: Arrays, outputs: Iterable[str]) -> None:
    """Objects to inputs and names of outputs that the signature does not have.

    Raises:
        ServingError: INVALID_ARGUMENT with what was expected.
    """
    specs = version.inputs[signature]
    for name in inputs:
        if name not in specs:
            raise _invalid(f"{signature}: no input {name!r}, expected {', '.join(specs)}")
    for name, spec in specs.items():
        if name not in inputs:
            raise _invalid(f"{signature}: input {name!r} is missing")
        found = inputs[name]
        wanted = np.object_ if spec.dtype == tf.string else spec.dtype.as_numpy_dtype
        if found.dtype != wanted:
            raise _invalid(f"{signature}: {name} is {_type(found.dtype)}, expected {spec.dtype.name}")
        if not spec.shape.is_compatible_with(found.shape):
            shape = [size or "any" for size in spec.shape.as_list()]
            raise _invalid(f"{signature}: {name} has shape {list(found.shape)}, expected {shape}".replace("'", ""))
    if len({len(value) for value in inputs.values()}) != 1:
        raise _invalid(f"{signature}: the inputs have different numbers of images")
    if not len(next(iter(inputs.values()))):
        raise _invalid(f"{signature}: expected at least one image")
    for name in outputs:
        if name not in version.outputs[signature]:
            raise _invalid(f"{signature}: no output {name!r}, expected {', '.join(version.outputs[signature])}")


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
        raise ServingError(codes.FAILED_PRECONDITION, f"no signature {name!r}, expected {expected}")


def _run(key: tuple[Version, str], inputs: Arrays) -> Arrays:
    version, signature = key
    try:
        return version.run(signature, inputs)
    except tf.errors.InvalidArgumentError as error:
        said = ASSERTION.search(error.message)
        raise _invalid(said.group(1) if said else error.message.strip().splitlines()[-1]) from None
    except tf.errors.ResourceExhaustedError:
        raise ServingError(codes.RESOURCE_EXHAUSTED, "not enough memory for this request") from None
    except Exception:
        log.exception("a request failed")
        raise ServingError(codes.INTERNAL, "the model failed; the server's log says more") from None


def _wait(task: Task) -> dict[str, NDArray[Any]]:
    try:
        return task.result.result(max(task.deadline - time.monotonic(), 0.0))
    except NotInTime:
        task.result.cancel()
        raise ServingError(codes.DEADLINE_EXCEEDED, "the deadline passed") from None
    except CancelledError:
        raise ServingError(codes.CANCELLED, "the client went away") from None


def _invalid(reason: str) -> ServingError:
    return ServingError(codes.INVALID_ARGUMENT, reason)


def _type(dtype: np.dtype[Any]) -> str:
    return "string" if dtype == np.object_ else dtype.name
