"""Writes a data set in COCO's JSON format, with masks where they are known."""

from __future__ import annotations

import os
from pathlib import Path

from maskx_tf import files
from maskx_tf.data import keypoints
from maskx_tf.data.dataset import Dataset, ImageRecord, Instance, Segmentation, area_of, bitmap
from maskx_tf.errors import BadInput
from maskx_tf.files import Json
from maskx_tf.masks import rle


def write(dataset: Dataset, path: Path, images: Path) -> None:
    """Writes the file.

    Ids are kept if all are whole numbers, which COCO's tools need; otherwise images and annotations are numbered
    from 1 on. A mask in a file becomes run lengths.

    Args:
        dataset: what to write.
        path: the JSON file.
        images: the folder to which file names are to be relative.
    """
    files.write_json(path, as_coco(dataset, images), indent=None)


def as_coco(dataset: Dataset, images: Path | None = None) -> Json:
    """The data set as COCO's mapping of lists; without the names of the files unless given the folder of the images."""
    keeps_images = all(isinstance(image.id, int) for image in dataset.images)
    ids = [one.id for image in dataset.images for one in image.instances]
    keeps_ids = len(set(ids)) == len(ids) and all(isinstance(one, int) and one > 0 for one in ids)
    records: list[Json] = []
    annotations: list[Json] = []
    for number, image in enumerate(dataset.images, 1):
        image_id = image.id if keeps_images else number
        name = {} if images is None else {"file_name": relative_name(image, images)}
        records.append({"id": image_id, **name, "width": image.width, "height": image.height})
        for one in image.instances:
            annotation_id = one.id if keeps_ids else len(annotations) + 1
            category = dataset.category_ids[one.label - 1]
            head = {"id": annotation_id, "image_id": image_id, "category_id": category}
            annotations.append(head | _annotation(one, image))
    pairs = zip(dataset.category_ids, dataset.class_names, strict=True)
    categories: list[Json] = [{"id": category, "name": name} for category, name in pairs]
    if dataset.keypoints is not None:
        for label in keypoints.classes_of(dataset):
            categories[label - 1] |= keypoints.as_category(dataset.keypoints)
    return {"images": records, "annotations": annotations, "categories": categories}


def _annotation(one: Instance, image: ImageRecord) -> Json:
    x1, y1, x2, y2 = one.box
    entry: Json = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": area_of(one.box), "iscrowd": int(one.crowd)}
    if one.segmentation is not None:
        entry |= _mask_entries(one, one.segmentation, image)
    if one.keypoints is not None:
        entry |= keypoints.as_annotation(one.keypoints)
    if one.clicks is not None:
        entry["points"] = keypoints.as_clicks(one.clicks)
    return entry if one.area is None else entry | {"area": one.area}


def _mask_entries(one: Instance, segmentation: Segmentation, image: ImageRecord) -> Json:
    written = _written(segmentation, image)
    mask = written if isinstance(written, dict) else rle.encode(bitmap(segmentation, image.height, image.width))
    entry: Json = {"segmentation": written, "area": rle.area(mask)}
    made = {"mask_source": one.mask_source, "mask_quality": one.mask_quality}
    return entry | {key: value for key, value in made.items() if value is not None}


def _written(segmentation: Segmentation, image: ImageRecord) -> list[list[float]] | Json:
    if isinstance(segmentation, dict):
        return segmentation
    if isinstance(segmentation, tuple):
        return [numbers.tolist() for numbers in segmentation]
    return rle.encode(bitmap(segmentation, image.height, image.width))


def relative_name(image: ImageRecord, images: Path) -> str:
    """The file of an image, relative to the folder of the images."""
    if isinstance(image.file, bytes):
        raise BadInput(f"image {image.id}: expected an image in a file, whose name can be written")
    return Path(os.path.relpath(image.file, images)).as_posix()
