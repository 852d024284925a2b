"""Finds the image files that a task reads, and names its results. It imports nothing large."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from maskx_tf.errors import BadInput
from maskx_tf.structures import Detections

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def find_images(
    names: Sequence[str], suffixes: Collection[str] = SUFFIXES, *, any_match: bool = False
) -> Iterator[Path]:
    """The image files that files, folders and patterns name, each once, in order.

    Args:
        names: names of files, folders and patterns.
        suffixes: the suffixes of images in a folder, and of those that a pattern without a suffix fits; a file that is
            named itself may have any.
        any_match: whether files that a pattern fits may have other suffixes, too.

    Raises:
        BadInput: nothing has this name.
    """
    seen: set[Path] = set()
    for name in names:
        path = Path(name)
        if path.is_dir():
            found = sorted(entry for entry in path.rglob("*") if _fits(entry, suffixes))
        elif path.exists():
            found = [path]
        else:
            matches = [Path(match) for match in sorted(glob.glob(name, recursive=True))]
            names_suffix = path.suffix[1:].isalnum()
            found = [match for match in matches if _fits(match, None if any_match or names_suffix else suffixes)]
            if not found:
                what = "image" if matches else "file"
                raise BadInput(f"{name}: no such file or folder, and no {what} fits it as a pattern")
        for file in found:
            if file not in seen:
                seen.add(file)
                yield file


def _fits(path: Path, suffixes: Collection[str] | None) -> bool:
    """Whether a path has one of the suffixes, if they are given, and is no folder."""
    return (suffixes is None or path.suffix.lower() in suffixes) and not os.path.isdir(path)


def image_ids(files: Sequence[Path]) -> dict[Path, int]:
    """COCO's image ids: the numbers in the files' names if all are distinct numbers, or else 1, 2, 3, ..."""
    if all(file.stem.isascii() and file.stem.isdigit() for file in files):
        numbers = [int(file.stem) for file in files]
        if len(set(numbers)) == len(files):
            return dict(zip(files, numbers, strict=True))
    return {file: number for number, file in enumerate(files, start=1)}


def picture_files(files: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """The file of each image's picture in a folder, no two alike, also where upper and lower case are the same.

    It has the image's name, with the names of its folders in front where two would be the same.

    Raises:
        BadInput: the folder holds some of the images, which a picture could replace.
    """
    counts = Counter(file.stem.casefold() for file in files)
    holders = {os.path.realpath(file.parent) for file in files} | {os.path.dirname(os.path.realpath(f)) for f in files}
    pictures: dict[Path, Path] = {}
    taken: set[str] = set()
    for file in files:
        alone = counts[file.stem.casefold()] == 1
        name = file.stem if alone else "_".join([*file.parts[:-1], file.name]).strip("/._")
        while name.casefold() in taken:
            name += "_"
        taken.add(name.casefold())
        pictures[file] = folder / f"{name}.png"
        if os.path.dirname(os.path.realpath(pictures[file])) in holders:  # the real path: new_file follows links
            raise BadInput(f"{pictures[file]}: expected another folder than one of the images, which would be replaced")
    return pictures


def at_least(found: Detections, score: float) -> Detections:
    """Returns the detections with at least this score."""
    kept = found.scores >= score
    return found.mapped(lambda array: array[kept])
