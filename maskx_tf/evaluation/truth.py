"""The truth that detections are measured by: COCO's mapping of images, annotations and categories, as JSON has it."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Literal

from maskx_tf.errors import BadInput
from maskx_tf.files import Json, JsonView

IouKind = Literal["box", "mask", "keypoint"]
Truth = JsonView  # COCO's lists images, annotations and categories; masks were checked when they were read
Annotation = JsonView


def of_kind(truth: Truth, kind: IouKind) -> Truth:
    """The truth that a kind of IoU is measured by.

    For masks, an object without a mask becomes a crowd as large as its box, so detections there count neither for a
    model nor against it. For keypoints, an object without keypoints does the same, and categories without keypoints
    are left out.
    """
    categories = [one for one in truth["categories"] if kind != "keypoint" or one.get("keypoints")]
    points = {one["id"]: len(one.get("keypoints", ())) for one in categories}
    annotations = [
        _ready(one, kind, points[one["category_id"]]) for one in truth["annotations"] if one["category_id"] in points
    ]
    return {"images": truth["images"], "categories": categories, "annotations": annotations}


def _ready(one: Annotation, kind: IouKind, points: int) -> Json:
    """An annotation with all that evaluators ask for, in a separate mapping, because they write into it."""
    entry = {"iscrowd": 0, "ignore": 0, **one}
    if kind == "keypoint":
        return {"keypoints": [0] * (3 * points), "num_keypoints": 0, **entry}
    if kind == "box":
        entry.pop("segmentation", None)
    elif not one.get("segmentation"):
        entry |= {"iscrowd": 1, "segmentation": [_corners(one["bbox"])]}
    return entry


def _corners(bbox: list[float]) -> list[float]:
    """The polygon of a box [x, y, width, height]."""
    x, y, width, height = bbox
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def counts(truth: Truth, kind: IouKind) -> tuple[Counter[int], Counter[int]]:
    """How many objects each category has, and how many of them have no mask, or no keypoint; without crowds."""
    objects = [one for one in truth["annotations"] if not one.get("iscrowd")]
    needed = {"box": "bbox", "mask": "segmentation", "keypoint": "num_keypoints"}[kind]
    without = (one["category_id"] for one in objects if not one.get(needed))
    return Counter(one["category_id"] for one in objects), Counter(without)


def by_image(truth: Truth) -> dict[int, list[Annotation]]:
    """The annotations of each image that has any."""
    found: dict[int, list[Annotation]] = defaultdict(list)
    for one in truth["annotations"]:
        found[one["image_id"]].append(one)
    return found


def category_of(truth: Truth, class_names: tuple[str, ...]) -> dict[int, int]:
    """The truth's category id of each class 1..K of a model that the truth has, by name.

    Raises:
        BadInput: model and truth have no class in common.
    """
    ids = {category["name"]: int(category["id"]) for category in truth["categories"]}
    found = {number: ids[name] for number, name in enumerate(class_names, 1) if name in ids}
    if not found:
        theirs, ours = ", ".join(list(ids)[:3]), ", ".join(class_names[:3])
        raise BadInput(f"annotations: expected classes of the model, such as {ours}; found others, such as {theirs}")
    return found
