"""Joins data sets into one by the names of their classes, such as COCO's masks and Visual Genome's boxes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from maskx_tf import files
from maskx_tf.config.text import YamlError, parse_yaml
from maskx_tf.data.dataset import Dataset, ImageRecord
from maskx_tf.errors import BadInput, did_you_mean, shorten
from maskx_tf.structures import KeypointSet

Renaming = Mapping[str, str | None]  # the new name of a class; None drops it, and its instances


def read_names(path: Path) -> Renaming:
    """The mapping in a YAML file: old names to new ones, or to null."""
    try:
        data = parse_yaml(files.read_text(path))
    except YamlError as error:
        raise BadInput(f"{path}: expected YAML: {error}") from None
    if not isinstance(data, dict):
        raise BadInput(f"{path}: expected lines such as sofa: couch, or ghost: null, found {shorten(data)}")
    for old, new in data.items():
        if new is not None and not (isinstance(new, str) and new.strip()):
            raise BadInput(f"{path}: {old}: expected a name or null, found {shorten(new)}")
    return data


def join(datasets: Sequence[Dataset], names: Renaming | None = None) -> Dataset:
    """One data set of several.

    Classes of the same name, after renaming, become one; their order is that of their first appearance. A single data
    set keeps its ids; several get new ones, because theirs may be the same.

    Args:
        datasets: one at least.
        names: new names for classes, of whichever data set has them.

    Raises:
        BadInput: a data set is empty, none has a class that is to be renamed, or their keypoints differ.
    """
    for dataset in datasets:
        if not dataset.images or not dataset.class_names:
            found = f"{len(dataset.images)} images and {len(dataset.class_names)} classes"
            raise BadInput(f"{dataset.name}: expected images and classes, found {found}")
    names = names or {}
    known = dict.fromkeys(name for dataset in datasets for name in dataset.class_names)
    for old in names:
        if old not in known:
            what = f"expected a class of {_titles(datasets)}, found {old!r}{did_you_mean(old, known)}"
            raise BadInput(f"class names: {what}")
    kept = (names.get(name, name) for name in known)
    class_names = tuple(dict.fromkeys(name for name in kept if name is not None))
    if not class_names:
        raise BadInput(f"class names: expected some class of {_titles(datasets)} to be left, found none")
    labels = {name: label for label, name in enumerate(class_names, 1)}
    images: list[ImageRecord] = []
    for dataset in datasets:
        renamed = (names.get(name, name) for name in dataset.class_names)
        moved = {old: labels[name] for old, name in enumerate(renamed, 1) if name is not None}
        images += (_moved(image, moved) for image in dataset.images)
    if len(datasets) == 1:
        alone = datasets[0]
        return Dataset(
            alone.name, class_names, _category_ids(alone, class_names, names), tuple(images), alone.keypoints
        )
    numbered = tuple(image._replace(id=number) for number, image in enumerate(images, 1))
    return Dataset(_titles(datasets), class_names, tuple(labels.values()), numbered, _keypoints(datasets))


def ordered(dataset: Dataset, class_names: Sequence[str]) -> Dataset:
    """The data set with these classes in this order; its other classes, and their instances, are left out.

    A class that the data set does not have gets an unused id.
    """
    known = dict(zip(dataset.class_names, dataset.category_ids, strict=True))
    unused = itertools.count(max(dataset.category_ids, default=0) + 1)
    ids = tuple(known[name] if name in known else next(unused) for name in class_names)
    labels = {name: label for label, name in enumerate(class_names, 1)}
    moved = {old: labels[name] for old, name in enumerate(dataset.class_names, 1) if name in labels}
    images = tuple(_moved(image, moved) for image in dataset.images)
    return dataset._replace(class_names=tuple(class_names), category_ids=ids, images=images)


def _moved(image: ImageRecord, labels: Mapping[int, int]) -> ImageRecord:
    instances = (one._replace(label=labels[one.label]) for one in image.instances if one.label in labels)
    return image._replace(instances=tuple(instances))


def _category_ids(dataset: Dataset, class_names: Sequence[str], names: Renaming) -> tuple[int, ...]:
    """The id of the first category that became each class."""
    ids: dict[str | None, int] = {}
    for name, category in zip(dataset.class_names, dataset.category_ids, strict=True):
        ids.setdefault(names.get(name, name), category)
    return tuple(ids[name] for name in class_names)


def _keypoints(datasets: Sequence[Dataset]) -> KeypointSet | None:
    """The keypoints of all data sets that have any."""
    different = dict.fromkeys(dataset.keypoints for dataset in datasets if dataset.keypoints is not None)
    if len(different) > 1:
        raise BadInput(f"{_titles(datasets)}: expected the same keypoints in all of them")
    return next(iter(different), None)


def _titles(datasets: Sequence[Dataset]) -> str:
    return " + ".join(dataset.name for dataset in datasets)
