"""The local server: one model's versions behind a gRPC port and an HTTP port, until it is stopped."""

from __future__ import annotations

import logging
import os
import ssl
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import grpc

from maskx_tf.errors import BadInput
from maskx_tf.protocol.messages import AVAILABLE
from maskx_tf.serving.server.batching import Parameters
from maskx_tf.serving.server.grpc_port import GrpcPort
from maskx_tf.serving.server.rest_port import RestPort
from maskx_tf.serving.server.service import Limits, Service
from maskx_tf.serving.server.versions import Versions, require_versions

MOST_WORKERS = 256
log = logging.getLogger("maskx.serving")


class Options(NamedTuple):
    """How a server is run.

    Attributes:
        host: the address that it listens on.
        grpc_port: 0 for any that is free.
        rest_port: like grpc_port.
        batching: the batching of the requests.
        limits: the limits of the requests.
        poll_seconds: between two looks for new versions; one that nothing changed in for so long is complete.
        keep: versions that are served, the newest ones.
        grace: seconds for the answers that are under way when it stops.
        hosts: names of the server, besides its addresses, `host` and localhost.
        origins: the origins of pages on other servers that may ask over HTTP, such as "https://example.org".
        key: PEM file, for encryption.
        certificate: PEM file, for encryption.
    """

    host: str = "127.0.0.1"
    grpc_port: int = 8500
    rest_port: int = 8501
    batching: Parameters = Parameters()
    limits: Limits = Limits()
    poll_seconds: float = 2.0
    keep: int = 1
    grace: float = 30.0
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    key: Path | None = None
    certificate: Path | None = None


class Server:
    """Runs from the moment it is made until `stop`.

    The ports answer first, with UNAVAILABLE, and then the model is loaded.

    Args:
        base: folder of a model's versions.
        name: the name of the model.
        options: the options of the server.

    Raises:
        BadInput: a port is taken, the encryption's files cannot be used, or no version can be loaded.
    """

    def __init__(self, base: Path, name: str, options: Options) -> None:
        require_versions(base)
        pem = _read_pem(options)
        self._grace = options.grace
        self._versions = Versions(base, name, options.keep, options.poll_seconds)
        self._service = Service(self._versions, options.batching, options.limits)
        with ExitStack() as undo:
            undo.callback(self._service.batcher.close)
            self._grpc = _open_grpc(self._service, options, pem)
            undo.callback(self._grpc.stop, 0)
            self._rest = _open_rest(self._service, options)
            undo.callback(self._rest.stop, 0)
            self._versions.open()
            undo.pop_all()
        self.grpc_port, self.rest_port = self._grpc.port, self._rest.port
        self._grpc.say_ready()
        self._versions.watch(options.poll_seconds)

    def versions(self) -> list[int]:
        """The numbers of those that are loaded."""
        return sorted(number for number, (state, _) in self._versions.states().items() if state == AVAILABLE)

    def stop(self) -> None:
        """Refuses new requests, answers accepted ones, and ends."""
        log.info("stopping")
        answered = self._grpc.stop(self._grace)
        self._rest.stop(self._grace)
        answered.wait()
        self._versions.close()
        self._service.batcher.close()
        log.info("stopped")


def _open_grpc(service: Service, options: Options, pem: tuple[bytes, bytes] | None) -> GrpcPort:
    batching = options.batching
    waiting = (batching.max_enqueued_batches + batching.num_batch_threads) * batching.max_batch_size
    # A few more than may wait, so that the queue refuses requests, not the port.
    workers = min(waiting + 8, MOST_WORKERS)
    address = f"[{options.host}]:{options.grpc_port}" if ":" in options.host else f"{options.host}:{options.grpc_port}"
    try:
        return GrpcPort(service, address, workers, None if pem is None else grpc.ssl_server_credentials([pem]))
    except (RuntimeError, ValueError) as error:
        raise BadInput(f"gRPC port {address}: {str(error).splitlines()[0]}") from None


def _open_rest(service: Service, options: Options) -> RestPort:
    place = (options.host, options.rest_port)
    try:
        return RestPort(service, *place, options.hosts, options.origins, options.key, options.certificate)
    except (OSError, OverflowError) as error:
        raise BadInput(f"REST port {options.host}:{options.rest_port}: {error}") from None


def _read_pem(options: Options) -> tuple[bytes, bytes] | None:
    if (options.key is None) != (options.certificate is None):
        raise BadInput("encryption needs both a key and a certificate")
    if options.key is None or options.certificate is None:
        return None
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        # A password is not asked for on the terminal.
        context.load_cert_chain(os.fspath(options.certificate), os.fspath(options.key), password="")
        return options.key.read_bytes(), options.certificate.read_bytes()
    except (OSError, ssl.SSLError) as error:
        raise BadInput(f"{options.key}, {options.certificate}: {error.strerror or error}") from None
