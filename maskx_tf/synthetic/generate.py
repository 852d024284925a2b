"""Writes the benchmark: images, COCO JSON with the masks of A, and the masks of B in separate files."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from maskx_tf import files
from maskx_tf.data.pipeline.workers import in_processes
from maskx_tf.errors import BadInput
from maskx_tf.files import Json
from maskx_tf.masks import rle
from maskx_tf.synthetic.keypoints import KEYPOINT_NAMES, KEYPOINT_SKELETON
from maskx_tf.synthetic.parameters import Recipe
from maskx_tf.synthetic.recipe import PARTS, SyntheticClass, a_classes, check, classes, sizes
from maskx_tf.synthetic.report import readme
from maskx_tf.synthetic.scene import scene

COMPRESSION = 6  # level of PNG; fixed, so that two runs write the same bytes
IDS_OF_PART = 1_000_000  # image ids of a part begin at a multiple of it, so that none occurs twice
IDS_OF_IMAGE = 10  # annotation ids of an image begin at a multiple of it
CHUNK = 16  # scenes that a process draws at a time


class _Task(NamedTuple):
    part: str
    number: int  # from 0 on


def generate(
    recipe: Recipe,
    out: Path,
    workers: int = 1,
    advance: Callable[[], None] = lambda: None,
    *,
    keypoints: bool = False,
) -> dict[str, dict[str, int]]:
    """Writes the benchmark into a new folder, which appears when it is complete.

    Args:
        recipe: its parameters.
        out: the folder, absent or empty.
        workers: processes that draw; the result does not depend on it.
        advance: is called after each image.
        keypoints: whether annotations have keypoints; everything else is the same without.

    Returns:
        For each part, how many images, instances, and instances with masks it has.
    """
    check(recipe)
    names = a_classes(recipe)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"--out {out}: expected a new folder, or an empty one")
    with files.new_folder(out) as unfinished:
        counts = _write_all(recipe, names, unfinished, workers, advance, keypoints)
        files.write_text(unfinished / "README.md", readme(recipe, classes(recipe), names, counts, keypoints))
    return counts


def _write_all(
    recipe: Recipe, names: frozenset[str], folder: Path, workers: int, advance: Callable[[], None], keypoints: bool
) -> dict[str, dict[str, int]]:
    every = classes(recipe)
    tasks = [_Task(part, index) for part, count in sizes(recipe).items() for index in range(count)]
    records: dict[str, list[Json]] = {part: [] for part in PARTS}
    annotations: dict[str, list[Json]] = {part: [] for part in PARTS}
    for part in PARTS:
        (folder / part).mkdir()
    draw = partial(_draw_all, recipe, every, folder, keypoints)
    chunks = [tasks[start : start + CHUNK] for start in range(0, len(tasks), CHUNK)]
    drawn = itertools.chain.from_iterable(in_processes(draw, chunks, workers, advance=advance))
    for task, found in zip(tasks, drawn, strict=True):
        records[task.part].append(_image(recipe, task))
        annotations[task.part] += found
    labels = {category for category, one in enumerate(every, 1) if one.name in names}
    counts = {}
    for part in PARTS:
        whole = annotations[part]
        known = [one if one["category_id"] in labels else _without_mask(one) for one in whole]
        hidden = [one for one in whole if one["category_id"] not in labels]
        for name, entries in ((f"instances_{part}.json", known), (f"masks_b_{part}.json", hidden)):
            data = {"images": records[part], "annotations": entries, "categories": _categories(every, names, keypoints)}
            files.write_json(folder / name, data, indent=None)
        counts[part] = {
            "images": len(records[part]),
            "instances": len(whole),
            "with_masks": len(whole) - len(hidden),
        }
    return counts


def _draw_all(
    recipe: Recipe,
    every: Sequence[SyntheticClass],
    folder: Path,
    keypoints: bool,
    tasks: Sequence[_Task],
    step: Callable[[], None],
) -> list[list[Json]]:
    """Writes images, with a step after each, and returns the annotations of each."""
    found = []
    for task in tasks:
        found.append(_draw(recipe, every, folder, keypoints, task))
        step()
    return found


def _draw(recipe: Recipe, every: Sequence[SyntheticClass], folder: Path, keypoints: bool, task: _Task) -> list[Json]:
    """Writes one image and returns its annotations, all with masks."""
    drawn = scene(recipe, every, task.part, task.number)
    image = _image(recipe, task)
    path = folder / task.part / image["file_name"]
    Image.fromarray(drawn.pixels).save(path, format="PNG", compress_level=COMPRESSION)
    found = []
    for number, one in enumerate(drawn.objects):
        rows, columns = np.flatnonzero(one.mask.any(axis=1)), np.flatnonzero(one.mask.any(axis=0))
        x, y = int(columns[0]), int(rows[0])
        found.append(
            {
                "id": IDS_OF_IMAGE * image["id"] + number,
                "image_id": image["id"],
                "category_id": one.label + 1,
                "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
                "area": int(one.mask.sum()),
                "iscrowd": 0,
                "segmentation": rle.encode(one.mask),
                **(one.keypoints if keypoints else {}),
            }
        )
    return found


def _image(recipe: Recipe, task: _Task) -> Json:
    identity = IDS_OF_PART * PARTS.index(task.part) + task.number + 1
    return {
        "id": identity,
        "file_name": f"{task.number + 1:06d}.png",
        "width": recipe.size,
        "height": recipe.size,
    }


def _without_mask(annotation: Json) -> Json:
    """The annotation as one of B: its area, too, is that of the box, for the mask's would say something about it."""
    _, _, width, height = annotation["bbox"]
    return {key: value for key, value in annotation.items() if key != "segmentation"} | {"area": width * height}


def _categories(every: Sequence[SyntheticClass], names: frozenset[str], keypoints: bool) -> list[Json]:
    named = {"keypoints": KEYPOINT_NAMES, "skeleton": KEYPOINT_SKELETON} if keypoints else {}
    return [
        {"id": category, "name": one.name, "supercategory": "A" if one.name in names else "B", **named}
        for category, one in enumerate(every, 1)
    ]
