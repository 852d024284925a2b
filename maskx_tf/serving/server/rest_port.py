"""The HTTP port: uvicorn in a thread, on a socket that is bound before anything else is done."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from maskx_tf.serving.server.connection import HEADER_SECONDS, Connection
from maskx_tf.serving.server.gate import Gate
from maskx_tf.serving.server.rest_app import make_app
from maskx_tf.serving.server.service import Service

BACKLOG = 128
SILENCE = 0.2  # seconds for requests that are on their way when the server is stopped
SOON = 0.02


class RestPort:
    """The port, and the thread behind it.

    Args:
        service: that answers.
        host: name or address to listen on.
        port: 0 for any that is free.
        hosts: further names under which the server may be asked.
        origins: of pages on other servers that may ask.
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
