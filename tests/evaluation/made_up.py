"""Artificial truth and detections of ellipses: hits, misses, duplicates, false positives, and some in crowds."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

HEIGHT, WIDTH = 160, 200
CATEGORIES = {3: "cat", 7: "dog", 8: "hat", 20: "shoe", 90: "ghost"}  # there is no ghost
A, B = {"cat", "shoe"}, {"dog", "hat", "ghost"}
A_IDS, B_IDS = [3, 20], [7, 8, 90]


def encode(pixels: np.ndarray) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(pixels, np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def ellipse(x: float, y: float, width: float, height: float) -> np.ndarray:
    """The pixels of an ellipse that fills a box."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    distance = ((columns - x - width / 2) / (width / 2)) ** 2 + ((rows - y - height / 2) / (height / 2)) ** 2
    return distance <= 1


def _object(rng: np.random.Generator) -> tuple[float, float, float, float]:
    side = rng.choice([16, 40, 150])  # small, medium and large
    width, height = rng.uniform(0.6, 1.0, 2) * side
    return rng.uniform(0, WIDTH - width), rng.uniform(0, HEIGHT - height), width, height


def truth(seed: int = 0, images: int = 24) -> dict[str, Any]:
    """COCO's mapping; a tenth are crowds."""
    rng = np.random.default_rng(seed)
    annotations = []
    for image in range(images):
        for _ in range(rng.integers(0, 7)):
            box = _object(rng)
            rle = encode(ellipse(*box))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 100 + image,
                    "category_id": int(rng.choice([3, 7, 8, 20])),
                    "bbox": [float(side) for side in box],
                    "segmentation": rle,
                    "area": int(coco_mask.area(rle)),
                    "iscrowd": int(rng.uniform() < 0.1),
                }
            )
    return {
        "images": [{"id": 100 + image, "height": HEIGHT, "width": WIDTH} for image in range(images)],
        "categories": [{"id": number, "name": name} for number, name in CATEGORIES.items()],
        "annotations": annotations,
    }


def results(truth: dict[str, Any], seed: int = 1) -> list[dict[str, Any]]:
    """COCO's results: each object up to three times with some error, and others where nothing is."""
    rng = np.random.default_rng(seed)
    found = []

    def add(image: int, category: int, box: np.ndarray, score: float) -> None:
        entry = {"image_id": image, "category_id": category, "score": round(score, 2)}  # some are equal
        found.append(entry | {"bbox": [float(side) for side in box], "segmentation": encode(ellipse(*box))})

    for one in truth["annotations"]:
        for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
            x, y, width, height = one["bbox"]
            error = rng.normal(0, 0.1, 4) * [width, height, width, height]
            category = one["category_id"] if rng.uniform() < 0.9 else 7
            add(one["image_id"], category, np.array([x, y, width, height]) + error, rng.uniform(0.3, 1))
    for image in truth["images"]:
        for _ in range(2):
            add(image["id"], int(rng.choice([3, 7, 8, 20, 90])), np.array(_object(rng)), rng.uniform(0, 0.6))
    return found
