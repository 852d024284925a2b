"""One scene: a background with clutter, and on it groups of one or two objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskx_tf.files import Json
from maskx_tf.synthetic.background import background
from maskx_tf.synthetic.keypoints import as_annotation
from maskx_tf.synthetic.materials import HUE_SPREAD, Material, rgb
from maskx_tf.synthetic.painter import QUARTERS, Coat, Patch, Pose, paint, patch, shrink, turn, visible_masks
from maskx_tf.synthetic.parameters import Recipe
from maskx_tf.synthetic.recipe import PARTS, SCENES, SyntheticClass
from maskx_tf.synthetic.silhouettes import SILHOUETTES, UNIT, area

# Lengths are in thousandths of the image's side, shares in percent.
RADII = (95, 190)
MARGIN = 150  # least distance from the border to the centre of a group
APART = 400  # least distance between the centres of groups
PERIODS = (28, 50)  # periods of a texture
LEAST_VISIBLE = 30  # least visible share of an object that others hide
LEAST_INSIDE = 60  # least share of an object inside the image
TRIES = 40


class SceneObject(NamedTuple):
    """An object: its class, from 0 on, the mask of its visible part, bool [H, W], and its keypoints in COCO's form."""

    label: int
    mask: NDArray[np.bool_]
    keypoints: Json


class Scene(NamedTuple):
    """An image, uint8 [H, W, 3], and what it shows."""

    pixels: NDArray[np.uint8]
    objects: list[SceneObject]


class _Placed(NamedTuple):
    """An object on the stage: its class, where it stands, and how many points it would have alone."""

    label: int
    pose: Pose
    points: int


class _Stage(NamedTuple):
    """The canvas, the object that each of its points shows (from 1 on), and the objects, the foremost last."""

    canvas: NDArray[np.int32]
    owners: NDArray[np.int32]
    placed: list[_Placed]


def scene(recipe: Recipe, classes: Sequence[SyntheticClass], part: str, index: int) -> Scene:
    """Returns the scene of a number in a part; it does not depend on what else is generated."""
    generator = np.random.default_rng([recipe.seed, SCENES, PARTS.index(part), index])
    canvas = background(generator, recipe.size)
    stage = _Stage(canvas, np.zeros(canvas.shape[:2], np.int32), [])
    for centre in _centres(generator, int(generator.integers(2, 4)), recipe.size):
        partner = _add(stage, generator, recipe, classes, centre, None)
        if partner and generator.integers(1_000_000) < round(1_000_000 * recipe.companions):
            _add(stage, generator, recipe, classes, centre, partner)
    masks = visible_masks(stage.owners, len(stage.placed))
    objects = [
        SceneObject(one.label, mask, as_annotation(classes[one.label].silhouette, one.pose, stage.owners, number))
        for number, (one, mask) in enumerate(zip(stage.placed, masks, strict=True), 1)
        if mask.any()
    ]
    return Scene(_with_noise(generator, shrink(stage.canvas)), objects)


def _centres(generator: np.random.Generator, count: int, size: int) -> list[tuple[int, int]]:
    """Centres of groups, in quarters of a pixel: random ones that are far enough apart, or nearly so."""
    low, high = (QUARTERS * size * thousandths // 1000 for thousandths in (MARGIN, 1000 - MARGIN))
    wanted = (QUARTERS * size * APART // 1000) ** 2
    best: tuple[int, NDArray[np.int64]] | None = None
    for _ in range(TRIES):
        points = generator.integers(low, high, [count, 2])
        nearest = min(int(((points[i] - points[j]) ** 2).sum()) for i in range(count) for j in range(i))
        if best is None or nearest > best[0]:
            best = (nearest, points)
        if nearest >= wanted:
            break
    assert best is not None
    return [(int(x), int(y)) for x, y in best[1]]


def _add(
    stage: _Stage,
    generator: np.random.Generator,
    recipe: Recipe,
    classes: Sequence[SyntheticClass],
    centre: tuple[int, int],
    partner: _Placed | None,
) -> _Placed | None:
    """Puts an object before all others, at the centre or close to its partner, such that all can still be seen.

    A companion has another material than its partner; else their common border could not be seen.
    """
    for _ in range(TRIES):
        label = int(generator.integers(len(classes)))
        pose = _pose(generator, recipe, centre, partner.pose if partner else None)
        if partner and classes[label].material == classes[partner.label].material:
            continue
        silhouette = classes[label].silhouette
        spot = patch(pose, SILHOUETTES[silhouette], recipe.size)
        placed = _Placed(label, pose, area(silhouette) * (pose.radius // 2) ** 2 // UNIT**2)
        if _fits(stage, spot, placed):
            stage.placed.append(placed)
            stage.owners[spot.rows, spot.columns][spot.inside] = len(stage.placed)
            paint(stage.canvas, spot, _coat(generator, classes[label].material, pose, recipe.size))
            return placed
    return None


def _pose(generator: np.random.Generator, recipe: Recipe, centre: tuple[int, int], partner: Pose | None) -> Pose:
    low, high = (QUARTERS * recipe.size * thousandths // 1000 for thousandths in RADII)
    radius, mirrored, percent = (int(number) for number in generator.integers([low, 0, 80], [high, 2, 121]))
    x, y = centre
    cosine, sine, norm = turn(generator)
    if partner:
        distance = round(1000 * recipe.offset) * (radius + partner.radius) * percent // 100_000
        x, y = partner.x + distance * cosine // norm, partner.y + distance * sine // norm
    return Pose(x, y, radius, *turn(generator), bool(mirrored))


def _fits(stage: _Stage, spot: Patch, new: _Placed) -> bool:
    """Whether enough can be seen of the new object and of those behind it."""
    if 100 * int(spot.inside.sum()) < LEAST_INSIDE * new.points:
        return False
    seen = np.bincount(stage.owners.reshape(-1), minlength=len(stage.placed) + 1)
    seen -= np.bincount(stage.owners[spot.rows, spot.columns][spot.inside], minlength=len(stage.placed) + 1)
    return all(100 * left >= LEAST_VISIBLE * one.points for left, one in zip(seen[1:], stage.placed, strict=True))


def _coat(generator: np.random.Generator, material: Material, pose: Pose, size: int) -> Coat:
    low, high = (QUARTERS * size * thousandths // 1000 for thousandths in PERIODS)
    hue, saturation, value, dark = (
        int(number) for number in generator.integers([-HUE_SPREAD, 160, 160, 95], [HUE_SPREAD + 1, 241, 251, 131])
    )
    hue += material.angle
    period = int(generator.integers(low, high)) * UNIT // pose.radius
    phase, shade = generator.integers(0, period, 2), generator.integers(-60, 61, 2)
    tones = (rgb(hue, saturation, value), rgb(hue, saturation, value * dark // 256))
    return Coat(material.texture, tones, period, (int(phase[0]), int(phase[1])), (int(shade[0]), int(shade[1])))


def _with_noise(generator: np.random.Generator, pixels: NDArray[np.int32]) -> NDArray[np.uint8]:
    strength = int(generator.integers(2, 10))
    for _ in range(2):  # the sum of two draws is nearer to a sensor's noise than one
        pixels = pixels + generator.integers(-strength, strength + 1, pixels.shape, dtype=np.int32)
    return np.clip(pixels, 0, 255).astype(np.uint8)
