"""Stores detections in a file, so that memory does not grow, and a killed evaluation can be resumed.

The first line identifies the evaluation, each later one holds an image: {"image_id": 7, "detections": [{"bbox", ...}]}.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from maskx_tf import files, locks
from maskx_tf.errors import BadInput, reason
from maskx_tf.files import Json

DETECTIONS, COCO_RESULTS = "detections.jsonl", "results.json"  # the files of an evaluation
STORE_KEY = "maskx_detections"  # key of the first line; its value is the version of the format
STORE_FORMAT = 1
EVALUATION_LOCK = ".eval.lock"  # tells a second evaluation that one is at work


@contextmanager
def in_use(folder: Path) -> Iterator[Path]:
    """Makes the folder of an evaluation, and keeps other evaluations out of it during the block.

    Raises:
        BadInput: another evaluation is at work there, or it cannot be written.
    """
    files.make_folder(folder)
    with locks.locked(folder / EVALUATION_LOCK):
        yield folder


class Store:
    """The file, to which images are added.

    Args:
        path: the path of the file.
        fingerprint: a fingerprint of all that detections depend on; a file with another one is started again.
        say: receives a line about a file that was there before.

    Raises:
        BadInput: another program's file is there, or it cannot be written.
    """

    def __init__(self, path: Path, fingerprint: str, say: Callable[[str], None] = lambda text: None) -> None:
        self.path = path
        self.done: set[int] = set()
        with files.writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            size = self._take_up(fingerprint, say) if path.exists() else 0
            with path.open("ab") as file:
                file.truncate(size)
        if not size:
            self._write({STORE_KEY: STORE_FORMAT, "fingerprint": fingerprint})

    def add(self, image_id: int, detections: list[Json]) -> None:
        """Adds an image, which is then done."""
        self._write({"image_id": image_id, "detections": detections})
        self.done.add(image_id)

    def _write(self, entry: Json) -> None:
        files.append(self.path, json.dumps(entry, separators=(",", ":")).encode() + b"\n")

    def _take_up(self, fingerprint: str, say: Callable[[str], None]) -> int:
        """Reads which images are done, and returns the number of bytes of whole lines; 0 to start again."""
        with files.open_regular(self.path) as file:
            first = file.readline()
            head = _parsed(first)
            if head is None or STORE_KEY not in head:
                if first.endswith(b"\n") or not f'{{"{STORE_KEY}":'.encode().startswith(first[: len(STORE_KEY) + 4]):
                    raise BadInput(f"{self.path}: expected detections that maskx eval wrote, found another file")
                return 0
            if head != {STORE_KEY: STORE_FORMAT, "fingerprint": fingerprint}:
                say(f"{self.path}: its detections are of another model, data set or settings: starting again")
                return 0
            whole = len(first)
            for line in file:
                entry = _parsed(line)
                if entry is None or not isinstance(entry.get("image_id"), int):
                    break
                self.done.add(entry["image_id"])
                whole += len(line)
        cut = os.path.getsize(self.path) - whole
        half = f", after {cut} bytes of a line that was not finished" if cut else ""
        say(f"{self.path}: going on with {len(self.done)} images done{half}")
        return whole


def images(path: Path) -> Iterator[tuple[int, list[Json]]]:
    """The images that are done, one after the other: id and detections.

    Raises:
        BadInput: the file cannot be read, or is another.
    """
    try:
        with files.open_regular(path) as file:
            if STORE_KEY not in (_parsed(file.readline()) or {}):
                raise BadInput(f"{path}: expected detections that maskx eval wrote, found another file")
            for line in file:
                entry = _parsed(line)
                if entry is None:
                    return
                yield entry["image_id"], entry["detections"]
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {reason(error)}") from None


def read(path: Path) -> Iterator[Json]:
    """COCO's results, one after the other, of the images that are done."""
    return ({"image_id": image_id, **one} for image_id, found in images(path) for one in found)


def write_results(path: Path, out: Path) -> None:
    """Writes the detections of a store as COCO's results JSON."""
    with files.new_file(out) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        file.write("[")
        for number, one in enumerate(read(path)):
            file.write(",\n" if number else "\n")
            json.dump({key: value for key, value in one.items() if key != "annotation_id"}, file)
        file.write("\n]\n")


def _parsed(line: bytes) -> Json | None:
    """Returns the data of a whole line; None for a line that is cut off."""
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
