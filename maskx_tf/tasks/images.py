"""Finds the image files that a task reads, and names its results. It imports nothing large."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from maskx_tf.errors import BadInput
from maskx_tf.structures import Detections

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def find_images(names: Sequence[str]) -> Iterator[Path]:
    """The image files that files, folders and patterns name, each once, in order.

    Raises:
        BadInput: nothing has this name.
    """
    seen: set[Path] = set()
    for name in names:
        path = Path(name)
        if path.is_dir():
            found = sorted(entry for entry in path.rglob("*") if entry.suffix.lower() in SUFFIXES)
        elif path.exists():
            found = [path]
        else:
            found = [Path(match) for match in sorted(glob.glob(name, recursive=True))]
            if not found:
                raise BadInput(f"{name}: no such file or folder, and no file fits it as a pattern")
        for file in found:
            if file not in seen:
                seen.add(file)
                yield file


def image_ids(files: Sequence[Path]) -> dict[Path, int]:
    """COCO's image ids: the numbers in the files' names if all are distinct numbers, or else 1, 2, 3, ..."""
    if all(file.stem.isascii() and file.stem.isdigit() for file in files):
        numbers = [int(file.stem) for file in files]
        if len(set(numbers)) == len(files):
            return dict(zip(files, numbers, strict=True))
    return {file: number for number, file in enumerate(files, start=1)}


def picture_names(files: Sequence[Path]) -> dict[Path, str]:
    """A name for each picture: the file's own, with the names of its folders in front where two would be the same."""
    counts: dict[str, int] = {}
    for file in files:
        counts[file.stem] = counts.get(file.stem, 0) + 1
    return {
        file: (file.stem if counts[file.stem] == 1 else "_".join([*file.parts[:-1], file.name]).strip("/._")) + ".png"
        for file in files
    }


def at_least(found: Detections, score: float) -> Detections:
    """The detections from this score on."""
    kept = found.scores >= score
    return found._replace(**{key: value[kept] for key, value in found._asdict().items() if value is not None})
