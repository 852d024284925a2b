"""The file of detections: it is resumed after a kill at any byte, and only by the same evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskx_tf.errors import BadInput
from maskx_tf.evaluation import store
from maskx_tf.evaluation.store import Store
from tests import disk

IMAGES = {
    7: [{"category_id": 3, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.5, "annotation_id": 4}],
    1: [],
    9: [{"category_id": 1, "bbox": [0.0, 2.0, 3.0, 4.0], "score": 0.25} for _ in range(2)],
}


def write(path: Path, fingerprint: str = "a", say=lambda text: None) -> list[int]:
    """Adds the images that are missing; which those were."""
    held = Store(path, fingerprint, say)
    missing = [image for image in IMAGES if image not in held.done]
    for image in missing:
        held.add(image, IMAGES[image])
    return missing


def test_what_was_added_is_read_and_written_as_results(tmp_path: Path) -> None:
    path = tmp_path / "new" / "detections.jsonl"
    assert write(path) == [7, 1, 9]
    assert list(store.read(path)) == [{"image_id": image, **one} for image, group in IMAGES.items() for one in group]
    store.write_results(path, tmp_path / "results.json")
    results = json.loads((tmp_path / "results.json").read_text())
    assert [one["image_id"] for one in results] == [7, 9, 9]
    assert set(results[0]) == {"image_id", "category_id", "bbox", "score"}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["new", "results.json"]


def test_resumed_after_a_kill_at_any_byte(tmp_path: Path) -> None:
    path = tmp_path / "detections.jsonl"
    write(path)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        complete = sum(len(b"".join(lines[: count + 1])) <= length for count in range(len(lines)))
        said: list[str] = []
        missing = write(path, say=said.append)
        assert missing == [7, 1, 9][max(complete - 1, 0) :], length
        assert path.read_bytes() == whole
        is_half = complete and length != len(b"".join(lines[:complete]))
        assert [("not finished" in text) for text in said] == ([bool(is_half)] if complete else [])


def test_detections_of_another_model_are_not_used(tmp_path: Path) -> None:
    path, said = tmp_path / "detections.jsonl", []
    write(path)
    assert write(path, "b", said.append) == [7, 1, 9]
    assert said == [f"{path}: its detections are of another model, data set or settings: starting again"]
    assert len(path.read_bytes().splitlines()) == 4
    assert write(path, "b", said.append) == []
    assert said[1:] == [f"{path}: going on with 3 images done"]


@pytest.mark.parametrize("content", [b"my notes\n", b"[1, 2]\n", b'{"other": 1}\n', b"n", b'{"images": 3'])
def test_another_file_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "detections.jsonl"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"detections\.jsonl: expected detections that maskx eval wrote, found another"):
        write(path)
    assert path.read_bytes() == content


def test_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        write(tmp_path / "file" / "detections.jsonl")
    (tmp_path / "detections.jsonl").mkdir()
    with pytest.raises(BadInput, match="cannot be written"):
        write(tmp_path / "detections.jsonl")
    write(tmp_path / "a.jsonl")
    with pytest.raises(BadInput, match=r"results\.json: cannot be written"):
        store.write_results(tmp_path / "a.jsonl", tmp_path / "file" / "results.json")


def test_an_evaluation_continues_from_a_broken_line(tmp_path: Path) -> None:
    path = tmp_path / "detections.jsonl"
    write(path)
    lines = path.read_bytes().splitlines(keepends=True)
    for broken in (b"{]\n", b"3\n", b'{"image_id": "x"}\n'):
        path.write_bytes(b"".join([*lines[:2], broken, *lines[2:]]))
        assert write(path) == [1, 9]
        assert path.read_bytes() == b"".join(lines)


@disk.each_error
def test_an_image_that_cannot_be_added_is_asked_about_again(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "new" / "detections.jsonl"
    expected = BadInput if isinstance(error, OSError) else KeyboardInterrupt
    for _ in disk.each_step(lambda: write(path), error, expected):
        lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
        assert lines[-1] == b""  # nothing half-written
    assert write(path) == []
    for _ in disk.each_step(lambda: store.write_results(path, tmp_path / "results.json"), error, expected):
        assert disk.names_in(tmp_path) in (
            ["new", "new/detections.jsonl"],
            ["new", "new/detections.jsonl", "results.json"],
        )


def test_a_disk_that_is_full_for_detections(tmp_path: Path) -> None:
    path = tmp_path / "detections.jsonl"
    with (
        pytest.raises(BadInput, match=r"detections\.jsonl: cannot be written: File too large"),
        disk.no_room_beyond(150),
    ):
        write(path)
    lines = path.read_bytes().split(b"\n")
    assert lines[-1] == b""
    assert 1 <= len(lines) - 1 < 4
    assert write(path) == [7, 1, 9][len(lines) - 2 :]
