"""Content of a synthetic benchmark: its classes, which of them keep their masks, and the sizes of its parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from maskx_tf.errors import BadInput
from maskx_tf.synthetic.materials import MATERIALS, Material
from maskx_tf.synthetic.parameters import Recipe
from maskx_tf.synthetic.silhouettes import SILHOUETTES

PARTS = ("train", "val", "test")
# The first number of each seed, so that no two kinds of draws share a stream.
CLASSES, SPLIT, SCENES = 1, 2, 3
LEAST_OF_MATERIAL = 2  # classes of A: a transfer function can only tell a material from a silhouette by comparing
MOST_TRIES = 200_000


class SyntheticClass(NamedTuple):
    """A silhouette of a material."""

    silhouette: str
    material: Material

    @property
    def name(self) -> str:
        """Such as "striped amber ring"."""
        return f"{self.material.texture} {self.material.hue} {self.silhouette}"


def check(recipe: Recipe) -> None:
    """Raises BadInput where a parameter cannot be."""
    pairs = len(SILHOUETTES) * len(MATERIALS)
    bounds: dict[str, tuple[float, float]] = {
        "images": (10, 1_000_000),
        "size": (64, 1024),
        "classes": (20, pairs),
        "a": (LEAST_OF_MATERIAL * len(MATERIALS), recipe.classes - 1),
        "companions": (0, 1),
        "offset": (0.1, 2),
        "seed": (0, 2**32 - 1),
    }
    for key, (low, high) in bounds.items():
        value = getattr(recipe, key)
        if not low <= value <= high:
            raise BadInput(f"--{key} {value}: expected {low:g} to {high:.10g}")


def sizes(recipe: Recipe) -> dict[str, int]:
    """How many images each part has."""
    val, test = recipe.images // 10, recipe.images // 5
    return dict(zip(PARTS, (recipe.images - val - test, val, test), strict=True))


def classes(recipe: Recipe) -> tuple[SyntheticClass, ...]:
    """Pairs such that every silhouette, and every material, occurs as often as any other, or once more.

    Silhouette by silhouette takes the materials that lack most (Gale and Ryser: then it comes out even); chance decides
    between equals.
    """
    generator = np.random.default_rng([recipe.seed, CLASSES])
    per_silhouette = _shares(recipe.classes, len(SILHOUETTES), generator)
    missing = _shares(recipe.classes, len(MATERIALS), generator)
    found = []
    for index in generator.permutation(len(SILHOUETTES)).tolist():
        ranks = generator.permutation(len(MATERIALS)).tolist()
        wanted = sorted(range(len(MATERIALS)), key=lambda material: (-missing[material], ranks[material]))
        for material in wanted[: per_silhouette[index]]:
            missing[material] -= 1
            found.append((index, material))
    names = list(SILHOUETTES)
    return tuple(SyntheticClass(names[index], MATERIALS[material]) for index, material in sorted(found))


def a_classes(recipe: Recipe) -> frozenset[str]:
    """The names of the classes that keep their masks.

    Drawn again until every material has two classes in A, and every silhouette one: what B shows, A has shown in part.
    """
    every = classes(recipe)
    generator = np.random.default_rng([recipe.seed, SPLIT])
    for _ in range(MOST_TRIES):
        chosen = [every[index] for index in generator.permutation(len(every))[: recipe.a].tolist()]
        if follows_rule(chosen):
            return frozenset(one.name for one in chosen)
    raise BadInput(f"--a {recipe.a}: expected more, for no split was found that covers materials and silhouettes")


def follows_rule(chosen: Sequence[SyntheticClass]) -> bool:
    """Whether these classes can be A."""
    materials = Counter(one.material for one in chosen)
    silhouettes = {one.silhouette for one in chosen}
    return len(silhouettes) == len(SILHOUETTES) and all(materials[one] >= LEAST_OF_MATERIAL for one in MATERIALS)


def _shares(total: int, parts: int, generator: np.random.Generator) -> list[int]:
    """The total in parts that differ by one at most; chance decides which are larger."""
    shares = [total // parts + (index < total % parts) for index in range(parts)]
    return [shares[index] for index in generator.permutation(parts).tolist()]
