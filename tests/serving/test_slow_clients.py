"""Clients that are slow or silent, disconnect, or send bodies that take long to read."""

from __future__ import annotations

import inspect
import json
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from uvicorn.protocols.http.h11_impl import H11Protocol

from maskx_tf.protocol import messages
from maskx_tf.serving.server import arrivals, rest_json, rest_port
from maskx_tf.serving.server.batching import Parameters
from maskx_tf.serving.server.service import Limits
from maskx_tf.serving.status import ServingError
from tests.serving.running import Place, address, fetch, running, talk
from tests.serving.toys import write_toy

BODY = json.dumps({"instances": [[5]]}).encode()
ANSWER = {"predictions": [{"y": [6.0]}]}
PREDICT = "/v1/models/toy:predict"
POST = b"POST " + PREDICT.encode() + b" HTTP/1.1\r\nHost: localhost\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
BIG = Parameters(max_batch_size=400_000, together=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("slow") / "toy"
    write_toy(path, 1)
    return path


@pytest.fixture(scope="module")
def place(folder) -> Iterator[Place]:
    with running(folder, "toy") as one:
        yield one


def wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        threading.Event().wait(0.02)


def figures(place: Place) -> str:
    return fetch(f"{place.rest}/metrics")[1]


def batches(place: Place) -> float:
    return float(figures(place).split("maskx_batch_images_count ")[1].split()[0])


def post(body: bytes) -> bytes:
    return POST + b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body


def test_uvicorn_has_what_we_override() -> None:
    """Methods of uvicorn's class that ours extends or calls: a new version may have renamed them."""
    parts = inspect.signature(H11Protocol.__init__).parameters
    assert {"config", "server_state", "app_state"} <= set(parts)
    for name in ("connection_made", "connection_lost", "data_received", "pause_writing", "resume_writing"):
        assert name in vars(H11Protocol)  # of asyncio.Protocol
    for name in ("on_response_complete", "send_400_response"):
        assert name in vars(H11Protocol)
        assert name in inspect.getsource(H11Protocol)
    own = inspect.getsource(H11Protocol.__init__)
    for name in ("conn", "connections", "cycle", "loop", "transport"):
        assert f"self.{name}" in own


def test_slow_connections_do_not_block_others(place) -> None:
    silent = [socket.create_connection(address(place)) for _ in range(130)]
    try:
        for one in silent:
            one.sendall(b"POST /v1/models/toy:predict HTTP/1.1\r\nHost: loc")
        assert fetch(f"{place.rest}/healthz") == (200, "ok\n")
        assert fetch(f"{place.rest}{PREDICT}", BODY) == (200, ANSWER)
    finally:
        for one in silent:
            one.close()


def test_half_a_header_is_not_waited_for_long(place, monkeypatch) -> None:
    monkeypatch.setattr(rest_port, "HEADER_SECONDS", 0.1)
    for start in (b"", b"GET / HTTP/1.1\r\nHost: loc", HEALTH + b"\r\nGET /"):
        received = talk(place, start)
        assert b"HTTP/1.1 408" in received
        assert json.loads(received.rpartition(b"\r\n\r\n")[2])["error"].startswith("no request within")


def test_half_a_body_is_not_waited_for_long(folder) -> None:
    with running(folder, "toy", limits=Limits(seconds=0.2)) as place:
        received = talk(place, POST + b"Connection: close\r\nContent-Length: 100\r\n\r\n{")
    assert received.startswith(b"HTTP/1.1 408")
    assert json.loads(received.partition(b"\r\n\r\n")[2]) == {"error": "the request did not arrive in time"}


def test_too_many_connections(place, monkeypatch) -> None:
    monkeypatch.setattr(rest_port, "MOST_CONNECTIONS", 3)
    some = [socket.create_connection(address(place)) for _ in range(3)]
    try:
        received = talk(place, b"")
        assert received.startswith(b"HTTP/1.1 503")
        assert json.loads(received.partition(b"\r\n\r\n")[2]) == {"error": "the server has too many connections"}
    finally:
        for one in some:
            one.close()
    wait(lambda: fetch(f"{place.rest}/healthz")[0] == 200)


def test_a_client_that_does_not_read_is_cut_off(folder, monkeypatch) -> None:
    monkeypatch.setattr(rest_port, "SLOWEST", (2**16, 0.1))
    with running(folder, "toy", limits=Limits(max_images=400_000), batching=BIG) as place, socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect(address(place))
        one.sendall(post(b'{"inputs": [' + b"[0]," * 100_000 + b"[0]]}"))
        wait(lambda: "maskx_held_bytes 0.0" not in figures(place))
        wait(lambda: "maskx_held_bytes 0.0" in figures(place))


def test_requests_of_a_disconnected_client_are_not_run(place) -> None:
    slow, before = json.dumps({"instances": [[30_000]] * 20}).encode(), batches(place)
    with socket.create_connection(address(place)) as one:
        one.sendall(post(slow))
        wait(lambda: batches(place) > before)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    counted = 'maskx_requests_total{code="CANCELLED",port="rest",signature="serving_default"} 1.0'
    wait(lambda: counted in figures(place))
    assert batches(place) - before < 20


def test_many_values_are_read_in_another_process(place, monkeypatch) -> None:
    def refuse(body):
        raise AssertionError("reading this here would keep every thread waiting")

    monkeypatch.setattr(rest_json, "parse", refuse)
    monkeypatch.setattr(rest_json, "MEMORY_PER_BYTE", 1)
    url = f"{place.rest}{PREDICT}"
    status, answer = fetch(url, json.dumps({"inputs": [[1]] * 300_000}).encode())
    assert (status, answer["error"][:40]) == (413, "serving_default: a request of 300000 ima")
    status, answer = fetch(url, b'{"inputs": [' + b"[]," * 4_000_000 + b"[]]}")
    assert (status, "takes more than" in answer["error"]) == (413, True)


def test_ctrl_c_does_not_reach_the_process_that_reads(tmp_path, monkeypatch) -> None:
    reader, group = tmp_path / "reader", tmp_path / "group"
    reader.write_text(
        f"#!{sys.executable}\nimport os\nopen({str(group)!r}, 'w').write(str(os.getpgrp()))\nos._exit(1)\n"
    )
    reader.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(reader))
    with pytest.raises(ServingError, match="takes more than"):
        rest_json.parse_apart(b"{}", 30)
    assert int(group.read_text()) != os.getpgrp()


def test_half_a_grpc_request_is_not_waited_for_long(place, monkeypatch) -> None:
    """More requests without a message than may arrive at a time, and then a good one."""
    monkeypatch.setattr(arrivals, "ARRIVAL", 0.3)
    with grpc.insecure_channel(place.grpc) as channel:
        call = channel.stream_unary("/tensorflow.serving.ModelService/GetModelStatus", bytes, bytes)
        never = threading.Event()

        def nothing() -> Iterator[bytes]:
            never.wait(60)
            yield from ()

        calls = [call.future(nothing(), timeout=60) for _ in range(3 * arrivals.AT_ONCE)]
        found = {one.code() for one in calls}
        never.set()
        assert found <= {grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert call(iter([b""]), timeout=60)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def held(place: Place) -> float:
    return float(figures(place).split("maskx_held_bytes ")[-1].split()[0])


def test_a_grpc_answer_that_nobody_reads_is_counted_and_then_dropped(folder, monkeypatch) -> None:
    """The client speaks HTTP/2 by hand, to allow the server no byte of an answer."""
    rows = 100_000
    message = messages.PredictRequest()
    tensor = message.inputs["x"]
    tensor.dtype, tensor.float_val[:] = 1, [0.0]  # stands for all
    for size in (rows, 1):
        tensor.tensor_shape.dim.add(size=size)
    data = message.SerializeToString()
    fields = [(":method", "POST"), (":scheme", "http"), (":path", "/tensorflow.serving.PredictionService/Predict")]
    fields += [(":authority", "localhost"), ("content-type", "application/grpc"), ("te", "trailers")]
    headers = b"".join(bytes([0, len(name), *name.encode(), len(value), *value.encode()]) for name, value in fields)

    def ask(one: socket.socket) -> None:
        one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, struct.pack("!HI", 4, 0)))
        one.sendall(frame(4, 1, 0, b""))  # without this answer to the server's settings, it would close the connection
        one.sendall(frame(1, 4, 1, headers) + frame(0, 1, 1, b"\0" + len(data).to_bytes(4, "big") + data))

    with running(folder, "toy", limits=Limits(max_images=rows), batching=BIG) as place:
        with socket.create_connection(("127.0.0.1", int(place.grpc.rpartition(":")[2]))) as one:
            ask(one)
            wait(lambda: 'requests_total{code="OK",port="grpc"' in figures(place))
            threading.Event().wait(0.1)  # until the answer is made
            assert held(place) > 4 * rows
        wait(lambda: held(place) == 0)
        monkeypatch.setattr(arrivals, "READING", 0.5)
        with socket.create_connection(("127.0.0.1", int(place.grpc.rpartition(":")[2]))) as one:
            ask(one)
            wait(lambda: held(place) > 4 * rows)
            wait(lambda: held(place) == 0)


def test_nobody_can_keep_threads_with_reflection(place, monkeypatch) -> None:
    monkeypatch.setattr(arrivals, "ARRIVAL", 0.2)
    with grpc.insecure_channel(place.grpc) as channel:
        path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        answers = channel.stream_stream(path, bytes, bytes)(iter(threading.Event().wait, None))
        with pytest.raises(grpc.RpcError) as caught:
            list(answers)
        assert caught.value.code() == grpc.StatusCode.CANCELLED


def test_nobody_can_keep_all_threads_with_streams(place, monkeypatch) -> None:
    with grpc.insecure_channel(place.grpc) as channel:
        path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        streams = [channel.stream_stream(path, bytes, bytes)(iter(threading.Event().wait, None)) for _ in range(200)]
        status = channel.unary_unary("/tensorflow.serving.ModelService/GetModelStatus", bytes, bytes)
        assert status(b"", timeout=60)
        for one in streams:
            one.cancel()


def test_nobody_can_fill_the_memory_with_names_of_services(place) -> None:
    with grpc.insecure_channel(place.grpc) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch
        with pytest.raises(grpc.RpcError) as caught:
            next(watch(health_pb2.HealthCheckRequest(service="x" * 1000)))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        known = watch(health_pb2.HealthCheckRequest(service="tensorflow.serving.PredictionService"))
        assert next(known).status == health_pb2.HealthCheckResponse.SERVING
        known.cancel()
