"""Counts what a data set holds: instances by class, with masks or without, and how large they are."""

from __future__ import annotations

import statistics
from collections import defaultdict

import numpy as np

from maskx_tf.data import splits
from maskx_tf.data.dataset import Dataset, Instance, area_of
from maskx_tf.files import Json, JsonView

SMALL_AREA, LARGE_AREA = 32**2, 96**2  # square pixels: COCO's bounds


def a_set(dataset: Dataset, policy: splits.Policy) -> frozenset[str]:
    """The classes of A: those of the policy that do have a mask to learn from."""
    seen = {one.label for image in dataset.images for one in image.instances if one.has_mask and not one.crowd}
    allowed = splits.a_classes(policy, dataset.class_names)
    return frozenset(name for label, name in enumerate(dataset.class_names, 1) if label in seen and name in allowed)


def count(dataset: Dataset, policy: splits.Policy = "all") -> Json:
    """The figures, as plain data; masks are those that training may see."""
    seen = splits.apply(dataset, policy)
    a_names = a_set(seen, "all")
    groups: dict[int, list[Instance]] = defaultdict(list)
    for image in seen.images:
        for one in image.instances:
            groups[one.label].append(one)
    per_image = [len(image.instances) for image in seen.images]
    return {
        "name": dataset.name,
        "images": len(per_image),
        "empty_images": per_image.count(0),
        "most_instances_of_an_image": max(per_image, default=0),
        **_figures([one for group in groups.values() for one in group]),
        "a_classes": len(a_names),
        "b_classes": len(seen.class_names) - len(a_names),
        "classes": [
            {"name": name, "set": "A" if name in a_names else "B", **_figures(groups[label])}
            for label, name in enumerate(seen.class_names, 1)
        ],
        "keypoints": _keypoints(seen),
    }


def _keypoints(dataset: Dataset) -> list[Json]:
    """How often each keypoint is visible, and hidden."""
    if dataset.keypoints is None:
        return []
    names = dataset.keypoints.names
    known = [one.keypoints for image in dataset.images for one in image.instances if one.keypoints is not None]
    labels = np.array([points[:, 2] for points in known], np.int32).reshape(-1, len(names))
    hidden, visible = ((labels == label).sum(axis=0).tolist() for label in (1, 2))
    return [
        {"name": name, "visible": seen, "hidden": covered}
        for name, seen, covered in zip(names, visible, hidden, strict=True)
    ]


def _figures(instances: list[Instance]) -> Json:
    areas = [area_of(one.box) for one in instances]
    return {
        "instances": len(instances),
        "with_masks": sum(one.has_mask for one in instances),
        "with_keypoints": sum(one.keypoint_count > 0 for one in instances),
        "crowds": sum(one.crowd for one in instances),
        "small": sum(area < SMALL_AREA for area in areas),
        "medium": sum(SMALL_AREA <= area < LARGE_AREA for area in areas),
        "large": sum(area >= LARGE_AREA for area in areas),
        "median_side": round(statistics.median(areas) ** 0.5, 1) if areas else None,
    }


def as_table(figures: JsonView) -> str:
    """The figures as lines of text, the most frequent class first."""
    points = figures["keypoints"]
    keypoint_column = ["with_keypoints"] if points else []
    columns = ["instances", "with_masks", *keypoint_column, "crowds", "small", "medium", "large", "median_side"]
    head = ["class", "set", *(column.replace("_", " ") for column in columns)]
    ranked = sorted(figures["classes"], key=lambda one: (-one["instances"], one["name"]))
    total = {**figures, "name": "all", "set": ""}
    rows = [
        [one["name"], one["set"], *("-" if one[column] is None else str(one[column]) for column in columns)]
        for one in [*ranked, total]
    ]
    lines = [
        f"{figures['name']}: {figures['images']} images, {figures['empty_images']} of them empty, at most "
        f"{figures['most_instances_of_an_image']} instances an image; A {figures['a_classes']} classes, B "
        f"{figures['b_classes']}; median side in pixels",
        "",
        *_aligned([head, *rows], left=2),
    ]
    if points:
        counted = [[one["name"], str(one["visible"]), str(one["hidden"])] for one in points]
        lines += ["", *_aligned([["keypoint", "visible", "hidden"], *counted], left=1)]
    return "\n".join(lines)


def _aligned(rows: list[list[str]], left: int) -> list[str]:
    """Rows as lines, of which so many columns are to the left and the others to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:left], widths[:left], strict=True)]
        cells += [cell.rjust(width) for cell, width in zip(row[left:], widths[left:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines
