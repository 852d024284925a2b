"""Draws a small data set to try things on: pebbles with masks, stars and rings with boxes alone, in COCO's form.

    python examples/shapes.py data/own
    python examples/shapes.py data/more --masks pebble,star
    python examples/shapes.py data/few --few 10
    python examples/shapes.py data/points --points 10

FOLDER/train.json has boxes of all and masks of the classes that --masks names. FOLDER/val.json has masks of all, so
that what was never shown can be measured. The same command draws the same scenes every time.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

CLASSES = ("pebble", "star", "ring")
SIDE = 240  # of an image, in pixels
FINER = 3  # scenes are drawn so much larger and made smaller, which smooths their edges

Outline = list[tuple[float, float]]


def outline(name: str, x: float, y: float, radius: float, draw: np.random.RandomState) -> Outline:
    """The corners of an object of this class around a point."""

    def circle(radii: Any, corners: int, start: float) -> Outline:
        angles = start + np.arange(corners) * 2 * math.pi / corners
        return [(x + r * math.cos(a), y + r * math.sin(a)) for a, r in zip(angles, radii, strict=True)]

    start = draw.uniform(0, 2 * math.pi)
    if name == "pebble":  # a dented circle
        waves = draw.uniform(0.04, 0.16, 2)
        bends = 2 * math.pi * np.arange(40) / 40
        return circle(radius * (1 - waves[0] - waves[1] + waves @ [np.sin(2 * bends), np.cos(3 * bends)]), 40, start)
    if name == "star":
        return circle(radius * np.tile([1.0, draw.uniform(0.4, 0.55)], 5), 10, start)
    # One line goes around the ring, inwards, around its hole, and back: so one polygon has a hole.
    outer, inner = (circle([radius * share] * 40, 40, start) for share in (1.0, draw.uniform(0.5, 0.65)))
    return [*outer, outer[0], inner[0], *inner[::-1]]


def scene(seed: int) -> tuple[Image.Image, list[tuple[str, Outline]]]:
    """A picture, and the classes and outlines of its one to four objects, which do not touch."""
    draw = np.random.RandomState(seed)
    large = SIDE * FINER
    ground = draw.uniform(60, 190, [1, 1, 3]) + draw.normal(0, 25, [6, 6, 3])
    picture = Image.fromarray(ground.clip(0, 255).astype(np.uint8)).resize([large, large], Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for _ in range(draw.randint(4, 12)):  # straws, which are nobody's
        ends = [int(end) for end in draw.randint(0, large, 4)]
        pen.line(ends, tuple(draw.randint(30, 220, 3).tolist()), int(draw.randint(3, 10)))
    objects: list[tuple[str, Outline]] = []
    places: list[tuple[float, float, float]] = []
    for _ in range(draw.randint(1, 5)):
        name = CLASSES[draw.randint(len(CLASSES))]
        radius = draw.uniform(18, 46)
        x, y = draw.uniform(radius + 2, SIDE - radius - 2, 2)
        if any(math.hypot(x - u, y - v) < radius + other + 3 for u, v, other in places):
            continue
        corners = outline(name, x, y, radius, draw)
        pen.polygon([(FINER * a, FINER * b) for a, b in corners], tuple(draw.randint(20, 240, 3).tolist()))
        objects.append((name, corners))
        places.append((x, y, radius))
    small = np.asarray(picture.filter(ImageFilter.BoxBlur(1)).resize([SIDE, SIDE], Image.Resampling.BOX), np.float32)
    return Image.fromarray((small + draw.normal(0, 6, small.shape)).clip(0, 255).astype(np.uint8)), objects


def annotation(number: int, image: int, name: str, corners: Outline, with_mask: bool) -> dict[str, Any]:
    """COCO's record of an object. One that is known by its box alone has no segmentation; nothing else differs."""
    (left, top), (right, bottom) = np.min(corners, axis=0), np.max(corners, axis=0)
    box = [round(float(value), 2) for value in (left, top, right - left, bottom - top)]
    record = {
        "id": number,
        "image_id": image,
        "category_id": CLASSES.index(name) + 1,
        "bbox": box,
        "area": round(box[2] * box[3], 2),
        "iscrowd": 0,
    }
    if with_mask:
        record["segmentation"] = [[round(float(value), 2) for corner in corners for value in corner]]
    return record


def labelled_points(number: int, corners: Outline, count: int) -> list[list[float]]:
    """Random points in an object's box: x, y and a label, 1 on the object or 0 outside it, as an annotator gives."""
    shape = Image.new("1", (SIDE * FINER, SIDE * FINER))
    ImageDraw.Draw(shape).polygon([(FINER * a, FINER * b) for a, b in corners], 1)
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    places = np.random.RandomState(number).uniform(low, high, [count, 2]).round(1).tolist()
    return [[x, y, int(bool(shape.getpixel((int(FINER * x), int(FINER * y)))))] for x, y in places]


def write(folder: Path, images: int, masks: tuple[str, ...] = ("pebble",), few: int = 0, points: int = 0) -> None:
    """The whole data set: four fifths of the images are train, one fifth is val.

    Args:
        folder: is made.
        images: in both parts.
        masks: the classes of which train has the masks of all objects.
        few: of the other classes it has those of the first so many objects.
        points: each other object of train has so many labelled points.
    """
    for part, first, last in (("train", 0, images * 4 // 5), ("val", images * 4 // 5, images)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        records: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
        left = {kind: 4 * images if part == "val" or kind in masks else few for kind in CLASSES}
        for number in range(first, last):
            picture, objects = scene(number)
            name = f"{number:04}.jpg"
            picture.save(folder / part / name, quality=92)
            records["images"].append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
            for kind, corners in objects:
                count = len(records["annotations"]) + 1
                record = annotation(count, number, kind, corners, left[kind] > 0)
                if points and left[kind] <= 0:
                    record["points"] = labelled_points(count, corners, points)
                records["annotations"].append(record)
                left[kind] -= 1
        categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]
        (folder / f"{part}.json").write_text(json.dumps({**records, "categories": categories}), encoding="utf-8")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Draw a small data set: pebbles with masks, stars and rings without.")
    parser.add_argument("folder", type=Path, help="the folder to write")
    parser.add_argument("--images", type=int, default=300, help="how many, a fifth of which is val (300)")
    parser.add_argument("--masks", default="pebble", help="classes whose masks training gets, with commas (pebble)")
    parser.add_argument("--few", type=int, default=0, help="objects of each other class whose masks it gets, too (0)")
    parser.add_argument("--points", type=int, default=0, help="labelled points of each object without a mask (0)")
    asked = parser.parse_args()
    masks = tuple(asked.masks.split(","))
    if asked.images < 5 or not set(masks) <= set(CLASSES):
        parser.error(f"expected 5 images or more, and masks of {', '.join(CLASSES)}")
    write(asked.folder, asked.images, masks, asked.few, asked.points)
    known = ", ".join(masks) + (f" and of {asked.few} objects of each other class" if asked.few else "")
    print(f"wrote {asked.folder}: {asked.images} images; masks of {known} in train.json, of all in val.json")


if __name__ == "__main__":
    main()
