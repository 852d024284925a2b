"""The local server, asked by the official stubs, by REST and by our client."""

from __future__ import annotations

import base64
import http.client
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

pytest.importorskip("tensorflow_serving.apis", reason="the extra dev is missing")
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from maskx_tf import cli
from maskx_tf.errors import BadInput
from maskx_tf.serving.client import Client, ServingError, Tls
from maskx_tf.serving.server import server as server_module
from maskx_tf.serving.server import versions
from maskx_tf.serving.server.batching import Parameters
from maskx_tf.serving.server.server import Options, Server
from maskx_tf.serving.server.service import Limits
from tests.export.exported import SIZES, detections, encoded, picture, signatures
from tests.models.small import assert_same_detections
from tests.serving.running import PORTS, QUICK, command, fetch, running, shared
from tests.serving.test_client import certificate
from tests.serving.toys import write_toy

PICTURES = [picture(*size, seed) for seed, size in enumerate(SIZES)]
FILES = [encoded(pixels) for pixels in PICTURES]
GREY_LEVEL = 1.01 / 255


@pytest.fixture(scope="module")
def place():
    return shared()


@pytest.fixture(scope="module")
def stubs(place):
    with grpc.insecure_channel(place.grpc) as channel:
        yield (
            prediction_service_pb2_grpc.PredictionServiceStub(channel),
            model_service_pb2_grpc.ModelServiceStub(channel),
        )


def expected(index: int):
    return detections(signatures()["serving_default"](image_bytes=tf.constant([FILES[index]])), 0)


def request(**inputs):
    message = predict_pb2.PredictRequest()
    message.model_spec.name = "pets"
    for name, value in inputs.items():
        message.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return message


def test_a_stock_client(stubs) -> None:
    response = stubs[0].Predict(request(image_bytes=FILES), timeout=60)
    assert response.model_spec.version.value == 1
    outputs = {name: tf.make_ndarray(value) for name, value in response.outputs.items()}
    for index in range(len(FILES)):
        assert_same_detections(detections(outputs, index), expected(index), tolerance=GREY_LEVEL)
    pixels = request(input_tensor=PICTURES[0][None])
    pixels.model_spec.signature_name = "image_tensor"
    pixels.output_filter.append("detection_boxes")
    answer = stubs[0].Predict(pixels, timeout=60).outputs
    assert list(answer) == ["detection_boxes"]
    np.testing.assert_allclose(tf.make_ndarray(answer["detection_boxes"]), outputs["detection_boxes"][:1], atol=1e-4)


def test_metadata_of_the_model(stubs, place) -> None:
    asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    asked.model_spec.name = "pets"
    packed = stubs[0].GetModelMetadata(asked).metadata["signature_def"]
    described = get_model_metadata_pb2.SignatureDefMap()
    assert packed.Unpack(described)
    assert set(described.signature_def) == {"serving_default", "image_tensor", "segment_boxes"}
    boxes = described.signature_def["segment_boxes"].inputs["boxes"]
    assert boxes.dtype == tf.float32.as_datatype_enum
    assert [dim.size for dim in boxes.tensor_shape.dim] == [-1, -1, 4]
    asked = get_model_status_pb2.GetModelStatusRequest()
    asked.model_spec.name = "pets"
    (one,) = stubs[1].GetModelStatus(asked).model_version_status
    assert (one.version, one.state) == (1, get_model_status_pb2.ModelVersionStatus.AVAILABLE)
    number, answer = fetch(f"{place.rest}/v1/models/pets/versions/1/metadata")
    assert number == 200
    inputs = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
    assert inputs["image_bytes"]["dtype"] == "DT_STRING"
    assert inputs["image_bytes"]["tensor_shape"]["dim"] == [{"size": "-1", "name": ""}]
    status = fetch(f"{place.rest}/v1/models/pets")[1]["model_version_status"]
    assert status == [{"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}]


def test_what_the_model_cannot_do_is_refused(stubs, place) -> None:
    for call, message in (
        (stubs[0].Classify, classification_pb2.ClassificationRequest()),
        (stubs[0].Regress, regression_pb2.RegressionRequest()),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(message)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "use Predict" in caught.value.details()
    assert fetch(f"{place.rest}/v1/models/pets:classify", {"examples": []})[0] == 400


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def test_rest_in_rows_and_columns(place) -> None:
    url = f"{place.rest}/v1/models/pets:predict"
    rows = [
        fetch(url, {"instances": rows})[1]["predictions"]
        for rows in ([b64(file) for file in FILES], [{"image_bytes": b64(file)} for file in FILES])
    ]
    assert rows[0] == rows[1]
    columns = fetch(url, {"inputs": [b64(file) for file in FILES]})[1]["outputs"]
    assert columns == fetch(url, {"inputs": {"image_bytes": [b64(file) for file in FILES]}})[1]["outputs"]
    pixels = {"signature_name": "image_tensor", "instances": PICTURES[0][None].tolist()}
    tensor = fetch(f"{place.rest}/v1/models/pets/versions/1:predict", pixels)[1]["predictions"]
    for index in range(len(FILES)):
        for outputs in (
            {name: [value] for name, value in rows[0][index].items()},
            {name: value[index : index + 1] for name, value in columns.items()},
        ):
            assert_same_detections(detections(outputs, 0), expected(index), tolerance=GREY_LEVEL)
        assert rows[0][index]["detection_class_names"][0] in ("cat", "dog", "horse")
    assert_same_detections(
        detections({name: [value] for name, value in tensor[0].items()}, 0), expected(0), tolerance=GREY_LEVEL
    )


@pytest.mark.parametrize("way", ["grpc", "rest"])
def test_our_client(place, way) -> None:
    with Client(getattr(place, way)) as client:  # without a name: there is one model
        for index, answer in enumerate(client.stream(FILES, concurrency=3)):
            wanted = expected(index)
            np.testing.assert_allclose(answer.detections.boxes, wanted.boxes, atol=1e-2)
            np.testing.assert_allclose(answer.detections.masks, wanted.masks, atol=GREY_LEVEL)
        found = client.detect(PICTURES[1], parts=["boxes", "scores"])
        assert found.detections.masks is None
        again = client.segment(FILES[1], found.detections.boxes, found.size)
        assert len(again.detections.masks) == len(found.detections.boxes)
        assert client.states() == {1: "AVAILABLE"}
        with pytest.raises(ServingError) as caught:
            client.segment(FILES[1], np.zeros([1001, 4]), found.size)
        assert (caught.value.code, caught.value.reason) == ("INVALID_ARGUMENT", "boxes: expected at most 1000 an image")
    with Client(getattr(place, way), version=7) as client, pytest.raises(ServingError) as caught:
        client.detect(FILES[0])
    assert caught.value.code == "NOT_FOUND"


def test_health_and_figures(place) -> None:
    with Client(place.grpc) as client:
        client.detect_files([FILES[0], b"no image"])
    for path in ("healthz", "readyz"):
        assert fetch(f"{place.rest}/{path}") == (200, "ok\n")
    with grpc.insecure_channel(place.grpc) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check", bytes, bytes)
        assert check(b"") == b"\x08\x01"  # status: SERVING
    number, text = fetch(f"{place.rest}/monitoring/prometheus/metrics")
    assert number == 200
    lines = text.splitlines()
    assert any(line.startswith('maskx_images_total{status="not_an_image"} ') for line in lines)
    assert 'maskx_version_state{version="1"} 30.0' in lines
    counts = {line.split(" ")[0]: float(line.split(" ")[1]) for line in lines if line[0] != "#"}
    assert (
        counts['maskx_request_seconds_bucket{le="+Inf",port="grpc"}']
        == counts['maskx_request_seconds_count{port="grpc"}']
        > 0
    )
    assert counts['maskx_requests_total{code="OK",port="grpc",signature="serving_default"}'] > 0
    assert fetch(f"{place.rest}/nothing")[0] == 404
    assert fetch(f"{place.rest}/labels.json")[1]["labels"][0]["name"] == "cat"


def test_requests_at_the_same_time(place) -> None:
    def batches() -> float:
        text = fetch(f"{place.rest}/metrics")[1]
        return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith("maskx_batch_images_count"))

    before = batches()
    with Client(place.grpc) as client:
        for index, answer in enumerate(client.stream(FILES * 2, concurrency=8)):
            wanted = expected(index % len(FILES))
            np.testing.assert_allclose(answer.detections.boxes, wanted.boxes, atol=1e-2)
            np.testing.assert_allclose(answer.detections.masks, wanted.masks, atol=GREY_LEVEL)
        assert batches() - before < 8
        for index, answer in enumerate(client.detect_files(FILES * 3)):  # in slices of four
            np.testing.assert_allclose(answer.detections.boxes, expected(index % len(FILES)).boxes, atol=1e-2)


def toy_request(rounds: float):
    message = predict_pb2.PredictRequest()
    message.inputs["x"].CopyFrom(tf.make_tensor_proto(np.float32([[rounds]])))
    return message


SLOW = 60_000  # rounds of the toy: about a second


def test_limits(tmp_path) -> None:
    write_toy(tmp_path / "toy", 1)
    limited = Parameters(max_enqueued_batches=2, num_batch_threads=1)
    with running(tmp_path / "toy", "toy", batching=limited, limits=Limits(max_bytes=100_000, seconds=0.3)) as place:
        with grpc.insecure_channel(place.grpc) as channel:
            predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
            with pytest.raises(grpc.RpcError) as caught:
                predict(toy_request(SLOW), timeout=0.2)
            assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            slow = [predict.future(toy_request(SLOW)) for _ in range(6)]
            found = [call.code() for call in slow]
            assert found.count(grpc.StatusCode.OK) >= 2
            assert set(found) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
            message = toy_request(0)
            message.model_spec.signature_name = "x" * 200_000
            with pytest.raises(grpc.RpcError) as caught:
                predict(message)
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert tf.make_ndarray(predict(toy_request(5)).outputs["y"]) == [[6.0]]
        url = f"{place.rest}/v1/models/toy:predict"
        assert fetch(url, {"instances": [[SLOW]]}) == (504, {"error": "the deadline passed"})
        assert fetch(url, b"x" * 100_001)[0] == 413


def test_a_client_that_goes_away(tmp_path) -> None:
    write_toy(tmp_path / "toy", 1)
    with running(tmp_path / "toy", "toy", batching=Parameters(num_batch_threads=1)) as place:
        code = (
            "import sys, grpc\n"
            "call = grpc.insecure_channel(sys.argv[1]).unary_unary(sys.argv[2], bytes, bytes)\n"
            "waiting = call.future(bytes.fromhex(sys.argv[3]))\n"
            "print('sent', flush=True)\n"
            "waiting.result()\n"
        )
        path = "/tensorflow.serving.PredictionService/Predict"
        arguments = [place.grpc, path, toy_request(SLOW).SerializeToString().hex()]
        process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.2)
        process.kill()
        process.wait()
        process.stdout.close()
        assert fetch(f"{place.rest}/v1/models/toy:predict", {"instances": [[5]]}) == (
            200,
            {"predictions": [{"y": [6.0]}]},
        )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_loses_nothing_that_was_accepted(tmp_path, number) -> None:
    write_toy(tmp_path / "toy", 1)
    with command(tmp_path / "toy", "--grace", "300") as (place, process), grpc.insecure_channel(place.grpc) as channel:
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        url = f"{place.rest}/v1/models/toy:predict"
        with ThreadPoolExecutor(4) as pool:
            calls = [predict.future(toy_request(SLOW / 2)) for _ in range(4)]
            posts = [pool.submit(fetch, url, {"instances": [[SLOW / 2]]}) for _ in range(4)]
            until = time.monotonic() + 30
            while "maskx_queue_images 6" not in fetch(f"{place.rest}/metrics")[1] and time.monotonic() < until:
                time.sleep(0.01)
            process.send_signal(number)
            assert [call.code() for call in calls] == [grpc.StatusCode.OK] * 4
            assert [post.result()[0] for post in posts] == [200] * 4
        assert process.wait(300) == 0
        with pytest.raises(grpc.RpcError) as caught:
            predict(toy_request(0), timeout=5)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_requests_that_take_longer_than_the_grace_get_an_error(tmp_path, caplog) -> None:
    write_toy(tmp_path / "toy", 1)
    server = Server(tmp_path / "toy", "toy", Options(**QUICK, grace=0.1))
    url = f"http://127.0.0.1:{server.rest_port}"
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(fetch, f"{url}/v1/models/toy:predict", {"instances": [[1.5 * SLOW]]})
        while "maskx_held_bytes 0.0" in fetch(f"{url}/metrics")[1]:
            time.sleep(0.01)
        server.stop()
        assert late.result() == (503, {"error": "the server stopped before the answer was ready"})
    assert not [record for record in caplog.records if record.exc_info]


def test_requests_while_the_server_stops_get_an_error(tmp_path) -> None:
    """Requests that were accepted are answered; others get 503 and JSON over connections old and new, and no reset."""
    write_toy(tmp_path / "toy", 1)
    server = Server(tmp_path / "toy", "toy", Options(**QUICK))
    url = f"http://127.0.0.1:{server.rest_port}"
    kept = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60)
    kept.request("GET", "/healthz")
    assert kept.getresponse().read() == b"ok\n"
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(fetch, f"{url}/v1/models/toy:predict", {"instances": [[SLOW]] * 2})
        while "maskx_held_bytes 0.0" in fetch(f"{url}/metrics")[1]:
            time.sleep(0.01)
        stopping = pool.submit(server.stop)
        until = time.monotonic() + 60
        while fetch(f"{url}/readyz")[0] != 503:
            assert time.monotonic() < until
        assert fetch(f"{url}/v1/models/toy:predict", {"instances": [[1]]}) == (503, {"error": "the server is stopping"})
        assert fetch(f"{url}/healthz") == (200, "ok\n")
        kept.request("POST", "/v1/models/toy:predict", b"{}")
        answer = kept.getresponse()
        assert (answer.status, answer.headers["Connection"]) == (503, "close")
        assert not slow.done()
        assert slow.result() == (200, {"predictions": [{"y": [SLOW + 1.0]}] * 2})
        stopping.result()
    kept.close()
    with pytest.raises(OSError, match="refused"):
        fetch(f"{url}/healthz")


def test_the_ports_come_before_the_model(tmp_path, monkeypatch) -> None:
    write_toy(tmp_path / "toy", 1)
    monkeypatch.setattr(versions, "Version", lambda number, path: pytest.fail("the model was loaded"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for name in ("grpc_port", "rest_port"):
            with pytest.raises(BadInput, match=f"port 127.0.0.1:{port}"):
                Server(tmp_path / "toy", "toy", Options(**{**QUICK, name: port}))
    with pytest.raises(BadInput, match="both a key and a certificate"):
        Server(tmp_path / "toy", "toy", Options(**QUICK, key=tmp_path / "key.pem"))


@pytest.fixture
def signals() -> Iterator[None]:
    """Ctrl-C as Python handles it, and at the end what handled the signals before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_server_that_is_starting(tmp_path, monkeypatch, capsys, number) -> None:
    write_toy(tmp_path / "toy", 1)

    def load(_: int, path: Path) -> None:
        signal.raise_signal(number)
        pytest.fail(f"{path} was loaded all the same")

    monkeypatch.setattr(versions, "Version", load)
    assert cli.run(["serve", str(tmp_path / "toy"), *PORTS]) == 130
    assert capsys.readouterr().err.endswith("maskx: interrupted\n")


def test_what_is_asked_before_the_model_is_loaded(tmp_path, monkeypatch) -> None:
    write_toy(tmp_path / "toy", 1)
    load = versions.Version
    seen: list[Any] = []

    def look(number, path):
        port = RestPort.instance.port
        seen.extend(fetch(f"http://127.0.0.1:{port}/{path}")[0] for path in ("healthz", "readyz", "labels.json"))
        return load(number, path)

    class RestPort(server_module.RestPort):
        instance: Any = None

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            RestPort.instance = self

    monkeypatch.setattr(versions, "Version", look)
    monkeypatch.setattr(server_module, "RestPort", RestPort)
    with running(tmp_path / "toy", "toy"):
        assert seen == [200, 503, 503]


def test_reflection(place) -> None:
    """A client that knows nothing but the port finds the services, their messages and their fields."""
    with grpc.insecure_channel(place.grpc) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        names = set(database.get_services())
        assert names >= {"tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"}
        pool = DescriptorPool(database)
        health = pool.FindServiceByName("grpc.health.v1.Health")
        assert [method.name for method in health.methods] == ["Check", "List", "Watch"][: len(health.methods)]
        (method,) = pool.FindServiceByName("tensorflow.serving.ModelService").methods
        message = message_factory.GetMessageClass(method.input_type)(model_spec={"name": "pets"})
        call = channel.unary_unary("/tensorflow.serving.ModelService/GetModelStatus", bytes, bytes)
        answer = message_factory.GetMessageClass(method.output_type).FromString(call(message.SerializeToString()))
        assert [one.version for one in answer.model_version_status] == [1]


def test_encryption(tmp_path) -> None:
    write_toy(tmp_path / "toy", 1)
    _, cert = certificate(tmp_path)
    files = {"key": tmp_path / "key.pem", "certificate": tmp_path / "cert.pem"}
    with running(tmp_path / "toy", "toy", host="localhost", **files) as place:
        ports = (place.grpc.split(":")[1], place.rest.split(":")[2])
        with Client(f"localhost:{ports[0]}", tls=Tls(cert)) as client:
            assert client.states() == {1: "AVAILABLE"}
        with Client(f"https://localhost:{ports[1]}", tls=Tls(cert)) as client:
            assert client.states() == {1: "AVAILABLE"}
        with Client(f"https://localhost:{ports[1]}", retries=0) as client, pytest.raises(ServingError):
            client.states()


def test_a_silent_connection_does_not_block_others(tmp_path) -> None:
    import socket

    write_toy(tmp_path / "toy", 1)
    start = time.monotonic()
    with running(tmp_path / "toy", "toy") as place:
        host, port = place.rest.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as idle, socket.create_connection((host, int(port))) as half:
            half.sendall(b"POST /v1/models/toy:predict HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
            assert fetch(f"{place.rest}/healthz")[0] == 200
            half.close()
            assert idle.fileno() > 0
            threading.Event().wait(0.1)
    assert time.monotonic() - start < 25  # and not the minute after which an idle connection is dropped


def fails(capsys, *arguments: object) -> str:
    assert cli.run(["serve", *map(str, arguments)]) == 2
    text = capsys.readouterr().err.splitlines()[-1]
    assert text.startswith("maskx: error: ")
    return text


def test_mistakes(capsys, tmp_path) -> None:
    assert "expected a folder of versions" in fails(capsys, tmp_path / "none")
    write_toy(tmp_path / "toy", 1)
    with running(tmp_path / "toy", "toy") as place:
        taken = place.grpc.split(":")[1], place.rest.split(":")[2]
        assert f"gRPC port 127.0.0.1:{taken[0]}" in fails(capsys, tmp_path / "toy", *PORTS, "--grpc-port", taken[0])
        rest = fails(capsys, tmp_path / "toy", "--grpc-port", 0, "--rest-port", taken[1])
        assert f"REST port 127.0.0.1:{taken[1]}" in rest
    (tmp_path / "bad" / "1").mkdir(parents=True)
    (tmp_path / "bad" / "1" / "saved_model.pb").write_bytes(b"?")
    assert "cannot be loaded" in fails(capsys, tmp_path / "bad", *PORTS)
    assert "both a key and a certificate" in fails(capsys, tmp_path / "toy", *PORTS, "--key", tmp_path / "none")
