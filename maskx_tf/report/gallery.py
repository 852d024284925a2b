"""The pictures of a report: truth next to prediction, for the best, median, worst and random images."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from maskx_tf import visualize
from maskx_tf.evaluation.truth import Annotation, Truth, by_image
from maskx_tf.files import Json, JsonView
from maskx_tf.masks.crops import crop_mask
from maskx_tf.masks.results import keypoint_places
from maskx_tf.masks.rle import of_any_form
from maskx_tf.structures import Detections

GRID = 112  # cells a side of a drawn mask
SIDE = 480  # pixels of a picture's longer side
QUALITY = 82  # quality of the JPEG file
LEAST_IOU = 0.5  # least IoU of a detection and its object


class Shown(NamedTuple):
    """An image of the gallery.

    Attributes:
        group: best, median, worst or random.
        image_id: the id of the image.
        quality: 0..1, see `quality`.
        truth: a JPEG as a data URI.
        prediction: the same.
    """

    group: str
    image_id: int
    quality: float
    truth: str
    prediction: str


def quality(truth: Sequence[Annotation], found: Sequence[JsonView], height: int, width: int) -> float:
    """Returns how well detections fit objects of their classes, as panoptic quality.

    This is the sum of the IoUs of pairs, divided by the number of pairs plus half the number of unmatched detections
    and objects; 1 for an empty image in which nothing was found. Masks are compared if all have one, and boxes
    otherwise. Crowds are left out.
    """
    objects = [one for one in truth if not one.get("iscrowd")]
    if not objects and not found:
        return 1.0
    ious = np.zeros([len(found), len(objects)])
    if ious.size:
        same = np.equal.outer([one["category_id"] for one in found], [one["category_id"] for one in objects])
        ious = np.where(same, _ious(objects, found, height, width), 0.0)
    total, pairs = 0.0, 0
    while ious.size and ious.max() >= LEAST_IOU:
        row, column = np.unravel_index(ious.argmax(), ious.shape)
        total, pairs = total + float(ious[row, column]), pairs + 1
        ious[row], ious[:, column] = 0.0, 0.0
    return total / (pairs + 0.5 * (len(found) - pairs) + 0.5 * (len(objects) - pairs))


def _ious(objects: Sequence[Annotation], found: Sequence[JsonView], height: int, width: int) -> NDArray[np.float64]:
    if all(one.get("segmentation") for one in [*objects, *found]):
        forms = [[one["segmentation"] for one in of] for of in (found, objects)]
        pair: list[list[Any]] = [[of_any_form(form, height, width) for form in of] for of in forms]
    else:
        pair = [[list(one["bbox"]) for one in of] for of in (found, objects)]
    return np.asarray(coco_mask.iou(*pair, [0] * len(objects)), np.float64)


def choose(qualities: Mapping[int, float], each: int, seed: int = 0) -> list[tuple[str, int]]:
    """Chooses images for each group, none twice: the best first, the worst first."""
    ranked = sorted(qualities, key=lambda image: (-qualities[image], image))
    chosen: list[tuple[str, int]] = []

    def take(group: str, images: Iterable[int]) -> None:
        known = {image for _, image in chosen}
        chosen.extend((group, image) for image in [image for image in images if image not in known][:each])

    middle = max(len(ranked) // 2 - each // 2, 0)
    take("best", ranked)
    take("worst", ranked[::-1])
    take("median", ranked[middle:])
    take("random", (ranked[place] for place in np.random.RandomState(seed).permutation(len(ranked))))
    return chosen


def pictures(
    truth: Truth,
    results: Callable[[], Iterable[tuple[int, list[Json]]]],
    pixels: Callable[[int], NDArray[np.uint8]],
    *,
    a_classes: Collection[str] | None,
    each: int = 3,
    score: float = 0.5,
    seed: int = 0,
) -> list[Shown]:
    """The gallery; detections are read image by image, twice, and never all at once.

    Args:
        truth: COCO's mapping.
        results: gives each image's id and detections.
        pixels: gives an image in RGB by its id.
        a_classes: names of the classes with masks, or None.
        each: images a group.
        score: detections below it are neither judged nor shown.
        seed: the seed of the choice of random images.
    """
    objects = by_image(truth)
    sizes = {int(image["id"]): (int(image["height"]), int(image["width"])) for image in truth["images"]}

    def seen(found: list[Json]) -> list[Json]:
        return sorted((one for one in found if one["score"] >= score), key=lambda one: -one["score"])

    qualities = {
        image: quality(objects.get(image, []), seen(found), *sizes[image])
        for image, found in results()
        if image in sizes
    }
    chosen = choose(qualities, each, seed)
    wanted = {image for _, image in chosen}
    kept = {image: seen(found) for image, found in results() if image in wanted}
    names = tuple(str(one["name"]) for one in truth["categories"])
    labels = {int(one["id"]): label for label, one in enumerate(truth["categories"], 1)}
    skeleton = next((one["skeleton"] for one in truth["categories"] if one.get("skeleton")), ())
    lines = [(first - 1, second - 1) for first, second in skeleton]
    a_names = None if a_classes is None else frozenset(a_classes)

    def drawn(image: int, entries: Sequence[JsonView]) -> str:
        return jpeg(_picture(pixels(image), entries, names, labels, a_names, lines))

    order = {"best": 0, "median": 1, "worst": 2, "random": 3}
    return [
        Shown(group, image, qualities[image], drawn(image, objects.get(image, [])), drawn(image, kept[image]))
        for group, image in sorted(chosen, key=lambda pair: order[pair[0]])
    ]


def _picture(
    pixels: NDArray[np.uint8],
    entries: Sequence[JsonView],
    names: Sequence[str],
    labels: Mapping[int, int],
    a_names: frozenset[str] | None,
    skeleton: Sequence[tuple[int, int]],
) -> NDArray[np.uint8]:
    """An image with objects or detections, in the size in which it is shown."""
    height, width = pixels.shape[:2]
    entries = [one for one in entries if not one.get("iscrowd") and min(one["bbox"][2:]) > 0]
    boxes = np.array([one["bbox"] for one in entries], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    masks = np.zeros([len(entries), GRID, GRID], np.float32)
    for mask, one, box in zip(masks, entries, boxes, strict=True):
        if one.get("segmentation"):
            mask[:] = crop_mask(of_any_form(one["segmentation"], height, width), box, height, width, GRID)
    scores = [one["score"] for one in entries if "score" in one]
    found = Detections(
        boxes=boxes,
        scores=np.array(scores, np.float32) if scores else None,
        classes=np.array([labels[one["category_id"]] for one in entries], np.int32),
        valid=np.ones(len(entries), bool),
        masks=masks,
        keypoints=_keypoints(entries),
    )
    return visualize.draw(*visualize.resized(pixels, found, SIDE), names, a_classes=a_names, skeleton=skeleton)


def _keypoints(entries: Sequence[JsonView]) -> NDArray[np.float32] | None:
    """The places of keypoints [D, P, 2], zeros where there is none; None if no entry has any."""
    numbers = [one.get("keypoints") for one in entries]
    count = max((len(one) for one in numbers if one), default=0)
    if not count:
        return None
    return np.array([keypoint_places(one or [0.0] * count) for one in numbers], np.float32)[..., :2]


def jpeg(picture: NDArray[np.uint8]) -> str:
    """A picture as a data URI."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
