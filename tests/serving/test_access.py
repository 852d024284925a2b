"""The access log."""

from __future__ import annotations

import json
import logging

import grpc
import pytest

from maskx_tf.serving.server import access
from tests.serving.running import fetch, running
from tests.serving.test_http import ask
from tests.serving.toys import write_toy

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def lines():
    """The lines of the log so far, as objects."""
    written: list[dict] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(json.loads(record.getMessage()))

    handler, level = Handler(), access.log.level
    access.log.addHandler(handler)
    access.log.setLevel(logging.INFO)
    yield written
    access.log.removeHandler(handler)
    access.log.setLevel(level)


def test_requests_of_both_ports(tmp_path, lines) -> None:
    write_toy(tmp_path / "toy", 1)
    with running(tmp_path / "toy", "toy") as place:
        parent = f"00-{TRACE}-{SPAN}-01"
        assert ask(place, traceparent=parent)[0] == 200
        assert ask(place, "GET", "/nothing\r"[:-1] + "?secret", None)[0] == 404
        for path in ("/healthz", "/readyz", "/metrics"):
            fetch(f"{place.rest}{path}")
        with grpc.insecure_channel(place.grpc) as channel:
            call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict", bytes, bytes)
            with pytest.raises(grpc.RpcError):
                call(b"\xff", metadata=[("traceparent", parent)])
            channel.unary_unary("/grpc.health.v1.Health/Check", bytes, bytes)(b"")
    found, missing, refused = lines
    assert found["time"].startswith("20")
    assert found["seconds"] > 0
    assert found["client"].startswith("127.0.0.1:")
    assert {name: found[name] for name in ("port", "method", "path", "status", "trace_id", "span_id")} == {
        "port": "rest",
        "method": "POST",
        "path": "/v1/models/toy:predict",
        "status": 200,
        "trace_id": TRACE,
        "span_id": SPAN,
    }
    assert (missing["path"], missing["status"]) == ("/nothing", 404)
    assert "trace_id" not in missing
    assert (refused["port"], refused["status"]) == ("grpc", "INVALID_ARGUMENT")
    assert refused["method"] == "tensorflow.serving.PredictionService/Predict"
    assert refused["trace_id"] == TRACE


@pytest.mark.parametrize(
    ("header", "known"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-00-more", True),
        (f"00-{'0' * 32}-{SPAN}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE.upper()}-{SPAN}-01", False),
        (f"00-{TRACE}-{SPAN}", False),
        ("", False),
        (None, False),
    ],
)
def test_trace_ids(lines, header, known) -> None:
    access.Record("rest", "client", "GET", "/", header).write(200)
    assert ("trace_id" in lines[0]) == known


def test_names_from_clients_are_quoted_in_one_short_line(lines) -> None:
    access.Record("rest", "client", "G" * 10_000, '/\n"\x1b[31m' + "x" * 10_000, None).write(200)
    assert len(json.dumps(lines[0])) < 1000
    assert lines[0]["path"].startswith('/\n"\x1b[31m')
