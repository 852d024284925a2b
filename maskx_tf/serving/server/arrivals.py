"""Reads gRPC's messages: few at a time, none that takes long. Counts answers, until they are read; logs requests."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health

from maskx_tf.serving import status as codes
from maskx_tf.serving.server.access import Record
from maskx_tf.serving.server.budget import Budget, Share
from maskx_tf.serving.status import ServingError, invalid

ARRIVAL = 10.0  # seconds in which a message has to arrive
READING = 60.0  # seconds in which an answer has to be read
LOOK = 1.0  # seconds between looks at the answers that are not read yet
AT_ONCE = 8  # messages that may be arriving at a time, each of up to the limit
# Requests at a time with several messages (reflection), of which each may keep one of those places, and with several
# answers (health that is watched). Each keeps a thread.
DIALOGUES, WATCHES = AT_ONCE // 2, 16
log = logging.getLogger("maskx.serving")
Message = TypeVar("Message")


class Arrivals(grpc.ServerInterceptor):
    """Reads the messages of every method.

    gRPC would read them as they come, in as many threads as there are requests. A method that takes one message is
    made to take a stream of them, which is read when we say so; a client sees no difference.

    Args:
        budget: the budget of the bytes of all requests and answers.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._arriving = threading.BoundedSemaphore(AT_ONCE)
        self._dialogues = threading.BoundedSemaphore(DIALOGUES)
        self._watches = threading.BoundedSemaphore(WATCHES)
        self._lock = threading.Lock()
        self._unread: dict[grpc.ServicerContext, float] = {}  # until when each may be read
        self._is_looking = False

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """The handler of a method, with what this class adds."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method.removeprefix("/")
        parse, serialize = handler.request_deserializer or bytes, handler.response_serializer

        def arrived(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
            with Share(self._budget) as share:
                while (data := self._receive(requests, context)) is not None:
                    share.set(len(data))
                    yield parsed(parse, data)

        def unary(requests: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            with _reported(method, context):
                for message in arrived(requests, context):
                    return self._counted(serialize(handler.unary_unary(message, context)), context)
                raise invalid("the request has no message")

        def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
            with _reported(method, context), _one_of(self._dialogues if handler.request_streaming else self._watches):
                if handler.request_streaming:
                    yield from handler.stream_stream(arrived(requests, context), context)
                for message in arrived(requests, context):
                    yield from handler.unary_stream(message, context)

        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(stream, None, serialize)
        return grpc.stream_unary_rpc_method_handler(unary, None, None)

    def _counted(self, answer: bytes, context: grpc.ServicerContext) -> bytes:
        """The answer, which counts until gRPC has sent all of it, or the client has gone."""
        share = Share(self._budget)

        def release() -> None:
            with self._lock:
                self._unread.pop(context, None)
            share.set(0)

        with self._lock:
            self._unread[context] = time.monotonic() + READING
        share.set(len(answer), refuse=False)
        if not context.add_callback(release):
            release()
        with self._lock:
            self._look_later()
        return answer

    def _look_later(self) -> None:
        """Starts the one timer that looks at unread answers, if there are any. Call it with the lock."""
        if self._unread and not self._is_looking:
            _start_timer(LOOK, self._end_late)
            self._is_looking = True

    def _end_late(self) -> None:
        """Ends requests whose answers nobody has read in time."""
        with self._lock:
            late = [context for context, until in self._unread.items() if until < time.monotonic()]
            self._is_looking = False
            self._look_later()
        for context in late:
            context.cancel()

    def _receive(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes | None:
        """The next message; None at the end."""
        until = time.monotonic() + ARRIVAL
        if not self._arriving.acquire(timeout=ARRIVAL):
            raise ServingError(codes.RESOURCE_EXHAUSTED, "too many messages arrive at a time")
        timer = _start_timer(max(until - time.monotonic(), 0.0), context.cancel)
        try:
            return next(requests, None)
        except grpc.RpcError:
            raise ServingError(codes.CANCELLED, "the message did not arrive") from None
        finally:
            timer.cancel()
            self._arriving.release()


def _start_timer(seconds: float, function: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(seconds, function)
    timer.daemon = True
    timer.start()
    return timer


@contextmanager
def _one_of(places: threading.BoundedSemaphore) -> Iterator[None]:
    if not places.acquire(blocking=False):
        raise ServingError(codes.RESOURCE_EXHAUSTED, "too many streams at a time")
    try:
        yield
    finally:
        places.release()


def parsed(parse: Callable[[bytes], Message], data: bytes) -> Message:
    """The message that is made of bytes.

    Raises:
        ServingError: it is none of its type.
    """
    try:
        return parse(data)
    except Exception:  # protocol buffers' own class of error, which moved between versions
        raise invalid("the message is not of the type that the method takes") from None


@contextmanager
def _reported(method: str, context: grpc.ServicerContext) -> Iterator[None]:
    """Makes a status of an error, and writes the access log."""
    traces = [str(value) for key, value in context.invocation_metadata() if key == "traceparent"]
    record = Record("grpc", context.peer(), method, "", traces[0] if traces else None)
    name, reason = codes.OK, ""
    try:
        yield
    except ServingError as error:
        name, reason = error.code, error.reason
    except Exception:
        if context.code() is not None:  # gRPC's own way to refuse
            raise
        log.exception("%s", method)
        name, reason = codes.INTERNAL, "the server failed; its log says more"
    finally:
        quiet = method.startswith(health.SERVICE_NAME)
        record.write(getattr(context.code(), "name", name), logging.DEBUG if quiet else logging.INFO)
    if name != codes.OK:
        context.abort(grpc.StatusCode[name], reason)
