"""Published weights by name: the download, from a server on this machine, and the cache."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import struct
import sys
import threading
import types
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from maskx_tf.errors import BadInput
from maskx_tf.importers import published
from maskx_tf.importers.plan import ImportRequest
from maskx_tf.importers.published import PublishedFile, fetch
from maskx_tf.tasks import models as tasks_models
from maskx_tf.tasks.models import local

CONTENT = bytes(range(256)) * 4096  # 1 MiB
PREFIX = hashlib.sha256(CONTENT).hexdigest()[:8]


class Files(BaseHTTPRequestHandler):
    """Serves one file; breaks connections off after so many bytes, each time once."""

    protocol_version = "HTTP/1.1"
    breaks: list[int]
    ranges: list[str]
    knows_ranges = True
    way = "end"  # how it breaks off: the connection ends, is reset, or stalls

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.ranges.append(asked)
        if "missing" in self.path:
            self.send_error(404)
            return
        first = int(re.sub(r"\D", "", asked) or 0) if self.knows_ranges else 0
        if first >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(CONTENT) - first))
        self.end_headers()
        breaks = bool(self.breaks)
        end = first + self.breaks.pop(0) if breaks else len(CONTENT)
        self.wfile.write(CONTENT[first:end])
        if breaks and self.way == "stall":
            with contextlib.suppress(OSError):
                self.connection.recv(1)  # until the other side gives up
        elif breaks and self.way == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def handler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Files]:
    monkeypatch.setenv("MASKX_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return type("Files", (Files,), {"breaks": [], "ranges": []})


@pytest.fixture
def url(handler: type[Files]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/model-{PREFIX}.pth"
        server.shutdown()
        thread.join()


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_whole_file_is_downloaded_once(url: str, handler: type[Files], tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    path = fetch(PublishedFile("torchvision", url, PREFIX), lambda done, total: reports.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(tmp_path / "home")
    assert reports[-1] == (len(CONTENT), len(CONTENT))
    assert fetch(PublishedFile("torchvision", url, PREFIX)) == path
    assert handler.ranges == [""]
    assert left_in(tmp_path / "home") == [path.name]


def test_broken_download_goes_on_where_it_ended(url: str, handler: type[Files]) -> None:
    handler.breaks = [1000, 5000]
    assert fetch(PublishedFile("torchvision", url, PREFIX)).read_bytes() == CONTENT
    assert handler.ranges == ["", "bytes=1000-", "bytes=6000-"]


@pytest.mark.parametrize(("way", "problem"), [("reset", "Connection reset by peer"), ("stall", "timed out")])
def test_broken_connection_is_no_problem_of_the_disk(
    way: str, problem: str, url: str, handler: type[Files], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(published, "TIMEOUT", 0.1)
    handler.way, handler.breaks = way, [2500]
    file = PublishedFile("torchvision", url, PREFIX)
    assert fetch(file).read_bytes() == CONTENT
    assert len(handler.ranges) >= 2
    file.path.unlink()
    handler.breaks = [10] * published.ATTEMPTS
    with pytest.raises(BadInput, match=f"cannot be downloaded: {problem}"):
        fetch(file)


def test_download_goes_on_in_a_later_call(url: str, handler: type[Files], tmp_path: Path) -> None:
    handler.breaks = [10] * published.ATTEMPTS
    file = PublishedFile("torchvision", url, PREFIX)
    with pytest.raises(BadInput, match="the connection broke; the same command goes on where it ended"):
        fetch(file)
    assert left_in(tmp_path / "home") == [f"model-{PREFIX}.pth.part"]
    assert fetch(file).read_bytes() == CONTENT
    assert handler.ranges[-1] == "bytes=50-"


def test_server_without_ranges_sends_the_file_again(url: str, handler: type[Files]) -> None:
    handler.breaks, handler.knows_ranges = [1000], False
    assert fetch(PublishedFile("torchvision", url, PREFIX)).read_bytes() == CONTENT


def test_too_long_beginning_is_thrown_away(url: str) -> None:
    file = PublishedFile("torchvision", url, PREFIX)
    file.path.parent.mkdir(parents=True)
    file.path.with_name(f"{file.path.name}.part").write_bytes(CONTENT + b"more")
    assert fetch(file).read_bytes() == CONTENT


def test_wrong_checksum(url: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"expected a file whose SHA-256 begins with 01234567, found {PREFIX}"):
        fetch(PublishedFile("torchvision", url, "01234567"))
    assert left_in(tmp_path / "home") == []


def test_file_that_is_not_there(url: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"/missing\.pth: the server answered 404 Not Found"):
        fetch(PublishedFile("torchvision", url.rpartition("/")[0] + "/missing.pth", ""))
    assert left_in(tmp_path / "home") == []


def test_no_server(handler: type[Files]) -> None:
    with pytest.raises(BadInput, match=r"cannot be downloaded: .*refused"):
        fetch(PublishedFile("torchvision", "http://127.0.0.1:9/model.pth", ""))


def test_names() -> None:
    file = published.lookup("torchvision:maskrcnn_resnet50_fpn")
    assert file == (
        "torchvision",
        "https://download.pytorch.org/models/maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth",
        "bf2d0c1e",
    )
    name = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x"
    assert published.lookup(f"detectron2:{name}").url == (
        f"https://dl.fbaipublicfiles.com/detectron2/{name}/137849600/model_final_f10217.pkl"
    )
    files = [published.lookup(one) for one in published.names()]
    assert len({one.path for one in files}) == len(files), "two names share a file in the cache"
    assert all(re.fullmatch("[0-9a-f]{8}", one.sha256) for one in files if one.program == "torchvision")
    with pytest.raises(BadInput, match="did you mean 'torchvision:maskrcnn_resnet50_fpn'"):
        published.lookup("torchvision:maskrcnn_resnet50")


def test_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKX_HOME", "/some/where")
    assert published.cache() == Path("/some/where")
    monkeypatch.delenv("MASKX_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert published.cache() == Path("/caches/maskx")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert published.cache() == Path("/home/me/.cache/maskx")


def test_published_weights_are_imported_once(handler: type[Files], url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, made = "torchvision:maskrcnn_resnet50_fpn", []

    def import_file(program: str, request: ImportRequest, out: Path) -> None:
        assert request.path.read_bytes() == CONTENT
        made.append((program, out))
        out.mkdir(parents=True)

    monkeypatch.setattr(tasks_models, "lookup", lambda name: PublishedFile("torchvision", url, PREFIX))
    monkeypatch.setattr(tasks_models, "import_file", import_file)
    folder = local(name)
    assert folder == local(name) == published.cache() / "models/torchvision/maskrcnn_resnet50_fpn"
    assert made == [("torchvision", folder)]


def test_hubs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clients' own functions are called; neither hub can be reached here."""
    for name, module, function in (
        ("hf://me/model", "huggingface_hub", "snapshot_download"),
        ("kaggle://me/model/keras/first", "kagglehub", "model_download"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(BadInput, match=f"expected the package {module}: pip install {module}"):
            local(name)
        client = types.ModuleType(module)
        setattr(client, function, lambda handle: f"/hub/{handle}")
        monkeypatch.setitem(sys.modules, module, client)
        assert local(name) == Path("/hub") / name.partition("://")[2]
        setattr(client, function, lambda handle: 1 / 0)
        with pytest.raises(BadInput, match=f"{module} cannot fetch it: division by zero"):
            local(name)
    assert local("runs/first") == Path("runs/first")
