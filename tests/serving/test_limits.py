"""Limits of a server: images of a request, rows of a batch, bytes of all requests, and memory."""

from __future__ import annotations

import base64
import contextlib
import functools
import gc
import gzip
import json
import re
import threading
import time
import urllib.request
import weakref
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.protocol import messages
from maskx_tf.protocol.tensors import to_proto
from maskx_tf.serving.client import Client, ServingError
from maskx_tf.serving.server.batching import Parameters
from maskx_tf.serving.server.budget import Budget, Share
from maskx_tf.serving.server.service import Limits, Service
from maskx_tf.serving.server.versions import Version, Versions
from tests.export.exported import encoded, picture
from tests.serving.running import Place, command, fetch, running, shared
from tests.serving.toys import write_toy, x

PREDICT = "/tensorflow.serving.PredictionService/Predict"
MEGABYTE = 2**20


@pytest.fixture
def service(tmp_path, monkeypatch) -> Iterator[tuple[Service, list[int]]]:
    """A service of a toy, and the rows of each call of its model."""
    write_toy(tmp_path, 1)
    versions = Versions(tmp_path, "toy", keep=1, settled=0.0)
    versions.open()
    rows: list[int] = []
    run = Version.run

    def watched(self, signature, inputs):
        rows.append(len(inputs["x"]))
        return run(self, signature, inputs)

    monkeypatch.setattr(Version, "run", watched)
    one = Service(versions, Parameters(max_batch_size=4, num_batch_threads=2), Limits(max_images=10))
    yield one, rows
    one.batcher.close()


def test_a_request_runs_in_slices(service) -> None:
    one, rows = service
    values = [float(value) for value in range(10)]
    _, outputs = one.predict("grpc", ("toy", None), "", x(*values), ())
    assert outputs["y"].ravel().tolist() == [value + 1 for value in values]
    assert sorted(rows) == [2, 4, 4]
    with pytest.raises(
        ServingError, match="RESOURCE_EXHAUSTED: serving_default: a request of 11 images, expected at most 10"
    ):
        one.predict("grpc", ("toy", None), "", x(*values, 10.0), ())
    assert len(rows) == 3


def test_a_failed_request_withdraws_its_slices(service) -> None:
    one, rows = service
    with pytest.raises(ServingError, match="DEADLINE_EXCEEDED"):
        one.predict("grpc", ("toy", None), "", x(*[20_000.0] * 10), (), seconds=0.1)
    until = time.monotonic() + 60
    while one.batcher.waiting() and time.monotonic() < until:
        time.sleep(0.01)
    assert len(rows) <= 2


def test_requests_that_are_late_in_the_queue_stop_no_thread(service, monkeypatch) -> None:
    one, _ = service
    opened, run = threading.Event(), Version.run
    monkeypatch.setattr(Version, "run", lambda self, *given: run(self, *given) if opened.wait(30) else {})
    ask = functools.partial(one.predict, "grpc", ("toy", None), "", x(1.0), ())
    with ThreadPoolExecutor(2) as pool:
        slow = [pool.submit(ask) for _ in range(2)]  # one for each thread
        for _ in range(2):
            with pytest.raises(ServingError, match="DEADLINE_EXCEEDED"):
                ask(seconds=0.05)
        opened.set()
        answers = [*(each.result() for each in slow), ask(seconds=5)]
    assert [float(outputs["y"][0, 0]) for _, outputs in answers] == [2.0, 2.0, 2.0]


def test_a_request_that_failed_leaves_nothing_in_memory(service) -> None:
    """Not even until Python's garbage collector runs, which may take long."""
    one, _ = service
    inputs = x(*[20_000.0] * 3)
    gone = weakref.ref(inputs["x"])
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(ServingError):
            one.predict("grpc", ("toy", None), "", inputs, (), seconds=0.05)
        with contextlib.suppress(ServingError):
            one.predict("grpc", ("toy", None), "none", inputs, ())
        del inputs
        until = time.monotonic() + 60
        while gone() is not None and time.monotonic() < until:
            time.sleep(0.05)
        assert gone() is None
    finally:
        gc.enable()


def test_more_slices_than_the_queue_holds(tmp_path) -> None:
    write_toy(tmp_path, 1)
    versions = Versions(tmp_path, "toy", keep=1, settled=0.0)
    versions.open()
    one = Service(versions, Parameters(max_enqueued_batches=1, num_batch_threads=1), Limits())
    _, outputs = one.predict("grpc", ("toy", None), "", x(*[1.0] * 64), ())
    assert outputs["y"].ravel().tolist() == [2.0] * 64
    one.batcher.close()


def test_a_thousand_images() -> None:
    files = [encoded(picture(8, 8), "JPEG")] * 1000
    place = shared()
    for address in place:
        with Client(address) as client, pytest.raises(ServingError) as caught:
            client.detect_files(files)
        assert caught.value.code == "RESOURCE_EXHAUSTED"
        assert caught.value.reason == "serving_default: a request of 1000 images, expected at most 64"
    body = {"inputs": [{"b64": base64.b64encode(file).decode()} for file in files]}
    assert fetch(f"{place.rest}/v1/models/pets:predict", body)[0] == 413


def test_bytes_of_all_requests_together() -> None:
    budget = Budget(100)
    with Share(budget) as one, Share(budget) as other:
        one.set(60)
        one.set(70)
        with pytest.raises(ServingError, match="RESOURCE_EXHAUSTED: the server holds 70 bytes of requests"):
            other.set(40)
        other.set(50, refuse=False)  # an answer, which exists already
        assert budget.held() == 120
        one.set(10)
    assert budget.held() == 0


def test_requests_beyond_the_bytes_that_are_held(tmp_path) -> None:
    write_toy(tmp_path / "toy", 1)
    limits = Limits(max_bytes=MEGABYTE, max_held_bytes=MEGABYTE)
    slow = json.dumps({"instances": [[20_000]], "signature_name": ""}).encode() + b" " * (MEGABYTE // 2)
    with running(tmp_path / "toy", "toy", limits=limits) as place, ThreadPoolExecutor(4) as pool:
        url = f"{place.rest}/v1/models/toy:predict"
        found = list(pool.map(lambda _: fetch(url, slow), range(4)))
        assert {status for status, _ in found} == {200, 429}
        assert fetch(url, slow)[0] == 200  # and nothing is held for good
        text = fetch(f"{place.rest}/metrics")[1]
        assert "maskx_held_bytes 0.0" in text


def test_a_small_message_of_a_large_tensor(tmp_path) -> None:
    """The last value of a message stands for all that follow: nine bytes can ask for a gigabyte."""
    write_toy(tmp_path / "toy", 1)
    message = messages.PredictRequest()
    tensor = message.inputs["x"]
    tensor.dtype = tf.float32.as_datatype_enum
    tensor.float_val.append(0.0)
    for size in (2**20, 1):
        tensor.tensor_shape.dim.add(size=size)
    limits = Limits(max_bytes=MEGABYTE)
    with running(tmp_path / "toy", "toy", limits=limits) as place, grpc.insecure_channel(place.grpc) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(PREDICT, bytes, bytes)(message.SerializeToString())
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details() == "a tensor of 1048576 elements has 1 values"


def high_water(process: int) -> float:
    """The most memory that a process ever had, in MB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def exhausting(place: Place, megabytes: int) -> list:
    """Requests that try to make a server take memory, each as a function."""
    size = megabytes * MEGABYTE
    url = f"{place.rest}/v1/models/toy:predict"
    channel = grpc.insecure_channel(place.grpc, [("grpc.max_send_message_length", -1)])

    def call(message, path: str = PREDICT, compression: grpc.Compression = grpc.Compression.NoCompression):
        data = message if isinstance(message, bytes) else message.SerializeToString()
        method = channel.unary_unary(path, bytes, bytes)
        return lambda: method(data, timeout=60, compression=compression)

    def post(body: bytes, encoding: str = "identity"):
        def send():
            request = urllib.request.Request(url, body, {"Content-Encoding": encoding})
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read()

        return send

    rows = messages.PredictRequest()
    rows.inputs["x"].CopyFrom(to_proto(np.zeros([size // 4 - 100, 1], np.float32)))
    large = messages.PredictRequest()
    large.inputs["x"].CopyFrom(large.inputs["x"].__class__(dtype=1, float_val=[0.0]))
    for count in (size // 4, 1):
        large.inputs["x"].tensor_shape.dim.add(size=count)
    names = messages.PredictRequest()
    names.model_spec.signature_name = "x" * (size - 100)
    over = messages.PredictRequest()
    over.model_spec.signature_name = "x" * (2 * size)
    filters = messages.PredictRequest(output_filter=["y"] * (size // 4))
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b"".join([*(bomb.compress(bytes(MEGABYTE)) for _ in range(200)), bomb.flush()])
    return [
        call(rows),
        call(large),
        call(names),
        call(over),
        call(filters),
        call(b"\x12\x00" * (size // 2)),  # entries of a map
        call(over, compression=grpc.Compression.Gzip),
        call(names, "/grpc.health.v1.Health/Check"),
        call(b"\x12\x00" * (size // 2), "/tensorflow.serving.PredictionService/GetModelMetadata"),
        post(b'{"inputs": [' + b"[0]," * (size // 4 - 10) + b"[0]]}"),
        post(b'{"inputs": [' + b"[]," * (size // 3 - 10) + b"[]]}"),
        post(b'{"inputs": [{"b64": "' + b"A" * (size - 100) + b'"}]}'),
        post(b'{"inputs": ["' + b"\\u0041" * (size // 6 - 100) + b'"]}'),
        post(b'{"signature_name": "' + b"x" * (size - 100) + b'", "inputs": [[0]]}'),
        post(packed, "gzip"),
        post(gzip.compress(b'{"inputs": [' + b"[]," * (size // 9) + b"[]]}"), "gzip"),
        post(b"x" * (3 * size)),
        post(json.dumps({"inputs": [[0]] * 64}).encode()),
    ]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
def test_memory_over_2000_requests_that_try_to_exhaust_it(tmp_path) -> None:
    """The bound of docs/serving.md, above what the idle server takes."""
    megabytes, held = 4, 16
    write_toy(tmp_path / "toy", 1)
    settings = ["--max-megabytes", str(megabytes), "--held-megabytes", str(held)]
    with command(tmp_path / "toy", *settings) as (place, process), ThreadPoolExecutor(16) as pool:
        requests = exhausting(place, megabytes)
        outcomes: dict[str, int] = {}
        lock = threading.Lock()

        def ask(index: int) -> None:
            try:
                requests[index % len(requests)]()
                outcome = "answered"
            except Exception as error:
                outcome = str(getattr(error, "code", "cut off"))
                if isinstance(error, grpc.RpcError):
                    outcome = error.code().name
            with lock:
                outcomes[outcome] = outcomes.get(outcome, 0) + 1

        before = high_water(process.pid)
        list(pool.map(ask, range(2000)))
        after = high_water(process.pid)
        print(f"{before:.0f} MB, after 2000 requests at most {after:.0f} MB: {outcomes}")
        assert sum(outcomes.values()) == 2000
        assert after - before < 150 + held + 40 * megabytes
        assert fetch(f"{place.rest}/v1/models/toy:predict", {"instances": [[5]]})[0] == 200
