"""Files and folders that are whole or not there, whatever fails, and messages of one line about the others."""

from __future__ import annotations

import errno
import os
import pickle
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from maskx_tf import files
from maskx_tf.errors import BadInput
from tests import disk

OLD = "old"


def kind(error: BaseException) -> type[BaseException]:
    """What a writer makes of an error."""
    return BadInput if isinstance(error, OSError) else KeyboardInterrupt


def write_stream(path: Path) -> None:
    with files.new_file(path) as unfinished, unfinished.open("w") as file:
        file.write("new")


FILE_WRITERS: dict[str, Callable[[Path], None]] = {
    "bytes": lambda path: files.write_bytes(path, b"new"),
    "text": lambda path: files.write_text(path, "new"),
    "json": lambda path: files.write_json(path, "new"),
    "stream": write_stream,
}


@disk.each_error
@pytest.mark.parametrize("there", [False, True], ids=["new", "replaced"])
@pytest.mark.parametrize("writer", FILE_WRITERS)
def test_a_file_is_old_or_new_whatever_fails(tmp_path: Path, writer: str, there: bool, error: BaseException) -> None:
    path = tmp_path / "a"
    if there:
        path.write_text(OLD)
    steps = 0
    for steps in disk.each_step(lambda: FILE_WRITERS[writer](path), error, kind(error)):  # noqa: B007
        assert disk.names_in(tmp_path) == (["a"] if there or path.exists() else [])
        assert not path.exists() or "new" in path.read_text() or path.read_text() == OLD
    assert steps == 4  # open, wait for the file, rename, wait for the folder
    assert "new" in path.read_text()
    assert disk.names_in(tmp_path) == ["a"]


def fill(folder: Path) -> None:
    (folder / "inside").mkdir()
    (folder / "inside" / "b").write_text("new")
    files.write_text(folder / "a", "new")


@disk.each_error
@pytest.mark.parametrize("there", [False, True], ids=["new", "replaced"])
def test_a_folder_is_old_or_new_whatever_fails(tmp_path: Path, there: bool, error: BaseException) -> None:
    path = tmp_path / "above" / "folder"
    old = ["above", "above/folder", "above/folder/a"] if there else []
    new = ["above", "above/folder", "above/folder/a", "above/folder/inside", "above/folder/inside/b"]
    if there:
        path.mkdir(parents=True)
        (path / "a").write_text(OLD)

    def write() -> None:
        with files.new_folder(path, replace=True) as unfinished:
            fill(unfinished)

    seen = []
    for _ in disk.each_step(write, error, kind(error)):
        seen.append(disk.names_in(tmp_path))
        assert seen[-1] in (old, new)
        if seen[-1] == new:
            assert (path / "a").read_text() == "new"
    assert old in seen
    assert disk.names_in(tmp_path) == new


def test_an_error_of_the_caller_stays_what_it_is(tmp_path: Path) -> None:
    for writer in (files.new_file, files.new_folder):
        for error in (KeyError("a"), BadInput("a.json: record 3"), KeyboardInterrupt()):
            with pytest.raises(type(error)) as caught, writer(tmp_path / "x"):
                raise error
            assert caught.value is error
    assert disk.names_in(tmp_path) == []


def test_tensorflows_error_for_a_full_disk_is_recognised(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")

    def write() -> None:
        with files.new_file(tmp_path / "x") as unfinished, tf.io.TFRecordWriter(str(unfinished)) as writer:
            for _ in range(1000):
                writer.write(b"x" * 1000)

    with pytest.raises(BadInput, match=r"x: cannot be written: File too large$"), disk.no_room_beyond(1000):
        write()
    with pytest.raises(tf.errors.ResourceExhaustedError), files.new_file(tmp_path / "x"):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
    assert disk.names_in(tmp_path) == []


def test_a_message_names_what_the_user_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(OLD)
    with pytest.raises(BadInput) as caught, files.new_folder(tmp_path / "folder"):
        files.write_text(tmp_path / "file" / "a", "new")
    assert str(caught.value) == f"{tmp_path}/folder: cannot be written: Not a directory"
    again = pickle.loads(pickle.dumps(caught.value))  # as it comes out of a worker process
    assert (str(again), again.why) == (str(caught.value), "Not a directory")


def test_a_folder_replaces_only_what_it_may(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis").write_text(OLD)
    (tmp_path / "file").write_text(OLD)
    for name, problem in (("full", "Directory not empty"), ("file", "Not a directory"), ("file/x", "Not a directory")):
        with pytest.raises(BadInput, match=f"cannot be written: {problem}"), files.new_folder(tmp_path / name):
            pass
    assert disk.names_in(tmp_path) == ["file", "full", "full/thesis"]
    (tmp_path / "empty").mkdir()
    with files.new_folder(tmp_path / "empty") as unfinished:
        fill(unfinished)
    assert disk.names_in(tmp_path / "empty") == ["a", "inside", "inside/b"]


def test_links_stay(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real/a")
    files.write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert disk.names_in(tmp_path) == ["link", "real", "real/a"]


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        (".", "Is a directory"),
        ("", "Is a directory"),
        ("/", "Is a directory"),
        ("pipe/a", "Not a directory"),
        ("pipe/nowhere/a", "Not a directory"),
        ("a\0b", "a path has no null character"),
        ("pipe", "not a regular file"),
        ("/dev/null", "not a regular file"),
        ("x" * 300, "File name too long"),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, problem: str) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    for write in (files.write_bytes, lambda path, data: files.check_writable(path)):
        with pytest.raises(BadInput, match=f"cannot be written: {problem}$"):
            write(path, b"new")
    assert os.listdir() == ["pipe"]
    assert Path("/dev/null").is_char_device()


def test_a_check_makes_no_folder_that_it_would_remove_from_another_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "rmdir", lambda _: pytest.fail("another command may count on the folder"))
    files.check_writable(tmp_path / "a" / "b")
    assert disk.names_in(tmp_path) == []


def test_folders_above_a_file_are_made_and_stay_where_they_hold_something(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.txt"
    files.check_writable(path)
    with pytest.raises(KeyError), files.new_file(path):
        raise KeyError
    assert disk.names_in(tmp_path) == []
    files.write_text(path, OLD)
    files.check_writable(path)
    with pytest.raises(KeyError), files.new_file(tmp_path / "a" / "d" / "e" / "f"):
        raise KeyError
    assert disk.names_in(tmp_path) == ["a", "a/b", "a/b/c.txt"]
    assert path.read_text() == OLD


@pytest.mark.parametrize("letter", ["x", "漢"])
def test_names_may_be_as_long_as_the_disk_has_them(tmp_path: Path, letter: str) -> None:
    path = tmp_path / (letter * (255 // len(letter.encode())))
    files.write_text(path, "new")
    assert path.read_text() == "new"


def test_what_is_added_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "log"
    files.append(path, b"first\n")
    with pytest.raises(BadInput, match=r"log: cannot be written: File too large$"), disk.no_room_beyond(1000):
        files.append(path, b"x" * 2000)
    assert path.read_bytes() == b"first\n"
    files.append(path, b"second\n")
    assert path.read_bytes() == b"first\nsecond\n"


def within(seconds: float, function: Callable[[], object]) -> None:
    """Fails where a function waits for ever, as opening a pipe does."""
    worker = threading.Thread(target=function, daemon=True)
    worker.start()
    worker.join(seconds)
    assert not worker.is_alive(), "it waits for ever"


READERS = (files.read_bytes, files.read_text, files.read_json, lambda path: list(files.read_csv(path, [])))


@pytest.mark.parametrize("path", ["pipe", "/dev/zero", "/dev/tty", "folder", "socket", "none", "a\0b"])
def test_only_regular_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("folder").mkdir()
    with socket.socket(socket.AF_UNIX) as held:
        held.bind("socket")
        said: list[str] = []

        def read() -> None:
            for reader in READERS:
                with pytest.raises(BadInput) as caught:
                    reader(path)
                said.append(str(caught.value))

        within(60, read)
    assert len(said) == 4
    assert all(text.startswith(f"{path}: cannot be read: ") for text in said)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "expected JSON: line 1: Expecting value"),
        (b'{"a": 1', "expected JSON: line 1: Expecting ',' delimiter"),
        (b"\xff\xfe{}", "expected UTF-8 text, found byte 0xff"),
        (b"[" * 100_000, "expected JSON: maximum recursion depth exceeded"),
        (b"1" * 5000, "expected JSON: Exceeds the limit"),
    ],
)
def test_what_is_not_json(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        files.read_json(path)
    assert str(caught.value).startswith(f"{path}: {problem}")


def test_text_and_tables(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbfname,size\r\ncat,"1\r\n2"\r\ndog\r\n')
    assert list(files.read_csv(path, ["size"])) == [
        (3, {"name": "cat", "size": "1\n2"}),
        (4, {"name": "dog", "size": ""}),
    ]
    with pytest.raises(BadInput, match=r"a\.csv: line 1: expected a column age, found \['name', 'size'\]"):
        list(files.read_csv(path, ["size", "age"]))
    files.write_json(path, {"кот": [1, 2]}, indent=None)
    assert path.read_bytes() == '{"кот":[1,2]}\n'.encode()
    assert files.read_json(path) == {"кот": [1, 2]}
    files.write_json(path, ["кот \ud800", float("nan")])
    assert files.read_json(path)[0] == "кот \ud800"


def test_digests(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert files.sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    weights = [np.arange(6.0).reshape(2, 3), np.ones(3, np.float32)]

    def of(facts: object, *arrays: np.ndarray) -> str:
        return files.digest(facts, zip("ab", arrays, strict=False))

    first = of({"x": 1, "y": 2}, *weights)
    assert first == of({"y": 2, "x": 1}, *(np.asfortranarray(weight) for weight in weights))
    others = {
        of({"x": 1, "y": 3}, *weights),
        of({"x": 1, "y": 2}, *weights[::-1]),
        of({"x": 1, "y": 2}, weights[0].T, weights[1]),
        of({"x": 1, "y": 2}, weights[0], weights[1].astype(np.float64)),
        of({"x": 1, "y": 2}, weights[0] + 1e-12, weights[1]),
        of({"x": 1, "y": 2}, weights[0]),
        of(["x", 1, "y", 2], *weights),
    }
    assert len(others | {first}) == 8


def test_a_disk_that_cannot_wait_for_folders_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_text(tmp_path / "a", "new")
    with files.new_folder(tmp_path / "folder") as unfinished:
        fill(unfinished)
    assert disk.names_in(tmp_path) == ["a", "folder", "folder/a", "folder/inside", "folder/inside/b"]
