"""The HTTP port: uvicorn in a thread, on a socket that is bound first."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from maskx_tf.serving.server.gate import Gate
from maskx_tf.serving.server.rest_app import make_app
from maskx_tf.serving.server.service import Service

BACKLOG = 128
SILENCE = 0.2  # seconds for requests that are on their way when the server is stopped
SOON = 0.02
MOST_CONNECTIONS = 512
HEADER_SECONDS = 20.0  # time for the header of a request, from the connection or the last answer on
SLOWEST = 65_536, 10.0  # bytes that a client has to read in so many seconds
LINGER = 1.0  # seconds in which a client that was turned away can read why
NO_MORE_ANSWERS = (h11.DONE, h11.MUST_CLOSE, h11.CLOSED, h11.ERROR, h11.SEND_BODY)


class Connection(H11Protocol):
    """One HTTP connection, with limits for clients that send no request or read no answer.

    uvicorn (0.54) closes connections that are idle between two requests. It waits for ever for the first request, for
    the rest of a header and for a client that does not read its answer, and says what is no HTTP in plain text.
    `test_uvicorn_has_what_we_override` names the methods that are overridden or called here.
    """

    _header_timer: asyncio.TimerHandle | None = None
    _reading_timer: asyncio.TimerHandle | None = None
    _is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts to wait for a request, or turns the client away."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            self._refuse(503, "the server has too many connections")
        self._wait_for_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops waiting."""
        for timer in (self._header_timer, self._reading_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads data, unless the client was turned away."""
        if not self._is_refused:
            super().data_received(data)

    def on_response_complete(self) -> None:
        """Starts to wait for the next request."""
        super().on_response_complete()
        self._wait_for_header()

    def pause_writing(self) -> None:
        """Starts to watch whether the client reads."""
        super().pause_writing()
        self._watch_reading(None)

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        if self._reading_timer is not None:
            self._reading_timer.cancel()

    def send_400_response(self, msg: str) -> None:
        """Answers a request that is not valid HTTP with an error in JSON."""
        self._refuse(400, "this is no HTTP request")

    def _wait_for_header(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
        self._header_timer = self.loop.call_later(HEADER_SECONDS, self._end_silence)

    def _end_silence(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self._refuse(408, f"no request within {HEADER_SECONDS:.0f} s")

    def _watch_reading(self, before: int | None) -> None:
        left = self.transport.get_write_buffer_size()
        count, seconds = SLOWEST
        if before is not None and before - left < count:
            self.transport.abort()
        else:
            self._reading_timer = self.loop.call_later(seconds, self._watch_reading, left)

    def _refuse(self, number: int, reason: str) -> None:
        """Answers without a request, and closes."""
        if self.conn.our_state in NO_MORE_ANSWERS:
            self.transport.abort()
            return
        body = json.dumps({"error": reason}).encode()
        headers: list[Any] = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        headers.append(("Connection", "close"))
        events = [
            h11.Response(status_code=number, headers=headers, reason=STATUS_PHRASES[number]),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ]
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        # Closing at once would reset the connection if the client is still sending, and it would not see the answer.
        self._is_refused = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER, self.transport.close)


class RestPort:
    """The port, and the thread behind it.

    Args:
        service: the service that answers.
        host: name or address to listen on.
        port: 0 for any that is free.
        hosts: further names under which the server may be asked.
        origins: the origins of pages on other servers that may ask.
        key: PEM file, for encryption.
        certificate: PEM file, for encryption.
    """

    def __init__(
        self,
        service: Service,
        host: str,
        port: int,
        hosts: Sequence[str] = (),
        origins: Sequence[str] = (),
        key: Path | None = None,
        certificate: Path | None = None,
    ) -> None:
        self._service = service
        self._gate = Gate(make_app(service, list(origins)), service, ["localhost", host, *hosts], origins)
        config = uvicorn.Config(
            self._gate,
            http=Connection,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=int(HEADER_SECONDS),
            timeout_graceful_shutdown=1,
            ssl_keyfile=key,
            ssl_certfile=None if certificate is None else os.fspath(certificate),
        )
        config.load()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        self.port: int = listener.getsockname()[1]
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="rest", daemon=True)
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Refuses new requests and returns when the others are answered, or the seconds are over."""
        self._service.is_draining = True
        until = time.monotonic() + seconds
        time.sleep(min(SILENCE, seconds))
        while self._gate.active and time.monotonic() < until:
            time.sleep(SOON)
        self._server.should_exit = True
        self._thread.join()
