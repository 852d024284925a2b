"""`:predict` over HTTP: the body is read, unpacked and answered within limits, and while the client is connected."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import time
import zlib
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple, Unpack

import anyio
import numpy as np
from anyio.to_thread import run_sync
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from maskx_tf.protocol.messages import SERVING_DEFAULT
from maskx_tf.serving import status as codes
from maskx_tf.serving.server import rest_json
from maskx_tf.serving.server.batching import Arrays, Task
from maskx_tf.serving.server.budget import Share, size_of
from maskx_tf.serving.server.service import Service
from maskx_tf.serving.server.versions import Version
from maskx_tf.serving.status import ServingError, invalid, outcome, result, too_large

LIGHT = 2**20  # bytes of a body up to which unpacking it keeps other threads waiting for milliseconds
LIGHT_AT_ONCE, HEAVY_AT_ONCE = 4, 1  # bodies that are unpacked at a time
MOST_THREADS = 256  # threads that may wait for the model at a time
PIECE = 2**16  # bytes of an answer, written when the client has read what came before
READ_REST = 2.0  # seconds
WORTH_PACKING = 500  # bytes
Computed = TypeVar("Computed")
Values = TypeVarTuple("Values")
NUMBER_KINDS = {
    "i": "iu",
    "u": "iu",
    "b": "b",
}  # of numbers in JSON that fit an input; every other input takes any number


class Predict:
    """Answers for one model.

    Args:
        service: the service that answers.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._light = anyio.CapacityLimiter(LIGHT_AT_ONCE)
        self._heavy = anyio.CapacityLimiter(HEAVY_AT_ONCE)
        self._waiting = anyio.CapacityLimiter(MOST_THREADS)

    async def answer(self, model: tuple[str, int | None], scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request for a model's name and version."""
        headers = Headers(scope=scope)
        with Share(self._service.budget) as share:
            work = _Work(self._service, model, headers, share)
            answering = asyncio.create_task(self._run(work, await self._read(headers, receive, share)))
            leaving = asyncio.ensure_future(receive())
            try:
                await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if not answering.done():
                    work.cancel()
                content = result(await answering)
            finally:
                work.cancel()
                leaving.cancel()
            share.set(len(content), refuse=False)
            await _send(content, work.packs, send)

    async def _read(self, headers: Headers, receive: Receive, share: Share) -> bytearray:
        limits = self._service.limits
        body, more = bytearray(), True
        size = int(headers.get("content-length", "0"))
        try:
            async with asyncio.timeout(limits.seconds):
                while True:
                    if size > limits.max_bytes:
                        raise too_large(f"a request of {size} bytes or more, expected at most {limits.max_bytes}")
                    if not more:
                        return body
                    message = await receive()
                    if message["type"] != "http.request":
                        raise ServingError(codes.CANCELLED, "the client disconnected")
                    body += message["body"]
                    more = message["more_body"]
                    size = max(size, len(body))
                    share.set(len(body))
        except TimeoutError:
            raise ServingError(codes.DEADLINE_EXCEEDED, "the request did not arrive in time", 408) from None
        except ServingError:
            share.set(0)
            body.clear()
            if more and "expect" not in headers:
                await _discard(receive)
            raise

    async def _run(self, work: _Work, body: bytearray) -> bytes | ServingError:
        # A body that waits here goes when its client disconnects; in the queue of a pool of threads it would stay.
        heavy = work.is_packed or len(body) > LIGHT
        try:
            request = await _in_thread(self._heavy if heavy else self._light, work.unpack, body)
            del body
            outputs = await _in_thread(self._waiting, work.predict, request)
            return await _in_thread(self._light, work.pack, request, outputs)
        except ServingError as error:
            return error.copy()


class _Work:
    """The work of one request, done by threads.

    Args:
        service: the service that answers.
        model: name and version.
        headers: the headers of the request.
        share: its share of the bytes that the server holds.
    """

    def __init__(self, service: Service, model: tuple[str, int | None], headers: Headers, share: Share) -> None:
        self._service, self._model, self._share = service, model, share
        self._until = time.monotonic() + service.limits.seconds
        self._tasks: list[Task] = []
        self._is_cancelled = False
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip"):
            raise ServingError(codes.INVALID_ARGUMENT, f"Content-Encoding is {encoding!r}, expected gzip or none", 415)
        self.is_packed = encoding == "gzip"
        self.packs = "gzip" in headers.get("accept-encoding", "").lower()

    def cancel(self) -> None:
        """Takes back what still waits for the model."""
        self._is_cancelled = True
        for task in self._tasks:
            task.cancel()

    def unpack(self, body: bytearray) -> rest_json.Body:
        """The request in a body."""
        if self.is_packed:
            body = self._unzip(body)
        if len(body) > LIGHT and rest_json.is_dense(body):
            return rest_json.parse_apart(body, self._left())
        return rest_json.parse(body)

    def predict(self, request: rest_json.Body) -> Arrays:
        """The model's outputs."""

        def inputs(version: Version) -> Arrays:
            arrays = _inputs(request, version)
            self._share.set(sum(size_of(array) for array in arrays.values()))
            return arrays

        def on_task(task: Task) -> None:
            self._tasks.append(task)
            if self._is_cancelled:
                task.cancel()

        seconds = self._left()
        return self._service.predict(
            "rest", self._model, request.signature, inputs, (), seconds=seconds, on_task=on_task
        )[1]

    def pack(self, request: rest_json.Body, outputs: Arrays) -> bytes:
        """The body of the answer."""
        content = rest_json.answer(outputs, in_rows=request.in_rows)
        self.packs = self.packs and len(content) > WORTH_PACKING
        return gzip.compress(content, compresslevel=1) if self.packs else content

    def _left(self) -> float:
        return max(self._until - time.monotonic(), 1e-3)

    def _unzip(self, body: bytearray) -> bytearray:
        most = self._service.limits.max_bytes
        unpacker = zlib.decompressobj(wbits=31)
        try:
            content = bytearray(unpacker.decompress(body, most + 1))
        except zlib.error as error:
            raise invalid(f"the body is no gzip: {error}") from None
        if len(content) > most:
            raise too_large(f"a request of more than {most} bytes, unpacked")
        if not unpacker.eof or unpacker.unused_data:
            raise invalid("the body is not one whole gzip stream")
        self._share.set(len(content))
        return content


def _inputs(request: rest_json.Body, version: Version) -> Arrays:
    """The arrays of a request, in the types that its signature takes."""
    specs = version.inputs[request.signature or SERVING_DEFAULT]
    columns = request.columns
    if not request.named:
        if len(specs) != 1:
            raise invalid(f"expected the inputs by their names: {', '.join(specs)}")
        columns = {next(iter(specs)): columns[""]}
    return {name: _cast(name, array, specs[name]) if name in specs else array for name, array in columns.items()}


def _cast(name: str, array: np.ndarray, spec: Any) -> np.ndarray:
    kind = np.dtype(np.object_ if spec.dtype.name == "string" else spec.dtype.as_numpy_dtype)
    if array.dtype == kind or not array.size:
        return array.astype(kind)
    if array.dtype == np.object_ or kind == np.object_ or array.dtype.kind not in NUMBER_KINDS.get(kind.kind, "iuf"):
        raise invalid(f"{name}: expected values of type {spec.dtype.name}")
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        if array.min() < limits.min or array.max() > limits.max:
            raise invalid(f"{name}: expected numbers in {limits.min}..{limits.max}")
    return array.astype(kind)


async def _in_thread(
    limiter: anyio.CapacityLimiter, function: Callable[[Unpack[Values]], Computed], *values: *Values
) -> Computed:
    """The result of a function that runs in another thread, where no more run at a time than the limiter allows."""
    return result(await run_sync(outcome, function, *values, limiter=limiter))


async def _discard(receive: Receive) -> None:
    """Reads the rest of a body for a while: many clients look for an answer only when they have sent everything."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READ_REST):
            while (await receive()).get("more_body", False):
                pass


async def _send(content: bytes, packed: bool, send: Send) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    headers += [(b"vary", b"accept-encoding"), *([(b"content-encoding", b"gzip")] if packed else [])]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for start in range(0, len(content), PIECE):
        end = start + PIECE
        await send({"type": "http.response.body", "body": content[start:end], "more_body": end < len(content)})
