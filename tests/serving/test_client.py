"""The client against a server of the official stubs."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

pytest.importorskip("tensorflow_serving.apis", reason="the extra dev is missing")

from maskx_tf import cli
from maskx_tf.commands.ask import _draw
from maskx_tf.serving.client import Answer, Client, ServingError, Tls, transport
from maskx_tf.structures import Detections
from tests.export.exported import CATEGORY_IDS, detections, encoded, exported, picture, signatures
from tests.models.small import assert_same_detections
from tests.serving.official import server

PICTURE = picture(50, 90)
FILE = encoded(PICTURE)


@pytest.fixture(scope="module")
def served():
    with server(signatures()) as (address, prediction):
        yield address, prediction


@pytest.fixture
def client(served):
    with Client(served[0], "pets") as one:
        yield one


def expected():
    return detections(signatures()["serving_default"](image_bytes=tf.constant([FILE])), 0)


def assert_right(answer) -> None:
    assert answer.ok
    assert answer.size == (50, 90)
    ids = np.asarray(answer.detections.classes)
    found = answer.detections._replace(classes=np.searchsorted(CATEGORY_IDS, ids) + 1)
    assert_same_detections(found, expected(), tolerance=1.01 / 255)
    assert answer.names == tuple(dict(zip(CATEGORY_IDS, ("cat", "dog", "horse"), strict=True))[i] for i in ids)


@pytest.mark.parametrize("content", [True, False])
def test_files_and_pixels(content) -> None:
    with server(signatures(), content=content) as (address, _), Client(address, "pets") as client:
        assert_right(client.detect(FILE))
        assert_right(client.detect(PICTURE))
        first, broken, last = client.detect_files([FILE, b"none", FILE])
        assert_right(first)
        assert_right(last)
        assert not broken.ok
        assert broken.status.startswith("not_an_image")
        assert len(broken.detections.valid) == 0


def test_masks_of_given_boxes(client) -> None:
    found = client.detect(FILE)
    again = client.segment(FILE, found.detections.boxes, found.size)
    np.testing.assert_allclose(again.detections.boxes, found.detections.boxes, atol=1e-3)
    same = again.detections.classes == found.detections.classes
    assert same.any()
    np.testing.assert_allclose(again.detections.masks[same], found.detections.masks[same], atol=1.01 / 255)
    pasted = again.pasted()
    assert pasted.shape == (len(found.detections.boxes), 50, 90)
    assert pasted.any()


def test_parts(client, served) -> None:
    answer = client.detect(FILE, parts=["boxes", "scores"])
    assert answer.detections.masks is None
    assert answer.names is None
    assert len(answer.detections.boxes) == len(answer.detections.scores) == len(answer.detections.valid) > 3
    assert "detection_masks" not in served[1].asked[-1].output_filter
    with pytest.raises(ValueError, match="needs boxes and masks"):
        answer.pasted()
    with pytest.raises(ValueError, match="'mask', expected some of boxes"):
        client.detect(FILE, parts=["mask"])


def test_a_server_that_is_away_for_a_moment(client, served, monkeypatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(transport.time, "sleep", pauses.append)
    served[1].failures += [grpc.StatusCode.UNAVAILABLE] * 3
    assert client.detect(FILE).ok
    assert len(pauses) == 3
    for number, pause in enumerate(pauses):
        assert 0.05 * 2**number <= pause <= 0.1 * 2**number
    served[1].failures += [grpc.StatusCode.UNAVAILABLE] * 5
    with pytest.raises(ServingError, match="UNAVAILABLE: as told"):
        client.detect(FILE)
    assert served[1].failures == []
    served[1].failures.append(grpc.StatusCode.RESOURCE_EXHAUSTED)
    with pytest.raises(ServingError, match="RESOURCE_EXHAUSTED"):
        client.detect(FILE)


def test_no_pause_reaches_beyond_the_deadline(monkeypatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(transport.time, "sleep", pauses.append)
    with Client("127.0.0.1:1", "pets", timeout=0.3, retries=100) as client, pytest.raises(ServingError) as caught:
        client.detect(FILE)
    assert caught.value.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    assert sum(pauses[:1]) < 0.3


def test_deadline(client, served, monkeypatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(served[1], "_message", lambda value: released.wait(30))
    try:
        with pytest.raises(ServingError, match="DEADLINE_EXCEEDED"):
            client.detect(FILE, timeout=0.2)
    finally:
        released.set()


def test_a_stream_is_bounded_and_in_order(client) -> None:
    pictures = [picture(20 + index, 30, index) for index in range(6)]
    taken: list[int] = []

    def files():
        for index, pixels in enumerate(pictures):
            taken.append(index)
            yield encoded(pixels)

    sizes = []
    for answer in client.stream(files(), concurrency=2):
        sizes.append(answer.size[0])
        assert len(taken) <= len(sizes) + 3
    assert sizes == [20, 21, 22, 23, 24, 25]
    with pytest.raises(ServingError):  # and it ends at the first that has no answer
        list(Client("127.0.0.1:1", "pets", retries=0).stream([FILE, FILE]))


def test_states_and_versions(client, served) -> None:
    assert client.states() == {3: "AVAILABLE", 2: "END"}
    with Client(served[0], "pets", version=3) as pinned:
        pinned.detect(FILE)
    assert served[1].asked[-1].model_spec.version.value == 3
    with Client(served[0], "pets", label="stable") as labelled:
        labelled.detect(FILE)
    assert served[1].asked[-1].model_spec.WhichOneof("version_choice") == "version_label"


def test_mistakes(client, served) -> None:
    with Client(served[0], "cats") as other, pytest.raises(ServingError, match="NOT_FOUND: Servable not found"):
        other.detect(FILE)
    with pytest.raises(ValueError, match="expected uint8"):
        client.detect(PICTURE[..., 0])
    with pytest.raises(ValueError, match="ftp"):
        Client("ftp://here")


def certificate(folder: Path) -> tuple[bytes, bytes]:
    """A key and a certificate for localhost, from the system's openssl."""
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    start = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    try:
        subprocess.run([*start, *names, *files], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not there")
    return (folder / "key.pem").read_bytes(), (folder / "cert.pem").read_bytes()


def test_encryption(tmp_path) -> None:
    key, cert = certificate(tmp_path)
    with server(signatures(), tls=grpc.ssl_server_credentials([(key, cert)])) as (address, _):
        with Client(address, "pets", tls=Tls(cert)) as client:
            assert_right(client.detect(FILE))
        with Client(address, "pets", tls=Tls(), retries=0) as stranger, pytest.raises(ServingError):
            stranger.detect(FILE)


WITHOUT = """
import sys
for name in ("tensorflow", "keras", "tensorflow_serving"):
    sys.modules[name] = None
from maskx_tf.serving.client import Client
from maskx_tf import cli
with Client(sys.argv[1], "pets") as client:
    print(len(client.detect(open(sys.argv[2], "rb").read()).detections.masks))
sys.exit(cli.run(["ask", sys.argv[1], sys.argv[2], "--model", "pets", "--out", "answers"]))
"""


def test_client_and_command_need_no_tensorflow(served, tmp_path) -> None:
    (tmp_path / "image.png").write_bytes(FILE)
    arguments = [sys.executable, "-c", WITHOUT, served[0], "image.png"]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "7"
    assert (tmp_path / "answers" / "image.png").stat().st_size > 1000


def ask(capsys, *arguments: object) -> tuple[int, str, str]:
    code = cli.run(["ask", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_results_that_cannot_be_written_are_refused_before_the_server_is_asked(capsys, tmp_path) -> None:
    photo = tmp_path / "1.png"
    photo.write_bytes(FILE)
    code, _, error = ask(capsys, "localhost:1", photo, "--json", photo / "a.json")
    assert (code, error) == (2, f"maskx: error: {photo / 'a.json'}: cannot be written: Not a directory\n")


def test_command(served, capsys, tmp_path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "1.png").write_bytes(FILE)
    (photos / "2.jpg").write_bytes(encoded(PICTURE, "JPEG"))
    (photos / "notes.txt").write_text("no image")
    places = ["--out", tmp_path / "out", "--json", tmp_path / "results.json"]
    labels = ["--labels", exported() / "assets" / "labels.json"]
    code, out, _ = ask(capsys, served[0], photos, "--model", "pets", "--score", 0, *places, *labels)
    assert code == 0
    assert out.startswith(f"{photos / '1.png'}: ")
    assert out.count("\n") == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["1.png", "2.png"]
    results = json.loads((tmp_path / "results.json").read_text())
    first = [result for result in results if result["image_id"] == 1]
    assert [result["category_id"] for result in first] == [CATEGORY_IDS[k - 1] for k in expected().classes]
    assert first[0]["segmentation"]["size"] == [50, 90]
    assert {result["file_name"] for result in first} == {str(photos / "1.png")}


def test_command_without_an_answer(served, capsys, tmp_path) -> None:
    (tmp_path / "1.png").write_bytes(FILE)
    (tmp_path / "2.png").write_bytes(FILE[:50])
    code, _, err = ask(capsys, served[0], tmp_path / "1.png", "--model", "dogs")
    assert (code, err.count("\n")) == (2, 1)
    assert "NOT_FOUND: Servable not found for request: dogs (--model is dogs)" in err
    code, out, err = ask(capsys, served[0], tmp_path, "--model", "pets", "--score", 1)
    assert code == 2
    assert "1.png: nothing found\n" in out
    assert "2.png: broken: the image cannot be decoded\n" in out
    assert "1 of 2 images could not be read" in err
    code, _, err = ask(capsys, "127.0.0.1:1", tmp_path / "1.png", "--timeout", 0.2)
    assert code == 2
    assert err.startswith("maskx: error: 127.0.0.1:1: ")
    code, _, err = ask(capsys, served[0], tmp_path, "--model", "pets", "--out", tmp_path)
    assert (code, "1.png: expected another folder" in err, (tmp_path / "1.png").read_bytes() == FILE) == (2, True, True)
    assert ask(capsys, served[0], tmp_path / "none.png")[0] == 2
    assert ask(capsys, served[0], tmp_path / "1.png", "--roots", tmp_path / "none.pem")[0] == 2
    assert ask(capsys, served[0], tmp_path / "1.png", "--labels", tmp_path / "1.png")[0] == 2


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1:8501/v1/models/pets", "expected host:port, http://host:port or https://host:port"),
        ("http://127.0.0.1:port", "expected host:port, http"),
        ("http://127.0.0.1:99999", "expected host:port, http"),
        ("http://[::1", "expected host:port, http"),
        ("http://", "expected host:port, http"),
        ("https://127.0.0.1:8501", "the certificates to trust are none in PEM"),
    ],
)
def test_invalid_addresses(capsys, tmp_path, address, said) -> None:
    (tmp_path / "1.png").write_bytes(FILE)
    code, _, err = ask(capsys, address, tmp_path / "1.png", "--roots", tmp_path / "1.png")
    assert (code, err.count("\n"), said in err) == (2, 1, True)


@pytest.mark.parametrize("body", [b"{}", b"[]", b"<html>", b'{"outputs": [1]}'])
def test_another_server_of_http(capsys, tmp_path, body) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    (tmp_path / "1.png").write_bytes(FILE)
    with HTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, args=(0.01,), daemon=True).start()
        code, _, err = ask(capsys, f"http://127.0.0.1:{other.server_port}", tmp_path / "1.png")
        other.shutdown()
    assert (code, err.count("\n")) == (2, 1)
    assert "UNKNOWN: expected a JSON object with 'outputs', found b" in err


def test_threads_share_connections_over_http_and_a_retry_makes_a_new_one() -> None:
    opened: list[socket.socket] = []

    class Counted(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            opened.append(self.connection)

        def do_GET(self) -> None:
            arrived.wait(10)
            self.send_response(200)
            self.send_header("Content-Length", "27")
            self.end_headers()
            self.wfile.write(b'{"model_version_status":[]}')

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Counted) as one:
        threading.Thread(target=one.serve_forever, args=(0.01,), daemon=True).start()
        with Client(f"http://127.0.0.1:{one.server_port}", retries=1) as client:
            for count in (2, 2, 1):
                arrived = threading.Barrier(count)
                with ThreadPoolExecutor(count) as pool:  # new threads, as in each stream
                    assert list(pool.map(lambda _: client.states(), range(count))) == [{}] * count
            assert len(opened) == 2
            for connection in opened:
                connection.shutdown(socket.SHUT_RDWR)
            assert client.states() == {}
            assert len(opened) == 3
            arrived = threading.Barrier(2)
            with ThreadPoolExecutor(1) as pool:
                asked = pool.submit(client.states)
                while not arrived.n_waiting:
                    time.sleep(0.01)
                client.close()
                arrived.wait(10)
                assert asked.result() == {}
            until = time.monotonic() + 10
            while opened[-1].fileno() >= 0 and time.monotonic() < until:  # the server closes what the client has closed
                time.sleep(0.01)
            assert opened[-1].fileno() < 0
        one.shutdown()


def test_files_that_are_named_go_to_the_server(served, capsys, tmp_path) -> None:
    for name in ("photo", "b.bmp"):
        (tmp_path / name).write_bytes(FILE)
    assert ask(capsys, served[0], tmp_path / "photo", tmp_path / "b.bmp", "--model", "pets")[0] == 0
    assert ask(capsys, served[0], tmp_path, "--model", "pets")[0] == 2  # in a folder, the suffix tells


def test_pictures_of_16_bits_are_drawn_as_the_server_sees_them(tmp_path) -> None:
    Image.fromarray(np.full([400, 500], 100 * 257, np.uint16)).save(tmp_path / "deep.png")
    nothing = Detections(np.zeros([0, 4]), np.zeros(0), np.zeros(0, int), np.zeros(0, bool))
    _draw(tmp_path / "out.png", tmp_path / "deep.png", Answer(nothing, (), (400, 500), "ok", "continuous"), None)
    with Image.open(tmp_path / "out.png") as drawn:
        assert set(np.unique(drawn)) == {100}


def test_command_wants_a_port(capsys) -> None:
    code, _, err = ask(capsys, "localhost", "1.png")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("maskx: error: localhost: expected HOST:PORT, such as localhost:8500")
