"""The parameters of a synthetic benchmark; without NumPy, because the command reads its defaults here."""

from __future__ import annotations

from typing import NamedTuple

LEAST_A = 16  # two classes of each material


class Recipe(NamedTuple):
    """The parameters; those without a unit are shares.

    Attributes:
        images: the number of images in all parts: a tenth is val, a fifth is test, the rest is train.
        size: side of an image in pixels.
        classes: how many of the 80 pairs of silhouette and material there are.
        a: how many classes keep their masks.
        companions: the share of groups that are pairs.
        offset: the distance of a pair's centres, as a share of the sum of their radii.
        seed: the seed of classes, split and scenes.
    """

    images: int = 2000
    size: int = 160
    classes: int = 40
    a: int = 28
    companions: float = 0.7
    offset: float = 0.35
    seed: int = 0


def usual_a(classes: int) -> int:
    """Returns the usual number of classes that keep their masks: seven of ten, as far as possible."""
    return max(LEAST_A, round(0.7 * classes))
