"""The local server with the small model, in this process and as the command."""

from __future__ import annotations

import atexit
import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from maskx_tf.serving.server.batching import Parameters
from maskx_tf.serving.server.server import Options, Server
from tests.export.exported import exported

QUICK = {"grpc_port": 0, "rest_port": 0, "poll_seconds": 0.1}
PORTS = ["--grpc-port", "0", "--rest-port", "0", "--poll", "0.1"]


class Place(NamedTuple):
    grpc: str
    rest: str


@contextmanager
def running(base: Path | None = None, name: str = "pets", **options: Any) -> Iterator[Place]:
    """A server of this process."""
    server = Server(base or exported().parent, name, Options(**QUICK, **options))
    try:
        yield Place(f"127.0.0.1:{server.grpc_port}", f"http://127.0.0.1:{server.rest_port}")
    finally:
        server.stop()


@functools.cache
def shared() -> Place:
    """A server that all tests of the session ask: requests wait a little for each other."""
    server = running(batching=Parameters(4, 5000, 10, 1, (2, 4), together=True))
    place = server.__enter__()
    atexit.register(server.__exit__, None, None, None)
    return place


@contextmanager
def command(base: Path, *arguments: str) -> Iterator[tuple[Place, subprocess.Popen[str]]]:
    """A server in a process of its own, as `maskx serve` starts it."""
    code = "import sys; from maskx_tf import cli; sys.exit(cli.run(sys.argv[1:]))"
    line = [sys.executable, "-c", code, "serve", str(base), *PORTS, *arguments]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        found = re.search(r"gRPC (\S+), REST and a page (\S+)/", process.stdout.readline())
        assert found is not None
        yield Place(found[1], found[2]), process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()


def fetch(url: str, body: Any = None, method: str | None = None) -> tuple[int, Any]:
    """Status and JSON, or text, of an address; a body that is no bytes is sent as JSON."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, method=method), timeout=60) as response:
            number, text = response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            number, text = error.code, error.read()
    try:
        return number, json.loads(text)
    except ValueError:
        return number, text.decode()


def address(place: Place) -> tuple[str, int]:
    """Host and port of HTTP."""
    host, port = place.rest.removeprefix("http://").split(":")
    return host, int(port)


def talk(place: Place, data: bytes) -> bytes:
    """What the server sends until it closes the connection."""
    with socket.create_connection(address(place), timeout=30) as one:
        one.sendall(data)
        received = b""
        while part := one.recv(65536):
            received += part
        return received
