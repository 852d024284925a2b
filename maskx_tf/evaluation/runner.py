"""Runs a model on images, batch by batch, and stores detections in a file, with masks as the original's run lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Literal, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from maskx_tf import files
from maskx_tf.evaluation.store import Store
from maskx_tf.evaluation.truth import Annotation, Truth, by_image, category_of
from maskx_tf.files import Json, JsonView
from maskx_tf.masks.paste import Crop
from maskx_tf.masks.results import coco_result, keypoints_of
from maskx_tf.masks.steps import NO_STEPS, MaskSteps
from maskx_tf.models.inference import Predictor
from maskx_tf.structures import Detections

Boxes = Literal["detected", "truth"]
EvaluationBatch = JsonView  # images, image_sizes, original_sizes, image_ids and image_valid of data.pipeline.batches
PixelSource = Callable[[int], NDArray[np.uint8]]  # the image with an id, uint8 [H, W, 3]
Finder = Callable[[NDArray[np.uint8]], Detections]  # finds the objects in an image, in its pixels and without padding
LEAST_ROOM = 8  # boxes; given boxes are padded to this times a power of two, each of which is a graph


class _Found(NamedTuple):
    """The detections of an image, boxes [D, 4] and keypoints [D, P, 3] in its own pixels, and their annotations."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    categories: list[int]
    masks: NDArray[np.float32] | None
    annotations: list[int] | None = None
    keypoints: NDArray[np.floating] | None = None


_Ask = Callable[[Json], list[_Found]]


def run(
    predictor: Predictor,
    batches: Iterable[EvaluationBatch],
    truth: Truth,
    store: Store,
    *,
    class_names: tuple[str, ...],
    boxes: Boxes = "detected",
    paste: str = "continuous",
    steps: MaskSteps = NO_STEPS,
    find: Finder | None = None,
    pixels: PixelSource | None = None,
    on_image: Callable[[], None] = lambda: None,
) -> None:
    """Adds the detections of every image of the batches that is not in the store yet.

    Args:
        predictor: a predictor of any family.
        batches: each image once; entries that are not valid fill up a batch.
        truth: COCO's mapping; its categories are matched with the classes by name.
        store: the store that receives the detections.
        class_names: the class names of the model.
        boxes: the model's own, or those of the truth with their true classes, which leaves the masks to judge.
        paste: the mode of `ops.masks.paste`.
        steps: what is made of the model's masks.
        find: finds objects in the predictor's place.
        pixels: the original images, where steps or `find` read them.
        on_image: is called after each image.
    """
    categories = category_of(truth, class_names)
    pixels = pixels or _no_pixels
    ask: _Ask
    if find is not None:
        ask = _looker(find, pixels, categories)
    elif boxes == "detected":
        ask = _detector(predictor, categories)
    else:
        ask = _segmenter(predictor, categories, truth, with_masks=not steps.grabcut)
    for batch in batches:
        rows = _waiting(batch, store.done, on_image)
        if not rows:
            continue
        part = _part(batch, rows)
        sizes = np.asarray(part["original_sizes"]).astype(int).tolist()
        for image_id, (height, width), found in zip(part["image_ids"].tolist(), sizes, ask(part), strict=True):
            image = partial(pixels, image_id)
            crops = steps.crops(found.boxes, found.masks, (height, width), image, paste)
            store.add(image_id, _entries(found, crops, height, width))
            on_image()


def _waiting(batch: EvaluationBatch, done: set[int], on_image: Callable[[], None]) -> list[int]:
    """The rows of a batch that are images, and not done yet."""
    rows = []
    ids, valid = np.asarray(batch["image_ids"]).tolist(), np.asarray(batch["image_valid"]).tolist()
    for row, (image_id, is_image) in enumerate(zip(ids, valid, strict=True)):
        if is_image and image_id not in done:
            rows.append(row)
        elif is_image:
            on_image()
    return rows


def _part(batch: EvaluationBatch, rows: list[int]) -> Json:
    """Returns some rows of a batch; numbers become NumPy arrays, images stay tensors."""
    images = batch["images"] if len(rows) == len(batch["image_ids"]) else tf.gather(batch["images"], rows)
    numbers = {key: np.asarray(batch[key])[rows] for key in ("image_sizes", "original_sizes", "image_ids")}
    return {"images": images, **numbers}


def _detector(predictor: Predictor, categories: Mapping[int, int]) -> _Ask:
    """Asks the model for what it finds."""

    def ask(part: Json) -> list[_Found]:
        detections = predictor.detect(part["images"], tf.constant(part["image_sizes"], tf.float32))
        arrays = detections.mapped(np.asarray)
        rows = [arrays.mapped(itemgetter(row)) for row in range(len(arrays.valid))]
        return [_found(one, scale, categories) for one, scale in zip(rows, _scale(part), strict=True)]

    return ask


def _looker(find: Finder, pixels: PixelSource, categories: Mapping[int, int]) -> _Ask:
    """Returns a function that passes each whole image to a finder of objects."""
    unscaled = np.ones(4, np.float32)

    def ask(part: Json) -> list[_Found]:
        return [_found(find(pixels(image_id)), unscaled, categories) for image_id in part["image_ids"].tolist()]

    return ask


def _found(one: Detections, scale: NDArray[np.float32], categories: Mapping[int, int]) -> _Found:
    """The detections of an image; classes that the truth does not know are dropped."""
    kept = one.valid & np.isin(one.classes, sorted(categories))
    points = keypoints_of(one)
    return _Found(
        boxes=one.boxes[kept] * scale,
        scores=one.scores[kept],
        categories=[categories[label] for label in one.classes[kept].tolist()],
        masks=None if one.masks is None else one.masks[kept],
        keypoints=None if points is None else points[kept] * [*scale[:2], 1.0],
    )


def _segmenter(predictor: Predictor, categories: Mapping[int, int], truth: Truth, *, with_masks: bool) -> _Ask:
    """Returns a function that asks the model for the masks of the true boxes and classes, with score 1."""
    labels = {category: label for label, category in categories.items()}
    objects = {
        image: [one for one in annotations if not one.get("iscrowd") and one["category_id"] in labels]
        for image, annotations in by_image(truth).items()
    }

    def ask(part: Json) -> list[_Found]:
        groups = [objects.get(image_id, []) for image_id in part["image_ids"].tolist()]
        boxes = [_boxes(group) for group in groups]
        masks = None
        if with_masks and any(groups):
            masks = segment(part, groups, boxes)
        return [
            _Found(
                boxes=boxes[row],
                scores=np.ones(len(group), np.float32),
                categories=[one["category_id"] for one in group],
                masks=None if masks is None else masks[row, : len(group)],
                annotations=[one["id"] for one in group],
            )
            for row, group in enumerate(groups)
        ]

    def segment(part: Json, groups: list[list[Annotation]], boxes: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        room = LEAST_ROOM
        while room < max(map(len, groups)):
            room *= 2
        given = np.zeros([len(groups), room, 4], np.float32)
        classes = np.zeros([len(groups), room], np.int32)
        for row, (group, scale) in enumerate(zip(groups, _scale(part), strict=True)):
            given[row, : len(group)] = boxes[row] / scale
            classes[row, : len(group)] = [labels[one["category_id"]] for one in group]
        sizes = tf.constant(part["image_sizes"], tf.float32)
        found = predictor.segment(part["images"], sizes, tf.constant(given), tf.constant(classes))
        return np.asarray(found.masks)

    return ask


def _boxes(annotations: Sequence[Annotation]) -> NDArray[np.float32]:
    bbox = np.array([one["bbox"] for one in annotations], np.float32).reshape(-1, 4)
    return np.concatenate([bbox[:, :2], bbox[:, :2] + bbox[:, 2:]], axis=1)


def _scale(part: Json) -> NDArray[np.float32]:
    """Returns the factors from canvas pixels to the original's: [B, 4] for x1, y1, x2, y2."""
    ratio = part["original_sizes"] / part["image_sizes"]
    return np.asarray(ratio[:, [1, 0, 1, 0]], np.float32)


def _no_pixels(image_id: int) -> NDArray[np.uint8]:
    raise ValueError(f"expected the pixels of image {image_id}, which a step reads, found none")


def _entries(found: _Found, crops: Sequence[Crop] | None, height: int, width: int) -> list[Json]:
    """An image's results as COCO has them, but for the image's id."""
    entries = []
    for index, category in enumerate(found.categories):
        crop = None if crops is None else crops[index]
        points = None if found.keypoints is None else found.keypoints[index]
        entry = coco_result(category, found.boxes[index], float(found.scores[index]), crop, height, width, points)
        if found.annotations is not None:
            entry["annotation_id"] = found.annotations[index]
        entries.append(entry)
    return entries


def fingerprint(predictor: Predictor, truth: Truth, **facts: Any) -> str:
    """A short text that changes with the weights, the images, the truth and any of these facts.

    Args:
        predictor: its model's weights count.
        truth: COCO's mapping.
        **facts: what else detections depend on, such as the configuration, as plain data.
    """
    weights = ((variable.path, variable.numpy()) for variable in predictor.model.variables)
    return files.digest({"canvas": predictor.canvas, "truth": truth, **facts}, weights)[:32]
