"""TF Serving's JSON, read and written without a model."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from maskx_tf.serving.server import rest_json
from maskx_tf.serving.status import ServingError

DATA = bytes(range(200, 250))
TEXT = base64.b64encode(DATA).decode()


def column(body: str) -> np.ndarray:
    return rest_json.parse(body.encode()).columns[""]


@pytest.mark.parametrize(
    "text",
    [TEXT, TEXT.rstrip("="), TEXT[:20] + "\\n" + TEXT[20:], TEXT[:20] + "\\r\\n" + TEXT[20:].rstrip("=") + "\\r\\n"],
)
def test_base_64_with_newlines_and_without_padding(text) -> None:
    assert TEXT.endswith("=")
    assert column(f'{{"inputs": [{{"b64": "{text}"}}]}}').tolist() == [DATA]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('"\\ud800"', "expected text"),
        ('{"b64": "\\ud800"}', "expected text"),
        ('{"b64": "A"}', "base 64"),
        ('{"b64": "AA-_"}', "base 64"),
        ('{"b64": "AA=A"}', "base 64"),
        ("null", "expected a list of numbers"),
        ('"a", 1', "expected a list of numbers"),
        ("[1], [1, 2]", "equal length"),
        ("[" * 200 + "]" * 200, "expected|equal|JSON"),
    ],
)
def test_what_is_no_input(value, message) -> None:
    for body in (f'{{"inputs": [{value}]}}', f'{{"instances": [{value}]}}'):
        with pytest.raises(ServingError, match=message) as caught:
            rest_json.parse(body.encode())
        assert caught.value.number == 400


def test_base_64_and_more() -> None:
    with pytest.raises(ServingError, match="no other keys"):
        rest_json.parse(b'{"inputs": [{"b64": "AAAA", "more": 1}]}')


def test_half_a_character_anywhere() -> None:
    for body in ('{"inputs": {"\\ud800": [1]}}', '{"signature_name": "\\ud800", "inputs": [1]}'):
        assert rest_json.parse(body.encode()).columns
    with pytest.raises(ServingError, match="keys"):
        rest_json.parse(b'{"\\ud800": 1}')


@pytest.mark.parametrize(
    ("text", "kind"), [("[[0, 255]]", "u1"), ("[[0, 256]]", "i8"), ("[[-1]]", "i8"), ("[[1.5]]", "f8"), ("[true]", "?")]
)
def test_numbers(text, kind) -> None:
    found = column(f'{{"inputs": {text}}}')
    assert found.dtype == np.dtype(kind)
    assert found.tolist() == json.loads(text)


@pytest.mark.parametrize("in_rows", [True, False])
def test_answers(in_rows) -> None:
    outputs = {
        "count": np.int32([1, 2]),
        "boxes": np.float32([[[0.5, 1]], [[2, 3]]]),
        "names": np.array([[b"a", b"\xff"], [b'"', b""]], object),
        "image_bytes": np.array([b"a", b"b"], object),
    }
    columns = {
        "count": [1, 2],
        "boxes": [[[0.5, 1.0]], [[2.0, 3.0]]],
        "names": [["a", "\ufffd"], ['"', ""]],
        "image_bytes": [{"b64": "YQ=="}, {"b64": "Yg=="}],
    }
    rows = [{name: values[index] for name, values in columns.items()} for index in range(2)]
    expected = {"predictions": rows} if in_rows else {"outputs": columns}
    assert json.loads(rest_json.answer(outputs, in_rows=in_rows)) == expected


def test_another_process_reads_the_same() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 30, 40, 3)).tolist()
    for content in ({"instances": pixels}, {"inputs": {"a": pixels, "b": [{"b64": TEXT}, "x"]}, "signature_name": "s"}):
        body = json.dumps(content).encode()
        here, there = rest_json.parse(body), rest_json.parse_apart(body, 60.0)
        assert here[:3] == there[:3]
        for name, values in here.columns.items():
            np.testing.assert_array_equal(there.columns[name], values)
            assert there.columns[name].dtype == values.dtype
    with pytest.raises(ServingError, match="INVALID_ARGUMENT: the body is no JSON") as caught:
        rest_json.parse_apart(b"{", 60.0)
    assert caught.value.number == 400
    with pytest.raises(ServingError, match="DEADLINE_EXCEEDED"):
        rest_json.parse_apart(b"{}", 0.001)


def test_density() -> None:
    assert not rest_json.is_dense(b'{"inputs": [{"b64": "' + b"A" * 4_000_000 + b'"}]}')
    for part in (b"1,", b"[],", b"{},", b"\\n"):
        assert rest_json.is_dense(b" " * 2_000_000 + part * 300_000)
        assert not rest_json.is_dense(part * 80_000)
