"""Which classes keep their masks: the policies that divide a vocabulary into A, with masks, and B, with boxes alone.

Masks of classes of B are dropped here, right after reading, so no later step can use them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskx_tf.config.text import YamlError, parse_yaml
from maskx_tf.data.dataset import Dataset, ImageRecord
from maskx_tf.errors import BadInput, did_you_mean, shorten
from maskx_tf.names import COCO, VOC, VOC_IN_COCO

PUBLISHED = re.compile(r"E([1-5])_A(20|30|40|50|60)")
PUBLISHED_SEED, DRAWS, SIZES = 3, 5, (20, 30, 40, 50, 60)


@dataclass(frozen=True)
class Random:
    """A draw of `a` classes; under `complement` A is the classes that this draw leaves out."""

    a: int
    seed: int
    complement: bool = False


Policy = str | tuple[str, ...] | Random
POLICY_FORMS = "all, none, oracle, voc, nonvoc, E1_A20 to E5_A60, a list of classes, or {random: {a: 20, seed: 3}}"


def parse(value: Any) -> Policy:
    """A policy from what a configuration or the command line holds: a name, a list of classes, or a mapping."""
    if isinstance(value, str):
        if value in ("all", "none", "oracle", "voc", "nonvoc") or PUBLISHED.fullmatch(value):
            return value
    elif isinstance(value, list | tuple):
        if value and all(isinstance(name, str) for name in value):
            return tuple(value)
    elif isinstance(value, Mapping) and set(value) == {"random"} and isinstance(value["random"], Mapping):
        draw = {"seed": 0, "complement": False, **value["random"]}
        numbers = [draw.get("a"), draw["seed"]]
        is_known = set(draw) == {"a", "seed", "complement"} and type(draw["complement"]) is bool
        if is_known and all(type(number) is int and 0 <= number < 2**32 for number in numbers):
            return Random(**draw)
    raise BadInput(f"masks: expected {POLICY_FORMS}, found {shorten(value)}")


def parse_text(text: str) -> Policy:
    """A policy as it is written on the command line."""
    try:
        return parse(parse_yaml(text))
    except YamlError as error:
        raise BadInput(f"masks: expected {POLICY_FORMS}, found {text!r}: {error}") from None


def a_classes(policy: Policy, class_names: Sequence[str]) -> frozenset[str]:
    """The classes that keep their masks.

    Raises:
        BadInput: the policy does not fit this vocabulary.
    """
    if policy in ("all", "oracle"):
        return frozenset(class_names)
    if policy == "none":
        return frozenset()
    if policy in ("voc", "nonvoc"):
        inside = frozenset(name for name in class_names if name in VOC_IN_COCO or name in VOC)
        if not inside:
            raise BadInput(f"masks: expected classes of Pascal VOC for {policy}, found none among {len(class_names)}")
        return inside if policy == "voc" else frozenset(class_names) - inside
    if isinstance(policy, Random):
        if not 1 <= policy.a <= len(class_names):
            raise BadInput(
                f"masks: random.a: expected 1 to {len(class_names)}, the number of classes, found {policy.a}"
            )
        drawn = np.random.RandomState(policy.seed).choice(len(class_names), policy.a, replace=False)
        chosen = frozenset(class_names[index] for index in drawn)
        return frozenset(class_names) - chosen if policy.complement else chosen
    if isinstance(policy, tuple):
        for name in policy:
            if name not in class_names:
                raise BadInput(f"masks: expected names of classes, found {name!r}{did_you_mean(name, class_names)}")
        return frozenset(policy)
    # The draws are of places in COCO's list; with another order they would be other classes.
    if tuple(class_names) != COCO:
        raise BadInput(f"masks: {policy}: expected COCO's 80 classes in COCO's order, found {len(class_names)} classes")
    return frozenset(COCO[index] for index in published()[policy])


def published() -> dict[str, list[int]]:
    """The 25 random splits of the Mask^X paper: for E1_A20 to E5_A60, the places of A in COCO's list, in draw order."""
    generator = np.random.RandomState(PUBLISHED_SEED)  # the same stream as np.random.seed
    return {
        f"E{draw}_A{size}": generator.choice(len(COCO), size, replace=False).tolist()
        for draw in range(1, DRAWS + 1)
        for size in SIZES
    }


def apply(dataset: Dataset, policy: Policy) -> Dataset:
    """The data set without the masks that training may not see."""
    names = a_classes(policy, dataset.class_names)
    kept = {label for label, name in enumerate(dataset.class_names, 1) if name in names}

    def strip(image: ImageRecord) -> ImageRecord:
        instances = (one if one.label in kept else one.with_mask(None) for one in image.instances)
        return image._replace(instances=tuple(instances))

    return dataset._replace(images=tuple(strip(image) for image in dataset.images))
