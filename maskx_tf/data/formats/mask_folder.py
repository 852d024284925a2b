"""Reads masks that lie in a folder for each class.

    images/street.jpg                  images in any folders below `images`
    masks/car/street.png               a map: 0 is nothing, every other number is one car; 8 or 16 bits, or a palette
    masks/dog/street/left.png          or a folder of maps, for objects that overlap
    masks/dog/street/right.png

`annotations` is the folder masks. The name of a class is that of its folder; images in subfolders have their masks in
subfolders of the same names. An image without any mask has no instances. TIFF, BMP and WebP files are maps as well.
JPEG files are passed over as previews; one that is the only map of a class for an image is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from maskx_tf.data.dataset import Dataset, ImageRecord, Instance
from maskx_tf.data.formats.records import Unfit
from maskx_tf.data.images import IMAGE_SUFFIXES, IMAGE_TYPES, id_map, size_of
from maskx_tf.data.paths import check_names, list_files, visible_files
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

    stored = _images(list_files(images, "*", "images"))
    classes = sorted(path for path in annotations.glob("*") if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise BadInput(f"{annotations}: expected a folder of masks for each class, found none")
    files = {folder: _images(visible_files(folder, "*")) for folder in classes}
    check_names([*classes, *(path for listed in files.values() for path in listed)])
    maps_of = [_by_image(folder, listed) for folder, listed in files.items()]
    keys = {path.relative_to(images).with_suffix(""): path for path in stored}
    for path in stored:
        if keys[path.relative_to(images).with_suffix("")] != path:
            report(Problem("duplicate", path.name, "expected one image of this name, found another suffix"))
    for listed in files.values():
        alone: dict[Path, Path] = {}
        for file in filter(_is_exact, listed):
            if alone.setdefault(file.with_suffix(""), file) != file:
                report(Problem("duplicate", where(file), "expected one map of this name, found another suffix"))
    used: set[Path] = set()
    found: list[tuple[Path, Path, list[tuple[int, Path]]]] = []
    for key, path in keys.items():
        maps = [(label, file) for label, by_image in enumerate(maps_of, 1) for file in by_image.get(key, ())]
        used |= {file for _, file in maps}
        found.append((key, path, maps))
    for listed in files.values():
        may_be_previews = any(map(_is_exact, listed))
        for file in listed:
            if file not in used and (_is_exact(file) or not may_be_previews):
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


def _images(paths: Iterable[Path]) -> list[Path]:
    """Those of the files that are images by their names."""
    return [path for path in paths if path.suffix in IMAGE_SUFFIXES]


def _by_image(folder: Path, files: Sequence[Path]) -> dict[Path, list[Path]]:
    """The maps of a class by the name of an image: the map of this name, then those in the folder of this name.

    JPEG files are among them only where there is no other.
    """
    found: dict[Path, list[Path]] = {}
    for keys in ([file.with_suffix("") for file in files], [file.parent for file in files]):
        for key, file in zip(keys, files, strict=True):
            found.setdefault(key.relative_to(folder), []).append(file)
    return {key: [file for file in maps if _is_exact(file)] or maps for key, maps in found.items()}


def _is_exact(file: Path) -> bool:
    """Whether a file keeps the numbers of its pixels, by its name: JPEG does not."""
    return file.suffix.lower() not in IMAGE_TYPES["JPEG"]


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
