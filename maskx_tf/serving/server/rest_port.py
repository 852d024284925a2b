"""The HTTP port: TF Serving's JSON, health, figures for Prometheus, and a page for people."""

from __future__ import annotations

import json
import logging
import re
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any
from urllib.parse import unquote

from maskx_tf import __version__
from maskx_tf.protocol import messages
from maskx_tf.protocol.tensors import NAMES
from maskx_tf.serving import status as codes
from maskx_tf.serving.server.grpc_port import is_ready, model_states
from maskx_tf.serving.server.rest_json import Request
from maskx_tf.serving.server.service import Service
from maskx_tf.serving.status import ServingError

MODEL_PATH = re.compile(
    r"/v1/models(?:/(?P<name>[^/:]*))?(?:/versions/(?P<version>\d{1,18}))?(?P<rest>/metadata|:\w+)?"
)
JSON, TEXT, HTML = "application/json", "text/plain; version=0.0.4; charset=utf-8", "text/html; charset=utf-8"
IDLE = 60.0  # seconds for which a connection may say nothing
LOWEST_TIMEOUT = 1e-3
SILENCE = 0.2  # seconds without a request, after which there are none
log = logging.getLogger("maskx.serving")


class RestPort:
    """The port, and the threads behind it.

    Args:
        service: that answers.
        address: host and port; port 0 for any that is free.
        connections: at a time; more are turned away.
        max_bytes: of a request.
        seconds: for an answer; HTTP has no deadlines of its own.
        context: for encryption; None for none.
    """

    def __init__(
        self,
        service: Service,
        address: tuple[str, int],
        connections: int,
        max_bytes: int,
        seconds: float,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._server = _Server(address, connections, context)
        self._server.handle = _routes(service)
        self._server.max_bytes, self._server.seconds = max_bytes, seconds
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="rest", daemon=True)
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Takes no more connections and returns when what was asked is answered, or the seconds are over."""
        self._server.shutdown()
        self._server.drain(seconds)
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], connections: int, context: ssl.SSLContext | None) -> None:
        self.handle: Callable[[_Handler, str, bytes], tuple[str, bytes]]
        self.max_bytes, self.seconds = 0, 0.0
        self._context = context
        self._free = threading.BoundedSemaphore(connections)
        self._idle = threading.Condition()
        self._busy = 0
        self.is_draining = False
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            answer = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            request.settimeout(1.0)
            try:
                request.sendall(answer)
            except OSError:
                log.debug("%s was turned away and did not wait to hear it", client_address)
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            if self._context is not None:  # here, where a slow handshake keeps nobody else waiting
                request.settimeout(IDLE)
                request = self._context.wrap_socket(request, server_side=True)
            super().process_request_thread(request, client_address)
        except OSError as error:
            log.debug("%s: %s", client_address, error)
            self.shutdown_request(request)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("%s: the connection broke", client_address, exc_info=True)

    def begin(self) -> None:
        with self._idle:
            self._busy += 1
            self._idle.notify_all()

    def end(self) -> None:
        with self._idle:
            self._busy -= 1
            self._idle.notify_all()

    def drain(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        with self._idle:
            self.is_draining = True
            # Once more after a moment of silence: a connection may be taken whose request is still being read.
            while time.monotonic() < end and (self._busy or self._idle.wait(SILENCE)):
                self._idle.wait_for(lambda: self._busy == 0, max(end - time.monotonic(), 0.0))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE
    server: _Server
    server_version, sys_version = f"maskx/{__version__}", ""

    def do_GET(self) -> None:
        self._respond("GET")

    def do_POST(self) -> None:
        self._respond("POST")

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)

    def _respond(self, method: str) -> None:
        self.server.begin()
        try:
            number, kind, body = self._answer(method)
            self.send_response(number)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            if self.server.is_draining or self.close_connection:
                self.send_header("Connection", "close")
                self.close_connection = True
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
        finally:
            self.server.end()

    def _answer(self, method: str) -> tuple[int, str, bytes]:
        try:
            body = self._body() if method == "POST" else b""
            if self.server.is_draining:
                raise ServingError(codes.UNAVAILABLE, "the server is shutting down")
            return (200, *self.server.handle(self, method, body))
        except _TooLong as error:
            self.close_connection = True  # the rest of it is still on its way
            return 413, JSON, _error(str(error))
        except ServingError as error:
            return codes.HTTP_NUMBERS[error.code], JSON, _error(error.reason)
        except OSError:  # who asked is gone, or so slow that they might as well be
            raise
        except Exception:
            log.exception("%s %s", method, self.path)
            return 500, JSON, _error("the server failed; its log says more")

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            self.close_connection = True
            raise ServingError(codes.INVALID_ARGUMENT, "expected a Content-Length")
        if int(length) > self.server.max_bytes:
            raise _TooLong(f"a request of {length} bytes, expected at most {self.server.max_bytes}")
        data = self.rfile.read(int(length))
        if len(data) < int(length):
            raise ConnectionError("the body ended early")
        return data


class _TooLong(Exception):
    """A request's body is longer than the server takes."""


def _routes(service: Service) -> Callable[[_Handler, str, bytes], tuple[str, bytes]]:
    """What answers a path: type and content, or a ServingError."""
    page = resources.files("maskx_tf.serving").joinpath("page.html").read_bytes()

    def plain(handler: _Handler, path: str) -> tuple[str, bytes] | None:
        if path == "/":
            return HTML, page
        if path in ("/metrics", "/monitoring/prometheus/metrics"):
            return TEXT, service.metrics.text().encode()
        if path == "/healthz":
            return TEXT, b"ok\n"
        if path == "/readyz":
            if not is_ready(service):
                raise ServingError(codes.UNAVAILABLE, "no version is loaded yet")
            return TEXT, b"ok\n"
        if path == "/labels.json":
            with service.versions.using("", None) as version:
                answer = {"model": service.versions.name, "version": version.number, "labels": version.labels}
            return JSON, json.dumps(answer).encode()
        return None

    def handle(handler: _Handler, method: str, body: bytes) -> tuple[str, bytes]:
        path = handler.path.partition("?")[0]
        known = plain(handler, path) if method == "GET" else None
        if known is not None:
            return known
        found = MODEL_PATH.fullmatch(path)
        if found is None:
            raise ServingError(codes.NOT_FOUND, f"nothing at {path[:200]}")
        spec = (unquote(found["name"] or ""), None if found["version"] is None else int(found["version"]))
        rest = found["rest"]
        if method == "POST" and rest == ":predict":
            return JSON, _predict(service, spec, body, handler.server.seconds)
        if method == "POST" and rest in (":classify", ":regress"):
            raise ServingError(codes.INVALID_ARGUMENT, f"the model has no signatures for {rest[1:]}: use :predict")
        if method == "GET" and rest == "/metadata":
            return JSON, _metadata(service, spec)
        if method == "GET" and rest is None:
            return JSON, _status(service, spec)
        raise ServingError(codes.NOT_FOUND, f"nothing at {path[:200]} for {method}")

    return handle


def _predict(service: Service, spec: tuple[str, int | None], body: bytes, seconds: float) -> bytes:
    start = time.monotonic()
    request = Request(body)
    left = max(seconds - (time.monotonic() - start), LOWEST_TIMEOUT)
    _, outputs = service.predict("rest", spec, request.signature, request.inputs, (), seconds=left)
    return request.answer(outputs)


def _status(service: Service, spec: tuple[str, int | None]) -> bytes:
    states = [
        {
            "version": str(number),
            "state": messages.STATES[state],
            "status": {"error_code": "UNKNOWN" if problem else "OK", "error_message": problem},
        }
        for number, state, problem in model_states(service, *spec)
    ]
    return json.dumps({"model_version_status": states}, indent=1).encode()


def _metadata(service: Service, spec: tuple[str, int | None]) -> bytes:
    with service.versions.using(*spec) as version:
        signatures = {
            name: {
                "inputs": {key: _info(f"{name}_{key}:0", one) for key, one in version.inputs[name].items()},
                "outputs": {key: _info(f"{name}_{key}:0", one) for key, one in version.outputs[name].items()},
                "method_name": messages.PREDICT_METHOD,
            }
            for name in version.inputs
        }
        answer = {
            "model_spec": {"name": service.versions.name, "signature_name": "", "version": str(version.number)},
            "metadata": {"signature_def": {"signature_def": signatures}},
        }
    return json.dumps(answer, indent=1).encode()


def _info(name: str, spec: Any) -> dict[str, Any]:
    sizes = [{"size": str(-1 if size is None else size), "name": ""} for size in spec.shape.as_list()]
    kind = NAMES[spec.dtype.as_datatype_enum]
    return {"dtype": kind, "tensor_shape": {"dim": sizes, "unknown_rank": False}, "name": name}


def _error(reason: str) -> bytes:
    return json.dumps({"error": reason}).encode()
