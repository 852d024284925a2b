"""The local server: one model's versions behind a gRPC port and an HTTP port, until it is told to stop."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from maskx_tf.errors import BadInput
from maskx_tf.serving.server.batching import Parameters
from maskx_tf.serving.server.grpc_port import GrpcPort
from maskx_tf.serving.server.rest_port import RestPort
from maskx_tf.serving.server.service import Service
from maskx_tf.serving.server.versions import Versions, require_versions

MOST_WORKERS = 256
log = logging.getLogger("maskx.serving")


class Options(NamedTuple):
    """How a server is run.

    Attributes:
        host: the address that it listens on.
        grpc_port: 0 for any that is free.
        rest_port: like grpc_port.
        batching: of the requests.
        max_bytes: of a message.
        poll_seconds: from one look at the disk to the next.
        keep: versions that are served, the newest ones.
        timeout: seconds for an answer over HTTP.
        grace: seconds for the answers that are under way when it stops.
        key: PEM file, for encryption.
        certificate: PEM file, for encryption.
    """

    host: str = "127.0.0.1"
    grpc_port: int = 8500
    rest_port: int = 8501
    batching: Parameters = Parameters()
    max_bytes: int = 64 * 2**20
    poll_seconds: float = 2.0
    keep: int = 1
    timeout: float = 60.0
    grace: float = 30.0
    key: Path | None = None
    certificate: Path | None = None


class Server:
    """Runs from the moment it is made until `stop`.

    Args:
        base: folder of a model's versions.
        name: of the model.
        options: of the server.

    Raises:
        BadInput: no version there can be loaded, a port is taken, or a file of the encryption is none.
    """

    def __init__(self, base: Path, name: str, options: Options) -> None:
        require_versions(base)
        pem = _read_pem(options)
        self._grace = options.grace
        self._versions = Versions(base, name, options.keep)
        self._versions.check()
        if not any(not problem for _, problem in self._versions.states().values()):
            number, (_, problem) = max(self._versions.states().items())
            raise BadInput(f"{base / str(number)}: cannot be loaded: {problem}")
        self._service = Service(self._versions, options.batching)
        batching = options.batching
        waiting = (batching.max_enqueued_batches + batching.num_batch_threads) * batching.max_batch_size
        # A few more than may wait, so that the queue and not the port says what is too much.
        workers = min(waiting + 8, MOST_WORKERS)
        try:
            credentials = None if pem is None else grpc.ssl_server_credentials([pem])
            address = f"{options.host}:{options.grpc_port}"
            self._grpc = GrpcPort(self._service, address, workers, options.max_bytes, credentials)
        except (RuntimeError, ValueError) as error:
            self._close()
            raise BadInput(f"gRPC port {options.host}:{options.grpc_port}: {str(error).splitlines()[0]}") from None
        try:
            place = (options.host, options.rest_port)
            context = None if pem is None else _context(options)
            self._rest = RestPort(self._service, place, workers, options.max_bytes, options.timeout, context)
        except (OSError, OverflowError) as error:
            self._grpc.stop(0)
            self._close()
            raise BadInput(f"REST port {options.host}:{options.rest_port}: {error}") from None
        self.grpc_port, self.rest_port = self._grpc.port, self._rest.port
        self._versions.watch(options.poll_seconds)

    def versions(self) -> list[int]:
        """The numbers of those that were loaded."""
        return sorted(number for number, (_, problem) in self._versions.states().items() if not problem)

    def stop(self) -> None:
        """Refuses what is new, answers what was accepted, and ends."""
        log.info("stopping")
        self._grpc.stop(self._grace)
        self._rest.stop(self._grace)
        self._close()
        log.info("stopped")

    def _close(self) -> None:
        self._versions.close()
        if hasattr(self, "_service"):
            self._service.batcher.close()


def _read_pem(options: Options) -> tuple[bytes, bytes] | None:
    if (options.key is None) != (options.certificate is None):
        raise BadInput("encryption needs both a key and a certificate")
    if options.key is None or options.certificate is None:
        return None
    try:
        _context(options)
        return options.key.read_bytes(), options.certificate.read_bytes()
    except (OSError, ssl.SSLError) as error:
        raise BadInput(f"{options.key}, {options.certificate}: {error.strerror or error}") from None


def _context(options: Options) -> ssl.SSLContext:
    context: Any = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(os.fspath(options.certificate or ""), os.fspath(options.key or ""))
    return context
