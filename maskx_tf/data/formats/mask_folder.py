"""Reads masks that lie in a folder for each class.

    images/street.jpg                  images in any folders below `images`
    masks/car/street.png               a map: 0 is nothing, every other number is one car; 8 or 16 bits, or a palette
    masks/dog/street/left.png          or a folder of maps, for objects that overlap
    masks/dog/street/right.png

`annotations` is the folder masks. The name of a class is that of its folder; images in subfolders have their masks in
subfolders of the same names. An image without any mask has no instances.
"""

from __future__ import annotations

from pathlib import Path

from maskx_tf.data.dataset import Dataset, ImageRecord, Instance
from maskx_tf.data.formats.records import Unfit
from maskx_tf.data.images import IMAGE_SUFFIXES, id_map, size_of
from maskx_tf.data.paths import check_names, list_files
from maskx_tf.data.problems import Problem, Report, noted, refuse
from maskx_tf.data.threads import read_records
from maskx_tf.errors import BadInput
from maskx_tf.masks import rle

WHITE_ID = 255


def read(images: Path, annotations: Path, report: Report = refuse) -> Dataset:
    """Reads a data set.

    Args:
        images: the folder of the images.
        annotations: the folder with a folder of masks for each class.
        report: receives every problem.
    """

    def where(file: Path) -> str:
        return f"{annotations.name}/{file.relative_to(annotations).as_posix()}"

    stored = [path for path in list_files(images, "*", "images") if path.suffix in IMAGE_SUFFIXES]
    classes = sorted(path for path in annotations.glob("*") if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise BadInput(f"{annotations}: expected a folder of masks for each class, found none")
    maps_of = {folder: set(folder.rglob("*.png")) for folder in classes}
    check_names([*classes, *(path for maps in maps_of.values() for path in sorted(maps))])
    keys = {path.relative_to(images).with_suffix(""): path for path in stored}
    for path in stored:
        if keys[path.relative_to(images).with_suffix("")] != path:
            report(Problem("duplicate", path.name, "expected one image of this name, found another suffix"))
    used: set[Path] = set()
    found: list[tuple[Path, Path, list[tuple[int, Path]]]] = []
    for key, path in keys.items():
        maps = [(label, file) for label, folder in enumerate(classes, 1) for file in _maps(folder, key)]
        used |= {file for _, file in maps}
        found.append((key, path, maps))
    for folder in classes:
        for file in sorted(maps_of[folder] - used):
            report(Problem("unknown_image", where(file), "expected an image of this name, found none"))

    def read_one(item: tuple[Path, Path, list[tuple[int, Path]]], tell: Report) -> ImageRecord:
        key, path, maps = item
        record = ImageRecord(key.as_posix(), path, *size_of(path))
        instances: list[Instance] = []
        for label, file in maps:
            with noted(tell, where(file)):
                instances += _instances(file, label, record, len(instances) + 1)
        return record._replace(instances=tuple(instances))

    records = read_records(found, lambda item: item[1].name, read_one, report)
    names = tuple(folder.name for folder in classes)
    return Dataset(annotations.name, names, tuple(range(1, len(names) + 1)), records)


def _maps(folder: Path, key: Path) -> list[Path]:
    """The maps of one class that belong to one image."""
    single = folder / f"{key}.png"
    return [single] * single.is_file() + sorted((folder / key).glob("*.png"))


def _instances(path: Path, label: int, image: ImageRecord, first: int) -> list[Instance]:
    ids = id_map(path)
    if ids.shape != (image.height, image.width):
        found = f"{ids.shape[1]} x {ids.shape[0]}"
        raise Unfit(f"expected {image.width} x {image.height} pixels, as its image has, found {found}", "rle_size")
    regions = rle.regions(ids)
    if not regions:
        raise Unfit("expected an object, found no pixel but 0", "empty_mask")
    if WHITE_ID in {region.value for region in regions} and len(regions) > 1:
        # A drawing with soft edges would become hundreds of objects.
        raise Unfit(f"expected 0 and {WHITE_ID}, or numbers of objects below {WHITE_ID}, found both", "broken_mask")
    return [Instance(region.box, label, False, region.rle, first + place) for place, region in enumerate(regions)]
