"""Detections or ground truth on a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from maskx_tf.masks.paste import Crop, paste_crop
from maskx_tf.structures import Detections
from maskx_tf.visualize.paint import (
    Area,
    Colour,
    Picture,
    Style,
    fit,
    in_colour,
    label_width,
    look,
    paint_frame,
    paint_label,
    paint_mask,
    paint_skeleton,
    style_for,
    written,
)

POINTS_PER_SIDE = 30  # radii of keypoints that fit along a box, so that a face in it stays recognisable
LEGIBLE = 480  # pixels of the longer side, in which letters of a dozen pixels leave room for what they name


def draw(
    image: np.ndarray,
    detections: Detections,
    names: Sequence[str],
    *,
    a_classes: Set[str] | None = None,
    threshold: float = 0.5,
    mode: str = "continuous",
    crops: Sequence[Crop] | None = None,
    skeleton: Sequence[tuple[int, int]] = (),
) -> Picture:
    """A copy of the picture, uint8 [H, W, 3], with boxes, masks, keypoints and labels.

    Boxes are cut at the border of the picture; those wholly outside are left out, those without area are drawn one
    pixel thin. A label that finds no room loses its score, then letters. It is left out where better ones would hide
    part of it, and as soon as labels cover a third of the picture. The font knows English letters: others lose their
    accents or become "?", and a name of which nothing is left is written as "#" and the number of its class.

    Args:
        image: uint8 [H, W, 3], or grey [H, W] or [H, W, 1].
        detections: those of the image, without a batch dimension, best first; scores and masks may be None.
        names: class k is called names[k - 1].
        a_classes: names of the classes with masks, all others are B; None draws all classes in one style.
        threshold: a pixel belongs to a mask from this value on.
        mode: how masks are pasted, see `ops.masks.paste`.
        crops: a mask in pixels of the picture for each detection, all of which are valid, in place of `masks`.
        skeleton: indices of the keypoints between which a line is drawn. A keypoint at 0, 0 is not there.

    Raises:
        ValueError: an array of the wrong shape or type, a class without a name, a box not finite or turned over.
    """
    canvas = Image.fromarray(in_colour(image))
    found = _checked(detections, len(names))
    width, height = canvas.size
    style = style_for(math.sqrt(width * height))
    looks = [look(names[number - 1], a_classes) for number in found.classes]
    areas, surfaces = _areas(found.boxes, width, height)
    seen = [index for index, surface in enumerate(surfaces) if surface]
    upwards = sorted(seen, key=lambda index: -surfaces[index])  # so that large ones do not hide small ones
    for index in upwards if crops is not None or found.masks is not None else []:
        crop = (
            paste_crop(found.masks[index], found.boxes[index], height, width, threshold=threshold, mode=mode)
            if crops is None
            else crops[index]
        )
        paint_mask(canvas, crop.pixels, (crop.left, crop.top), looks[index][0], style.line)
    pen = ImageDraw.Draw(canvas)
    for index in upwards:
        paint_frame(pen, areas[index], *looks[index], style)
    for index in upwards if found.keypoints is not None else []:
        points = [(x, y) if x or y else None for x, y in found.keypoints[index].tolist()]
        paint_skeleton(pen, points, skeleton, looks[index][0], _point_size(surfaces[index], style))
    labels: list[tuple[Area, str, Colour, bool]] = []
    free = width * height // 3
    for index in seen:
        number, (colour, is_b) = found.classes[index], looks[index]
        name = written(names[number - 1], number)
        score = "" if found.scores is None else f" {found.scores[index]:.2f}"
        for text in (name + score, fit(name, width - label_width("", is_b, style), style)):
            size = (label_width(text, is_b, style), style.row)
            place, hidden = _place(areas[index], size, [other for other, *_ in labels], width, height)
            if hidden == 0 and size[0] <= width:
                break
        if text and hidden < 0.25 and style.row <= height and math.prod(size) <= free:
            labels.append((place, text, colour, is_b))
            free -= math.prod(size)
    for place, text, colour, is_b in reversed(labels):
        paint_label(pen, place, text, colour, is_b, style)
    return np.array(canvas)


def _point_size(surface: int, style: Style) -> int:
    """The radius of keypoints in a box of so many pixels: small enough for the box, and not larger than others'."""
    return max(1, min(2 * style.line, round(math.sqrt(surface) / POINTS_PER_SIDE)))


def resized(image: np.ndarray, detections: Detections, side: int) -> tuple[Picture, Detections]:
    """Returns a picture with a longer side of this many pixels, and what lies on it; masks lie in their boxes."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    ratio = np.array([size[0] / width, size[1] / height] * 2, np.float32)
    picture = np.asarray(Image.fromarray(in_colour(image)).resize(size, Image.Resampling.BILINEAR))
    boxes, points = np.asarray(detections.boxes) * ratio, detections.keypoints
    return picture, detections._replace(boxes=boxes, keypoints=None if points is None else points * ratio[:2])


def enlarged(image: np.ndarray, detections: Detections) -> tuple[Picture, Detections]:
    """Returns a picture enlarged to at least 480 pixels, so that readable letters do not cover it."""
    if max(image.shape[:2]) >= LEGIBLE:
        return in_colour(image), detections
    return resized(image, detections, LEGIBLE)


def _checked(detections: Detections, classes: int) -> Detections:
    """The valid detections as NumPy arrays, and the classes as a list, after a look at shapes and values."""
    arrays = {name: np.asarray(array) for name, array in detections._asdict().items() if array is not None}
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    points = shapes.get("keypoints", [0, 0, 0])[1:2]
    rest = {"boxes": [4], "masks": shapes.get("masks", [0])[-1:] * 2}
    rest |= {"keypoints": [*points, 2], "keypoint_scores": points}
    if any(shape != [*shapes["boxes"][:1], *rest.get(name, [])] for name, shape in shapes.items()):
        expected = "boxes [D, 4], masks [D, M, M], keypoints [D, P, 2], keypoint_scores [D, P], others [D]"
        raise ValueError(f"shapes are {shapes}, expected {expected}; no batch dimension")
    kept = detections._replace(**{name: array[arrays["valid"].astype(bool)] for name, array in arrays.items()})
    for box, number in zip(kept.boxes, kept.classes, strict=True):
        if not np.isfinite(box).all() or (box[2:] < box[:2]).any():
            raise ValueError(f"a box is {box.tolist()}, expected finite x1, y1, x2, y2 with x1 <= x2 and y1 <= y2")
        if not 1 <= number <= classes:
            raise ValueError(f"a class is {number}, expected 1..{classes}, one of the names")
    return kept._replace(classes=kept.classes.astype(int).tolist())


def _areas(boxes: NDArray[np.floating], width: int, height: int) -> tuple[list[Area], list[int]]:
    """The pixels whose centre lies in each box, at least one a side, cut to the picture; and how many they are."""
    edges = np.ceil(boxes.astype(float) - 0.5)
    edges[:, 2:] = np.maximum(edges[:, 2:], edges[:, :2] + 1.0)
    areas = np.clip(edges, 0, [width, height, width, height]).astype(int)
    return [tuple(area) for area in areas.tolist()], np.prod(areas[:, 2:] - areas[:, :2], axis=1).tolist()


def _place(area: Area, size: tuple[int, int], taken: Sequence[Area], width: int, height: int) -> tuple[Area, float]:
    """Returns the place at the box where a label covers the least of other labels, and the share that it covers."""
    (left, top, right, bottom), (wide, high) = area, size
    # Above the box, inside its top, below it, inside its bottom, then down its sides in at most 20 steps.
    levels = [top - high, top, bottom, bottom - high, *range(top, bottom, max(high, (bottom - top) // 20))]
    corners = np.clip([(x, y) for y in levels for x in (left, right - wide)], 0, [width - wide, height - high])
    others = np.array(taken, int).reshape(-1, 4)
    shared = np.minimum(corners[:, None] + size, others[:, 2:]) - np.maximum(corners[:, None], others[:, :2])
    overlaps = np.prod(np.maximum(shared, 0), axis=-1).sum(axis=1)
    x, y = corners[int(np.argmin(overlaps))].tolist()
    return (x, y, x + wide, y + high), float(overlaps.min()) / (wide * high)
