"""The two ways to a server: gRPC and JSON over HTTP. Both raise `ServingError` and give up at a deadline."""

from __future__ import annotations

import base64
import http.client
import json
import random
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import grpc
import numpy as np

from maskx_tf.protocol import messages
from maskx_tf.protocol.tensors import from_proto, to_proto
from maskx_tf.serving.client.answers import OUTPUT_TYPES
from maskx_tf.serving.status import (
    DEADLINE_EXCEEDED,
    HTTP_CODES,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    UNKNOWN,
    ServingError,
)

Arrays = dict[str, np.ndarray]
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between attempts, doubled each time
T = TypeVar("T")


class Target(NamedTuple):
    """Which model of a server is meant.

    Attributes:
        name: the name of the model; empty for the only one, which `maskx serve` accepts and TF Serving does not.
        version: None for the newest.
        label: the label of a version, instead of its number.
    """

    name: str = ""
    version: int | None = None
    label: str | None = None


class Tls(NamedTuple):
    """Encryption, each part as the bytes of a PEM file.

    Attributes:
        roots: certificates to trust; None for those of the system.
        key: the key of the client, if the server asks for one.
        certificate: the certificate of the client.
    """

    roots: bytes | None = None
    key: bytes | None = None
    certificate: bytes | None = None


def persistently(attempt: Callable[[float], T], timeout: float, retries: int) -> T:
    """Calls a function with the seconds that are left, with growing pauses while the server is unavailable."""
    end = time.monotonic() + timeout
    for number in range(retries + 1):
        try:
            return attempt(max(end - time.monotonic(), 1e-3))
        except ServingError as error:
            # At random times: else all clients that lost one server would retry at the same moment.
            pause = min(FIRST_PAUSE * 2**number, LONGEST_PAUSE) * random.uniform(0.5, 1.0)
            if error.code != UNAVAILABLE or number == retries or time.monotonic() + pause >= end:
                raise
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


class Grpc:
    """Requests to a server's gRPC port.

    Args:
        address: host and port.
        target: the target of the requests.
        tls: None for a connection without encryption.
        max_bytes: the largest size of a message, in both directions; gRPC's limit of 4 MB is too small for pixels.
    """

    def __init__(self, address: str, target: Target, tls: Tls | None, max_bytes: int) -> None:
        options = [("grpc.max_send_message_length", max_bytes), ("grpc.max_receive_message_length", max_bytes)]
        if tls is None:
            self._channel = grpc.insecure_channel(address, options)
        else:
            self._channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(*tls), options)
        self._target = target

    def predict(self, signature: str, inputs: Arrays, outputs: Sequence[str], timeout: float) -> Arrays:
        """Named outputs of a signature; all if none are named."""
        request = messages.PredictRequest(model_spec=self._spec(signature), output_filter=outputs)
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(to_proto(array))
        response = self._call(messages.PREDICTION, "Predict", request, messages.PredictResponse, timeout)
        return {name: from_proto(message) for name, message in response.outputs.items()}

    def states(self, timeout: float) -> dict[int, str]:
        """Versions of the model and what state they are in."""
        request = messages.GetModelStatusRequest(model_spec=self._spec())
        response = self._call(messages.MODEL, "GetModelStatus", request, messages.GetModelStatusResponse, timeout)
        return {one.version: messages.STATES.get(one.state, "UNKNOWN") for one in response.model_version_status}

    def close(self) -> None:
        """Ends the connection; requests under way fail."""
        self._channel.close()

    def _spec(self, signature: str = "") -> Any:
        spec = messages.ModelSpec(name=self._target.name, signature_name=signature)
        if self._target.version is not None:
            spec.version.value = self._target.version
        if self._target.label is not None:
            spec.version_label = self._target.label
        return spec

    def _call(self, service: str, method: str, request: Any, response: Any, timeout: float) -> Any:
        call = self._channel.unary_unary(f"/{service}/{method}", lambda value: value.SerializeToString(), bytes)
        try:
            return response.FromString(call(request, timeout=timeout))
        except grpc.RpcError as error:
            raise ServingError(error.code().name, error.details() or "no reason given") from None


class Rest:
    """Requests to a server's HTTP port, in TF Serving's JSON."""

    def __init__(self, address: str, target: Target, tls: Tls | None, max_bytes: int) -> None:
        self._address, self._max_bytes = address, max_bytes
        self._context = None if tls is None else _context(tls)
        place = f"/versions/{target.version}" if target.version is not None else ""
        place = f"/labels/{quote(target.label, safe='')}" if target.label is not None else place
        self._path = f"/v1/models/{quote(target.name, safe='')}{place}"
        self._idle: deque[http.client.HTTPConnection] = deque()
        self._is_closed = False

    def predict(self, signature: str, inputs: Arrays, outputs: Sequence[str], timeout: float) -> Arrays:
        """Named outputs of a signature; all if none are named. They are dropped here: JSON has no output filter."""
        columns = {name: _to_json(array) for name, array in inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": columns}).encode()
        answer = self._call("POST", self._path + ":predict", body, timeout, "outputs", dict)
        return {
            name: np.array(values, OUTPUT_TYPES.get(name))
            for name, values in answer.items()
            if not outputs or name in outputs
        }

    def states(self, timeout: float) -> dict[int, str]:
        """Versions of the model and what state they are in."""
        answer = self._call("GET", self._path, None, timeout, "model_version_status", list)
        return {int(one["version"]): str(one["state"]) for one in answer}

    def close(self) -> None:
        """Ends the connections that no request uses, and each of the others after its request."""
        self._is_closed = True
        self._end_idle()

    def _end_idle(self) -> None:
        with suppress(IndexError):  # another thread may take the last one
            while True:
                self._idle.pop().close()

    def _call(self, method: str, path: str, body: bytes | None, timeout: float, key: str, kind: type[T]) -> T:
        """The value of a key in the answer."""
        try:
            with self._connection(timeout) as connection:
                connection.request(method, path, body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                data = response.read(self._max_bytes + 1)
                if len(data) > self._max_bytes:
                    raise ServingError(RESOURCE_EXHAUSTED, f"an answer of more than {self._max_bytes} bytes")
        except TimeoutError:
            raise ServingError(DEADLINE_EXCEEDED, f"no answer within {timeout:.1f} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise ServingError(UNAVAILABLE, str(error) or type(error).__name__) from None
        try:
            answer = json.loads(data)
        except ValueError:
            answer = {"error": data[:200].decode("utf-8", "replace")}
        if response.status != 200:
            reason = str(answer.get("error", "")) if isinstance(answer, Mapping) else ""
            raise ServingError(HTTP_CODES.get(response.status, UNKNOWN), reason or response.reason)
        found = answer.get(key) if isinstance(answer, Mapping) else None
        if not isinstance(found, kind):
            raise ServingError(UNKNOWN, f"expected a JSON object with {key!r}, found {data[:100]!r}")
        return found

    @contextmanager
    def _connection(self, timeout: float) -> Iterator[http.client.HTTPConnection]:
        """Yields a connection whose every step may take so many seconds, and keeps it open for another request."""
        try:
            connection = self._idle.pop()
        except IndexError:
            if self._context is None:
                connection = http.client.HTTPConnection(self._address)
            else:
                connection = http.client.HTTPSConnection(self._address, context=self._context)
        connection.timeout = timeout
        if isinstance(connection.sock, socket.socket):
            connection.sock.settimeout(timeout)
        try:
            yield connection
        except BaseException:
            connection.close()
            self._end_idle()  # the server may have ended these, too: no retry should find that out
            raise
        self._idle.append(connection)
        if self._is_closed:
            self._end_idle()


def _context(tls: Tls) -> ssl.SSLContext:
    if tls.key is not None or tls.certificate is not None:
        raise ValueError("a client's own certificate works over gRPC alone")
    try:
        return ssl.create_default_context(cadata=None if tls.roots is None else tls.roots.decode())
    except (ssl.SSLError, ValueError):
        raise ValueError("the certificates to trust are none in PEM") from None


def _to_json(array: np.ndarray) -> Any:
    if array.dtype != np.object_:
        return array.tolist()
    return [{"b64": base64.b64encode(item).decode()} for item in array.ravel()]
