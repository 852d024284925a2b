"""Reads COCO's JSON format: instances with polygons, run-length masks, or no mask at all.

An object is known by its box alone if `segmentation` is missing, null, an empty list or an empty mapping, or if its
polygons or run lengths have no pixel. A rectangle that equals the box is read as a mask; `maskx data check` reports it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from maskx_tf import files
from maskx_tf.data import keypoints
from maskx_tf.data.dataset import Dataset, Id, ImageRecord, Instance, Segmentation
from maskx_tf.data.formats import records as fields
from maskx_tf.data.formats import segmentations
from maskx_tf.data.formats.records import MAX_ID, MAX_IMAGE_SIDE, Unfit
from maskx_tf.data.images import size_of
from maskx_tf.data.problems import Report, noted, refuse
from maskx_tf.errors import BadInput, shorten
from maskx_tf.files import JsonView
from maskx_tf.structures import KeypointSet


def read(images: Path, annotations: Path, report: Report = refuse) -> Dataset:
    """Reads a data set.

    Args:
        images: the folder to which the file names in the JSON are relative.
        annotations: the JSON file.
        report: receives every problem.
    """
    data, name = read_lists(annotations), annotations.name
    names, named = _categories(data, name, report)
    records: dict[Id, ImageRecord] = {}
    for where, entry in _records(data, "images", name):
        with noted(report, where):
            record = _image(entry, images)
            if record.id in records:
                raise Unfit(f"id: expected a unique id, found {record.id!r} again", "duplicate")
            records[record.id] = record
    labels = {category: label for label, category in enumerate(names, 1)}
    instances = _instances(data, name, records, labels, named, report)
    whole = tuple(image._replace(instances=tuple(instances[image.id])) for image in records.values())
    return Dataset(name, tuple(names.values()), tuple(names), whole, next(iter(named.values()), None))


def attach_masks(dataset: Dataset, path: Path, report: Report = refuse) -> Dataset:
    """The data set with the masks that a second file has for its annotations.

    That file is in COCO's format, too; of its annotations, id, image_id, segmentation, mask_source and mask_quality are
    read. An annotation without a mask changes nothing.
    """
    images = {image.id: image for image in dataset.images}
    known = {(image.id, one.id): one for image in dataset.images for one in image.instances}
    masks: dict[tuple[Id, Id], Instance] = {}
    seen: set[tuple[Id, Id]] = set()
    for where, entry in _records(read_lists(path), "annotations", path.name):
        with noted(report, where):
            key = (fields.identity(entry, "image_id"), fields.identity(entry, "id"))
            if key not in known:
                raise Unfit(f"expected an annotation of {dataset.name}, found id {key[1]!r} of image {key[0]!r}")
            if key in seen:
                raise Unfit(f"id: expected a unique id, found {key[1]!r} again", "duplicate")
            seen.add(key)
            mask = segmentations.read(entry.get("segmentation"), images[key[0]], where, report)
            if mask is not None:
                masks[key] = _with_mask(known[key], mask, entry)

    def complete(image: ImageRecord) -> ImageRecord:
        return image._replace(instances=tuple(masks.get((image.id, one.id), one) for one in image.instances))

    return dataset._replace(images=tuple(complete(image) for image in dataset.images))


def read_class_names(annotations: Path) -> tuple[str, ...]:
    """The classes of a file, in its order."""
    return tuple(_categories(read_lists(annotations), annotations.name, refuse)[0].values())


def read_lists(path: Path) -> JsonView:
    """The JSON of a COCO file, with its three lists in place."""
    data = files.read_json(path)
    expected = "a COCO file with the lists images, annotations and categories"
    if not isinstance(data, Mapping):
        raise BadInput(f"{path}: expected {expected}, found {shorten(data)}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(data.get(key), list):
            raise BadInput(f"{path}: expected {expected}, found {key}: {shorten(data.get(key))}")
    return data


def _records(data: JsonView, key: str, name: str) -> Iterator[tuple[str, JsonView]]:
    """The records of a list, each with its place in the file; one that is no mapping has no fields."""
    for index, entry in enumerate(data[key]):
        known = entry.get("id") if isinstance(entry, Mapping) else None
        identity = f" (id {known})" if isinstance(known, int) else ""
        yield f"{name}: {key}[{index}]{identity}", entry if isinstance(entry, Mapping) else {}


def _categories(data: JsonView, name: str, report: Report) -> tuple[dict[int, str], dict[int, KeypointSet]]:
    """The name of each category, and the keypoints of those that have any, by its id."""
    names: dict[int, str] = {}
    named: dict[int, KeypointSet] = {}
    for where, entry in _records(data, "categories", name):
        with noted(report, where):
            category, class_name = fields.whole(entry, "id", -MAX_ID, MAX_ID), fields.text(entry, "name")
            if category in names or class_name in names.values():
                raise Unfit(f"expected a unique id and name, found {category} {class_name!r} again", "duplicate")
            names[category] = class_name
            own = keypoints.read_set(entry)
            if own is not None:
                first = next(iter(named.values()), own)
                if own.names != first.names:
                    raise fields.unfit(
                        "keypoints", f"those of other categories, {shorten(list(first.names))}", own.names
                    )
                named[category] = first
    return names, named


def _image(entry: JsonView, folder: Path) -> ImageRecord:
    identity = fields.identity(entry, "id")
    if "file_name" not in entry and "coco_url" in entry:  # LVIS: the address ends with train2017/000000000009.jpg
        file = folder.joinpath(*fields.text(entry, "coco_url").split("/")[-2:])
    else:
        file = folder / fields.text(entry, "file_name")
    if entry.get("width") is None and entry.get("height") is None:
        width, height = size_of(file)
    else:
        width, height = (fields.whole(entry, side, 1, MAX_IMAGE_SIDE) for side in ("width", "height"))
    return ImageRecord(identity, file, width, height)


def _instances(
    data: JsonView,
    name: str,
    images: Mapping[Id, ImageRecord],
    labels: Mapping[int, int],
    named: Mapping[int, KeypointSet],
    report: Report,
) -> dict[Id, list[Instance]]:
    """The instances of each image."""
    found: dict[Id, list[Instance]] = {image: [] for image in images}
    seen: set[Id] = set()
    for where, entry in _records(data, "annotations", name):
        with noted(report, where):
            image_id, category = fields.identity(entry, "image_id"), fields.identity(entry, "category_id")
            if image_id not in images:
                raise Unfit(f"image_id: expected the id of an image, found {image_id!r}", "unknown_image")
            if category not in labels:
                raise Unfit(f"category_id: expected the id of a category, found {category!r}", "unknown_category")
            instance = _instance(entry, images[image_id], labels[int(category)], where, report)
            points = keypoints.read_points(entry, named.get(int(category)), where, report)
            if points is not None:
                area = None if entry.get("area") is None else fields.number(entry, "area", 0, MAX_IMAGE_SIDE**2)
                instance = instance._replace(keypoints=points, area=area)
            instance = instance._replace(clicks=keypoints.read_clicks(entry))
            if instance.id in seen:
                raise Unfit(f"id: expected a unique id, found {instance.id!r} again", "duplicate")
            seen.add(instance.id)
            found[image_id].append(instance)
    return found


def _instance(entry: JsonView, image: ImageRecord, label: int, where: str, report: Report) -> Instance:
    numbers = entry.get("bbox")
    if not isinstance(numbers, list) or len(numbers) != 4:
        raise fields.unfit("bbox", "[x, y, width, height]", numbers)
    named = dict(zip(("bbox.x", "bbox.y", "bbox.width", "bbox.height"), numbers, strict=True))
    x, y = fields.number(named, "bbox.x"), fields.number(named, "bbox.y")
    width, height = fields.number(named, "bbox.width", 0), fields.number(named, "bbox.height", 0)
    crowd = entry.get("iscrowd", 0)
    if crowd not in (0, 1, None):
        raise fields.unfit("iscrowd", "0 or 1", crowd)
    segmentation = segmentations.read(entry.get("segmentation"), image, where, report)
    instance = Instance((x, y, x + width, y + height), label, bool(crowd), id=fields.identity(entry, "id"))
    return instance if segmentation is None else _with_mask(instance, segmentation, entry)


def _with_mask(one: Instance, mask: Segmentation, entry: JsonView) -> Instance:
    """The instance with a mask, and with what its annotation says of a program that made the mask."""
    one = one.with_mask(mask)
    if entry.get("mask_source") is None:
        return one
    quality = None if entry.get("mask_quality") is None else fields.number(entry, "mask_quality", 0, 1)
    return one._replace(mask_source=fields.text(entry, "mask_source"), mask_quality=quality)
