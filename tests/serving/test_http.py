"""HTTP from any client: framing, encodings, errors, and the names of hosts."""

from __future__ import annotations

import gzip
import http.client
import json
from collections.abc import Iterator

import pytest

from maskx_tf.serving.server.gate import is_known
from maskx_tf.serving.server.service import Limits
from tests.serving.running import Place, address, running, talk
from tests.serving.toys import write_toy

BODY = json.dumps({"instances": [[5]]}).encode()
ANSWER = {"predictions": [{"y": [6.0]}]}
PREDICT = "/v1/models/toy:predict"
LIMIT = 2**20


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("http")
    write_toy(folder / "toy", 1)
    limits = Limits(max_bytes=LIMIT)
    names = {"hosts": ("models.example",), "origins": ("https://app.example",)}
    with running(folder / "toy", "toy", limits=limits, **names) as one:
        yield one


def ask(place, method: str = "POST", path: str = PREDICT, body=BODY, **headers: str):
    """Status, headers and content of one request."""
    one = http.client.HTTPConnection(*address(place), timeout=30)
    try:
        one.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = one.getresponse()
        return response.status, response.headers, response.read()
    finally:
        one.close()


def test_chunked_bodies(place) -> None:
    parts = [BODY[:3], BODY[3:4], BODY[4:]]
    status, _, content = ask(place, body=iter(parts))
    assert (status, json.loads(content)) == (200, ANSWER)
    status, _, content = ask(place, body=iter([b"x" * LIMIT, b"x"]))
    assert status == 413
    assert "expected at most" in json.loads(content)["error"]


def test_gzip(place) -> None:
    status, headers, content = ask(place, body=gzip.compress(BODY), Content_Encoding="gzip", Accept_Encoding="gzip")
    assert (status, json.loads(content)) == (200, ANSWER)
    assert "Content-Encoding" not in headers  # so little is not worth it
    many = json.dumps({"instances": [[5]] * 64}).encode()
    status, headers, content = ask(place, body=many, Accept_Encoding="gzip, br")
    assert (status, headers["Content-Encoding"]) == (200, "gzip")
    assert json.loads(gzip.decompress(content)) == {"predictions": [{"y": [6.0]}] * 64}


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (gzip.compress(b" " * LIMIT + BODY), "gzip", 413),
        (gzip.compress(BODY)[:-5], "gzip", 400),
        (gzip.compress(BODY) * 2, "gzip", 400),
        (BODY, "gzip", 400),
        (BODY, "br", 415),
    ],
    ids=["too_large", "cut", "two_members", "not_gzip", "unknown"],  # gzip writes the time
)
def test_bodies_that_are_packed_wrongly(place, body, encoding, status) -> None:
    assert ask(place, body=body, Content_Encoding=encoding)[0] == status


def test_http_1_0(place) -> None:
    """A client of HTTP/1.0 that offers to keep the connection learns that it will not be kept."""
    for offer in (b"", b"Connection: keep-alive\r\n"):
        received = talk(place, b"GET /healthz HTTP/1.0\r\n" + offer + b"\r\n")
        head, _, content = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in head.lower()
        assert b"content-length: 3" in head.lower()
        assert content == b"ok\n"


HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST " + PREDICT.encode() + b" HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", b"400"),
        (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (POST + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\nabc", b"400"),
        (POST + b"Content-Length: 3, 5\r\n\r\nabc", b"400"),
        (POST + b"Content-Length: +3\r\n\r\nabc", b"400"),
        (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", b"400"),
        (POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", b"400"),
        (POST.replace(b"/1.1", b"/1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
    ],
)
def test_ambiguous_lengths_are_refused(place, head, status) -> None:
    received = talk(place, head + SMUGGLED)
    assert received.startswith(b"HTTP/1.1 " + status)
    assert received.count(b"HTTP/1.1") == 1
    json.loads(received.partition(b"\r\n\r\n")[2])


def test_the_body_of_a_get_is_no_request(place) -> None:
    head = HEALTH + b"Content-Length: " + str(len(SMUGGLED)).encode() + b"\r\n\r\n"
    received = talk(place, head + SMUGGLED + HEALTH + b"Connection: close\r\n\r\n")
    assert received.count(b"HTTP/1.1 200") == received.count(b"HTTP/1.1") == 2


def test_requests_one_after_the_other_on_a_connection(place) -> None:
    one = HEALTH + b"\r\n"
    received = talk(place, one * 3 + HEALTH + b"Connection: close\r\n\r\n")
    assert received.count(b"ok\n") == 4


def test_head(place) -> None:
    for path in ("/", "/healthz", "/metrics", "/v1/models/toy", "/labels.json"):
        status, headers, content = ask(place, "HEAD", path, None)
        assert (status, content) == (200, b"")
        assert int(headers["Content-Length"]) > 0
    assert ask(place, "HEAD", PREDICT, None)[0] == 405


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1/models/cat", 404),
        ("GET", "/v1/models/toy/versions/7", 404),
        ("GET", "/v1/models/toy/labels/stable", 404),
        ("GET", "/v1/models/toy/versions/" + "9" * 30, 404),
        ("GET", "/%00", 404),
        ("GET", "/page.js/../../protocol", 404),
        ("GET", PREDICT, 405),
        ("DELETE", "/", 405),
        ("OPTIONS", PREDICT, 405),
        ("POST", "/v1/models/toy:classify", 400),
        ("POST", "/v1/models/toy:explain", 404),
        ("POST", PREDICT, 413),
    ],
)
def test_all_errors_are_json(place, method, path, status) -> None:
    body = b"x" * (LIMIT + 1) if status == 413 else None
    found, headers, content = ask(place, method, path, body)
    assert (found, headers["Content-Type"]) == (status, "application/json")
    assert json.loads(content)["error"]


def test_invalid_http_gets_an_error_in_json(place) -> None:
    for data in (b"\r\n\r\nhello\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", HEALTH * 4000):
        received = talk(place, data)
        assert received.startswith(b"HTTP/1.1 400")
        assert json.loads(received.partition(b"\r\n\r\n")[2]) == {"error": "this is no HTTP request"}


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost", True),
        ("LocalHost:8501", True),
        ("localhost.:8501", True),
        ("127.0.0.1:8501", True),
        ("[::1]:8501", True),
        ("192.168.0.7", True),
        ("models.example:8501", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("evil.example@localhost", False),
        ("localhost@evil.example", False),
        ("[::1", False),
        ("", False),
        ("localhost/evil.example", False),
        ("localhost#evil.example", False),
    ],
)
def test_hosts(host, known) -> None:
    assert is_known(host, {"localhost", "models.example"}) == known


def test_a_rebound_name_is_refused(place) -> None:
    for path in ("/", "/healthz", "/labels.json", "/metrics", "/v1/models/toy"):
        status, _, content = ask(place, "GET", path, None, Host="evil.example")
        assert status == 403
        assert b"--allow-host" in content
        assert b"toy" not in content
    assert ask(place, "GET", "/labels.json", None, Host="models.example:8501")[0] == 200


def test_pages_of_other_servers_may_not_ask(place) -> None:
    host = "{}:{}".format(*address(place))
    status, headers, content = ask(place, Origin="https://evil.example")
    assert status == 403
    assert b"--allow-origin" in content
    assert ask(place, Origin="null")[0] == 403
    status, headers, _ = ask(place, Origin=f"http://{host}")  # the server's own page
    assert status == 200
    assert "Access-Control-Allow-Origin" not in headers
    status, headers, _ = ask(place, Origin="https://app.example")
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, "https://app.example")
    preflight = {"Origin": "https://app.example", "Access_Control_Request_Method": "POST"}
    assert ask(place, "OPTIONS", PREDICT, None, **preflight)[0] == 200


def test_security_headers(place) -> None:
    for path in ("/", "/page.js", "/healthz", "/nothing"):
        headers = ask(place, "GET", path, None)[1]
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"
        policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["connect-src"] == "'self'"
        assert "Access-Control-Allow-Origin" not in headers
        assert "Server" not in headers
