"""Two hundred bad requests, each with its right answer by the table of docs/serving.md, and a good one after each."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

pytest.importorskip("tensorflow_serving.apis", reason="the extra dev is missing")
from tensorflow_serving.apis import predict_pb2

from maskx_tf.serving.client import Client
from tests.export.exported import encoded, exported, picture
from tests.export.test_decode import jpeg_of, png_of
from tests.serving.running import command, fetch, shared

PATH = "/tensorflow.serving.PredictionService/Predict"
FILE = encoded(picture(50, 90))
JPEG = encoded(picture(80, 64), "JPEG")
BOX = np.float32([[[0.1, 0.2, 0.8, 0.9]]])
RANDOM = np.random.default_rng(0)


class Case(NamedTuple):
    """A request and its answer: a status, or the beginning of image_status where the status is OK."""

    name: str
    port: str
    body: Any
    answer: str


def message(inputs: dict[str, Any], signature: str = "", **spec: Any) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = spec.pop("name", "pets")
    request.model_spec.signature_name = signature
    if "version" in spec:
        request.model_spec.version.value = spec["version"]
    if "label" in spec:
        request.model_spec.version_label = spec["label"]
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return request


def bad_images() -> Iterator[tuple[str, bytes, str]]:
    """Image files, and what is said of them."""
    yield "no bytes", b"", "empty"
    for index in range(25):
        yield f"random {index}", RANDOM.bytes(int(RANDOM.integers(1, 3000))), "not_an_image"
    for index in range(15):
        start = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")[index % 2]
        yield f"random after a good start {index}", start + RANDOM.bytes(500), "broken|too_large"
    for share in range(1, 16):
        yield f"JPEG cut {share}", JPEG[: len(JPEG) * share // 20], "broken|not_an_image"
        yield f"PNG cut {share}", FILE[: len(FILE) * share // 20], "broken|not_an_image"
    for kind in ("GIF", "BMP", "TIFF", "WEBP"):
        yield kind, encoded(Image.fromarray(picture(20, 20)), kind), "not_an_image"
    for text in (b"hello", b"{}", b"<svg/>", "héllo".encode(), b"%PDF-1.7"):
        yield f"text {text!r}", text, "not_an_image"
    for size in ((50000, 50000), (2**31 - 1, 2**31 - 1), (65535, 65535), (100_000, 1)):
        yield f"PNG of {size}", png_of(*size), "too_large"
        yield f"JPEG of {size}", jpeg_of(min(size[0], 65535), min(size[1], 65535)), "too_large|broken|ok"
    yield "0x5", png_of(0, 5), "broken"
    for size in ((1, 1), (10, 20000), (20000, 10)):
        yield f"{size}", encoded(Image.new("RGB", size, "red"), "JPEG"), "ok"


def malformed_messages() -> Iterator[tuple[str, predict_pb2.PredictRequest, str]]:
    """Requests that are messages but no questions, and their statuses."""
    good = {"image_bytes": [FILE]}
    for value in (np.float32([1]), np.int32([1]), np.uint8([1]), np.array([True]), np.float64([0.5]), np.int64([7])):
        yield f"files of {value.dtype}", message({"image_bytes": value}), "INVALID_ARGUMENT"
    for dtype in (np.float32, np.int32, np.int8, np.uint16, np.float16, np.bool_):
        pixels = np.zeros([1, 8, 8, 3], dtype)
        yield f"pixels of {dtype.__name__}", message({"input_tensor": pixels}, "image_tensor"), "INVALID_ARGUMENT"
    for shape in ((), (1, 1), (0,), (2, 2, 2)):
        files = np.full(shape, FILE, object)
        yield f"files {shape}", message({"image_bytes": tf.constant(files, tf.string, shape)}), "INVALID_ARGUMENT"
    for shape in ((), (3,), (8, 8, 3), (1, 8, 8), (1, 8, 8, 1), (1, 8, 8, 4), (1, 1, 8, 8, 3), (0, 8, 8, 3)):
        pixels = np.zeros(shape, np.uint8)
        yield f"pixels {shape}", message({"input_tensor": pixels}, "image_tensor"), "INVALID_ARGUMENT"
    for shape in ((4,), (1, 4), (1, 1, 3), (1, 1, 5), (2, 1, 4), (0, 1, 4), (1, 1001, 4), (1, 1, 1, 4)):
        boxes = {**good, "boxes": np.zeros(shape, np.float32)}
        yield f"boxes {shape}", message(boxes, "segment_boxes"), "INVALID_ARGUMENT"
    yield "boxes of float64", message({**good, "boxes": BOX.astype(float)}, "segment_boxes"), "INVALID_ARGUMENT"
    yield "no boxes", message(good, "segment_boxes"), "INVALID_ARGUMENT"
    yield "no image", message({"boxes": BOX}, "segment_boxes"), "INVALID_ARGUMENT"
    yield "nothing", message({}), "INVALID_ARGUMENT"
    for name in ("image", "images", "image_bytes:0", "", "IMAGE_BYTES", "input_tensor"):
        yield f"input {name!r}", message({name: [FILE]}), "INVALID_ARGUMENT"
    yield "one input too many", message({**good, "boxes": BOX}), "INVALID_ARGUMENT"
    for name in ("nothing", "Serving_default", "predict", "serving_default ", "__saved_model_init_op"):
        yield f"signature {name!r}", message(good, name), "FAILED_PRECONDITION"
    for name in ("cats", "Pets", "pets/1", "../pets"):
        yield f"model {name!r}", message(good, name=name), "NOT_FOUND"
    for version in (0, 2, -1, 2**62):
        yield f"version {version}", message(good, version=version), "NOT_FOUND"
    yield "label", message(good, label="stable"), "INVALID_ARGUMENT"
    for output in ("masks", "", "detection_boxes:0"):
        request = message(good)
        request.output_filter.append(output)
        yield f"output {output!r}", request, "INVALID_ARGUMENT"
    for field, value in (("int_val", [300]), ("tensor_content", b"12"), ("int_val", [])):
        request = message({}, "image_tensor")
        tensor = request.inputs["input_tensor"]
        tensor.dtype = tf.uint8.as_datatype_enum
        for size in (1, 1, 1, 3):
            tensor.tensor_shape.dim.add(size=size)
        if isinstance(value, bytes):
            tensor.tensor_content = value
        else:
            getattr(tensor, field).extend(value)
        yield f"tensor of {field} {value!r}", request, "INVALID_ARGUMENT"
    request = message({"input_tensor": np.uint8([0])}, "image_tensor")
    for size in (1, 100_000, 100_000, 3):
        request.inputs["input_tensor"].tensor_shape.dim.add(size=size)
    yield "one number for thirty billion", request, "INVALID_ARGUMENT"


def malformed_bodies() -> Iterator[tuple[str, bytes, str]]:
    """Bodies for REST, and the status of HTTP."""
    b64 = {"b64": base64.b64encode(FILE).decode()}
    texts = ["", "{", "[]", "null", "1", '"x"', "{}", "[" * 100_000, '{"instances": [}', "\x00", '{"a": NaN}']
    for text in texts:
        yield f"body {text[:20]!r}", text.encode(), "400"
    contents: list[Any] = [
        {"instances": []},
        {"instances": {}},
        {"instances": None},
        {"inputs": None},
        {"inputs": []},
        {"inputs": {}},
        {"instances": [b64], "inputs": [b64]},
        {"instances": [b64], "other": 1},
        {"instances": [b64], "signature_name": 3},
        {"instances": [b64], "signature_name": "none"},
        {"instances": [{"b64": "!!"}]},
        {"instances": [{"b64": 3}]},
        {"instances": [{"b64": None}]},
        {"instances": [3]},
        {"instances": [[b64]]},
        {"instances": [{"image": b64}]},
        {"instances": [{"image_bytes": b64}, {"other": b64}]},
        {"instances": [{"image_bytes": b64}, b64]},
        {"inputs": {"image_bytes": b64}},
        {"inputs": {"other": [b64]}},
        {"signature_name": "segment_boxes", "instances": [b64]},
        {"signature_name": "segment_boxes", "inputs": {"image_bytes": [b64], "boxes": [[["a", 0, 1, 1]]]}},
        {"signature_name": "segment_boxes", "inputs": {"image_bytes": [b64], "boxes": [[[0, 0, 1]]]}},
        {"signature_name": "segment_boxes", "inputs": {"image_bytes": [b64], "boxes": [[[0, 0, 1, 1], [0]]]}},
        {"signature_name": "image_tensor", "instances": [[[[256, 0, 0]]]]},
        {"signature_name": "image_tensor", "instances": [[[[-1, 0, 0]]]]},
        {"signature_name": "image_tensor", "instances": [[[[0.5, 0, 0]]]]},
        {"signature_name": "image_tensor", "instances": [[[[0, 0]]]]},
        {"signature_name": "image_tensor", "instances": [[[["a", "b", "c"]]]]},
        {"signature_name": "image_tensor", "instances": [[[[None, 0, 0]]]]},
        {"signature_name": "image_tensor", "instances": [[[[10**30, 0, 0]]]]},
        {"signature_name": "image_tensor", "instances": [[[{"b64": "AA=="}]]]},
    ]
    for content in contents:
        yield f"JSON {str(content)[:60]}", json.dumps(content).encode(), "400"


def cases() -> list[Case]:
    found = [Case(name, "grpc", message({"image_bytes": [data]}), answer) for name, data, answer in bad_images()]
    found += [Case(name, "grpc", request, answer) for name, request, answer in malformed_messages()]
    whole = message({"image_bytes": [FILE]}).SerializeToString()
    found += [Case(f"message cut {n}", "raw", whole[: len(whole) * n // 16], "INVALID_ARGUMENT") for n in range(16)]
    found += [Case(f"random message {n}", "raw", RANDOM.bytes(50 * n + 5), "INVALID_ARGUMENT") for n in range(15)]
    for bad in (np.nan, np.inf, -np.inf):
        boxes = np.where(np.arange(4) == 2, bad, BOX).astype(np.float32)
        request = message({"image_bytes": [FILE], "boxes": boxes}, "segment_boxes")
        found.append(Case(f"box with {bad}", "grpc", request, "bad_boxes"))
    for box in ((0.5, 0.5, 0.5, 0.5), (0.9, 0.9, 0.1, 0.1), (-5, -5, 5, 5), (1e30, 0, 0, 1)):
        request = message({"image_bytes": [FILE], "boxes": np.float32([[box]])}, "segment_boxes")
        found.append(Case(f"box {box}", "grpc", request, "ok"))
    found += [Case(name, "rest", body, answer) for name, body, answer in malformed_bodies()]
    return found


@pytest.fixture(scope="module")
def place():
    return shared()


@pytest.fixture(scope="module")
def send(place) -> Iterator[Callable[[Case], str]]:
    with grpc.insecure_channel(place.grpc) as channel:
        call = channel.unary_unary(PATH, bytes, predict_pb2.PredictResponse.FromString)

        def ask(case: Case) -> str:
            if case.port == "rest":
                number, answer = fetch(f"{place.rest}/v1/models/pets:predict", case.body)
                assert answer["error"]
                return str(number)
            try:
                body = case.body if case.port == "raw" else case.body.SerializeToString()
                answer = call(body, timeout=30)
            except grpc.RpcError as error:
                return error.code().name if error.details() else "no reason"
            values = {name: tf.make_ndarray(value) for name, value in answer.outputs.items()}
            status = values["image_status"][0].decode()
            assert (status == "ok") or values["num_detections"][0] == 0
            assert all(np.isfinite(value).all() for value in values.values() if value.dtype.kind == "f")
            return status

        yield ask


@pytest.mark.parametrize("step", [10, pytest.param(1, marks=pytest.mark.slow)])
def test_bad_requests(send, place, step) -> None:
    every = cases()
    assert len(every) >= 200
    with Client(place.grpc) as client:
        expected = client.detect(FILE)
        wrong = []
        for case in every[::step]:
            answer = send(case)
            if not any(answer == one or answer.startswith(f"{one}:") for one in case.answer.split("|")):
                wrong.append((case.name, case.answer, answer))
            again = client.detect(FILE)
            np.testing.assert_array_equal(again.detections.classes, expected.detections.classes, case.name)
            np.testing.assert_allclose(again.detections.boxes, expected.detections.boxes, atol=1e-3)
    assert wrong == []


def resident(process: int) -> float:
    text = Path(f"/proc/{process}/status").read_text()
    return next(float(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("VmRSS"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
def test_memory_does_not_grow_over_2000_requests() -> None:
    bodies = [case.body for case in cases() if case.port == "grpc"]
    with command(exported().parent) as (place, process), grpc.insecure_channel(place.grpc) as channel:
        call = channel.unary_unary(PATH, predict_pb2.PredictRequest.SerializeToString, bytes)

        def ask(count: int) -> None:
            for index in range(count):
                try:
                    call(bodies[index % len(bodies)] if index % 2 else message({"image_bytes": [FILE]}), timeout=60)
                except grpc.RpcError as error:
                    codes.add(error.code().name)

        codes: set[str] = set()
        ask(500)
        before = resident(process.pid)
        ask(2000)
        assert resident(process.pid) - before < 25
        assert codes == {"INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND"}
