"""What the classes of an imported model are called: COCO's names where the number of classes says so, or a file's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from maskx_tf.errors import BadInput

# The names of COCO's ids 1 to 90; a dash stands for one that is not used.
NAMES = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, -, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, -, backpack, umbrella, -, -,
handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
surfboard, tennis racket, bottle, -, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, -, dining table, -, -, toilet, -, tv,
laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, -, book, clock, vase,
scissors, teddy bear, hair drier, toothbrush
"""
COCO = {number: name.strip() for number, name in enumerate(NAMES.split(","), 1) if name.strip() != "-"}
HIGHEST_ID = 90


class Labels(NamedTuple):
    """The classes of a model.

    Attributes:
        names: in the order of their indices 1..K.
        category_ids: the id of each in its data set, or None where no id is known.
    """

    names: tuple[str, ...]
    category_ids: tuple[int, ...] | None = None


def choose(file: Path | None, count: int, path: Path) -> Labels:
    """The labels of a model with a number of foreground classes: a file's, COCO's if there are 80, or numbers."""
    if file is not None:
        labels = read(file)
        if len(labels.names) != count:
            raise BadInput(f"{file}: names {len(labels.names)} classes, expected the {count} of {path}")
        return labels
    if count == len(COCO):
        return Labels(tuple(COCO.values()), tuple(COCO))
    return Labels(tuple(f"class {index}" for index in range(1, count + 1)))


def all_ids() -> Labels:
    """COCO's 90 ids, ten of which name nothing."""
    ids = range(1, HIGHEST_ID + 1)
    return Labels(tuple(COCO.get(number, f"unused {number}") for number in ids), tuple(ids))


def read(file: Path) -> Labels:
    """Class names of a text file, one a line, or of JSON: a list of names, or COCO's {"categories": [...]}.

    Raises:
        BadInput: it cannot be read, or names no class, or one twice.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadInput(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadInput(f"{file}: expected UTF-8 text") from None
    lines = (line.strip() for line in text.split("\n"))
    labels = _of_json(file, text) if file.suffix == ".json" else Labels(tuple(line for line in lines if line))
    _check(file, labels.names)
    return labels


def _of_json(file: Path, text: str) -> Labels:
    try:
        content: Any = json.loads(text)
        if isinstance(content, dict):
            categories = sorted(content["categories"], key=lambda category: category["id"])
            return Labels(
                tuple(str(category["name"]) for category in categories),
                tuple(int(category["id"]) for category in categories),
            )
        return Labels(tuple(str(name) for name in content))
    except (ValueError, TypeError, LookupError) as error:
        raise BadInput(f"{file}: expected a JSON list of names, or COCO's categories: {error}") from None


def _check(file: Path, names: Sequence[str]) -> None:
    if not names:
        raise BadInput(f"{file}: names no class")
    seen: set[str] = set()
    for name in names:
        if name in seen or not name:
            raise BadInput(f"{file}: expected no name twice, found {name!r}")
        seen.add(name)
