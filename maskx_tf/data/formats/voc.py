"""Reads Pascal VOC: an XML file an image, and masks for the images that SegmentationObject has.

    VOC2012/Annotations/2007_000032.xml        boxes
    VOC2012/JPEGImages/2007_000032.jpg
    VOC2012/SegmentationObject/2007_000032.png  pixel n belongs to the n-th object; 255 is the seam between objects
    VOC2012/SegmentationClass/2007_000032.png   pixel n belongs to the n-th class of VOC's twenty
    VOC2012/ImageSets/Main/train.txt            a part of the images

`annotations` is the folder of XML files, or a list in ImageSets. VOC counts pixels from 1 and includes the last, so
that our x1 is xmin - 1 and our x2 is xmax.

SBD (Hariharan et al. 2011) has masks for 11,355 of VOC's images, in a MATLAB file each:

    dataset/img/2008_000002.jpg
    dataset/inst/2008_000002.mat    GTinst.Segmentation, pixel n belongs to the n-th object; GTinst.Categories, 1 to 20
    dataset/train.txt               a part of the images
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from maskx_tf import files
from maskx_tf.data.dataset import Box, Dataset, Id, ImageRecord, Instance
from maskx_tf.data.formats import records as fields
from maskx_tf.data.formats import segmentations
from maskx_tf.data.formats.records import Unfit
from maskx_tf.data.images import find_image, id_map, size_of
from maskx_tf.data.paths import first_file, list_files
from maskx_tf.data.problems import Problem, Report, each_noted, noted, refuse
from maskx_tf.data.threads import in_threads, read_records
from maskx_tf.errors import BadInput, reason
from maskx_tf.masks import rle
from maskx_tf.masks.rle import Rle
from maskx_tf.names import VOC

SEAM = 255
LEAST_OVERLAP = 0.5  # least IoU of a mask's enclosing box with the box of its object


# Larger than any MATLAB file with the masks of an image.
MOST_BYTES_OF_MAT = 2**26


class _VocObject(NamedTuple):
    name: str
    box: Box


class _File(NamedTuple):
    """The contents of one XML file; its image has no instances yet."""

    image: ImageRecord
    objects: list[_VocObject]


def read(images: Path, annotations: Path, report: Report = refuse) -> Dataset:
    """Reads a data set.

    Args:
        images: the folder JPEGImages.
        annotations: the folder Annotations, or a list of names in ImageSets.
        report: receives every problem.
    """
    paths = _listed_parts(annotations) if annotations.is_file() else list_files(annotations, "*.xml", "XML files")
    root = paths[0].parent.parent
    by_id: dict[Id, _File] = {}
    for path in paths:
        with noted(report, path.name):
            if path.stem in by_id:
                raise Unfit("expected one XML file of an image, found another", "duplicate")
            by_id[path.stem] = _read_xml(path, images, report)
    found = list(by_id.values())
    names = {one.name for file in found for one in file.objects}
    class_names = VOC if names <= set(VOC) else tuple(sorted(names))
    labels = {name: label for label, name in enumerate(class_names, 1)}

    def complete(file: _File, tell: Report) -> ImageRecord:
        masks: Mapping[int, Rle] = {}
        with noted(tell, f"{file.image.id}.png"):
            masks = _masks(file, root, class_names, tell)
        instances = (
            Instance(one.box, labels[one.name], segmentation=masks.get(number), id=number + 1)
            for number, one in enumerate(file.objects)
        )
        return file.image._replace(instances=tuple(instances))

    complete_images = tuple(in_threads(complete, found, report))
    return Dataset(annotations.name, class_names, tuple(range(1, len(class_names) + 1)), complete_images)


def _listed_parts(path: Path) -> list[Path]:
    """The XML files that a list in ImageSets/Main names; its lines may end in a flag."""
    folder = next((parent / "Annotations" for parent in path.parents if (parent / "Annotations").is_dir()), None)
    if folder is None:
        raise BadInput(f"{path}: expected a list in ImageSets, next to a folder Annotations")
    return [folder / f"{stem}.xml" for stem in _stems(path)]


def _stems(path: Path) -> list[str]:
    """The names of images in a list."""
    stems = [line.split()[0] for line in files.read_text(path).splitlines() if line.split()]
    if not stems:
        raise BadInput(f"{path}: expected one name a line, found none")
    return stems


def _read_xml(path: Path, images: Path, report: Report) -> _File:
    try:
        with files.open_regular(path) as stream:
            root = ElementTree.parse(stream).getroot()
    except FileNotFoundError:
        raise Unfit("expected an XML file, found none") from None
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise Unfit(f"expected XML: {error}") from None
    file = images / fields.as_text(root.findtext("filename") or f"{path.stem}.jpg", "filename")
    # Some programs write another suffix, or a whole path on a machine of their own.
    file = first_file([file]) or find_image(images, path.stem) or file
    size = root.find("size")
    if size is None or fields.as_number(size.findtext("width"), "size.width") == 0:
        width, height = size_of(file)
    else:
        width, height = (
            round(fields.as_number(size.findtext(side), f"size.{side}", 1)) for side in ("width", "height")
        )
    elements = ((f"{path.name}: object {number}", element) for number, element in enumerate(root.iter("object"), 1))
    objects = each_noted(elements, lambda element, _: _object(element), report)
    return _File(ImageRecord(path.stem, file, width, height), objects)


def _object(element: ElementTree.Element) -> _VocObject:
    box = element.find("bndbox")
    if box is None:
        raise fields.unfit("bndbox", "a box", None)
    x1, y1 = (fields.as_number(box.findtext(key), f"bndbox.{key}") - 1 for key in ("xmin", "ymin"))
    x2, y2 = (fields.as_number(box.findtext(key), f"bndbox.{key}") for key in ("xmax", "ymax"))
    if x2 < x1 or y2 < y1:
        raise fields.unfit("bndbox", "xmin <= xmax and ymin <= ymax", [x1 + 1, y1 + 1, x2, y2])
    name = (element.findtext("name") or "").strip()
    return _VocObject(fields.as_text(name, "name"), (x1, y1, x2, y2))


def _masks(file: _File, root: Path, class_names: Sequence[str], report: Report) -> dict[int, Rle]:
    """The mask of each object that has one, by its place in the XML file."""
    path = root / "SegmentationObject" / f"{file.image.id}.png"
    if not first_file([path]):
        return {}
    ids = id_map(path)
    if ids.shape != (file.image.height, file.image.width):
        size = f"{file.image.width} x {file.image.height}"
        raise Unfit(f"expected {size} pixels, found {ids.shape[1]} x {ids.shape[0]}", "rle_size")
    ids[ids == SEAM] = 0
    class_path = root / "SegmentationClass" / path.name
    classes = id_map(class_path) if class_names is VOC and first_file([class_path]) else np.zeros_like(ids)
    if classes.shape != ids.shape:
        raise Unfit(f"expected SegmentationClass and SegmentationObject of one size, found {classes.shape}", "rle_size")
    masks: dict[int, Rle] = {}
    for region in rle.regions(ids):
        label = int(np.bincount(np.clip(classes[ids == region.value], 0, 255)).argmax())
        name = class_names[label - 1] if 1 <= label <= len(class_names) else None
        number = _owner(region, name, file.objects, masks)
        if number is None:
            where = f"{path.name}: object {region.value}"
            report(Problem("unmatched_mask", where, "expected an object of this class about there, found none"))
        else:
            masks[number] = region.rle
    return masks


def _owner(region: rle.Region, name: str | None, objects: Sequence[_VocObject], taken: Mapping[int, Rle]) -> int | None:
    """Returns the object that a mask belongs to: that of the same number if box and class agree, or else the best."""
    fits = {
        number: segmentations.overlap(region.box, one.box)
        for number, one in enumerate(objects)
        if number not in taken and name in (None, one.name)
    }
    if fits.get(region.value - 1, 0.0) >= LEAST_OVERLAP:
        return region.value - 1
    best = max(fits, key=fits.__getitem__, default=None)
    return best if best is not None and fits[best] >= LEAST_OVERLAP else None


def read_sbd(images: Path, annotations: Path, report: Report = refuse) -> Dataset:
    """Reads the masks of SBD; boxes are those of the masks.

    Args:
        images: the folder img.
        annotations: the folder inst, or a list of names next to it, such as train.txt.
        report: receives every problem.
    """
    if annotations.is_file():
        stems = _stems(annotations)
        paths = [annotations.parent / "inst" / f"{stem}.mat" for stem in stems]
    else:
        paths = list_files(annotations, "*.mat", "MATLAB files")

    def read_one(path: Path, _: Report) -> ImageRecord:
        ids, categories = _instances_of_mat(path)
        ids[ids == SEAM] = 0
        instances = []
        for region in rle.regions(ids):
            label = categories[region.value - 1] if region.value <= len(categories) else 0
            if not 1 <= label <= len(VOC):
                raise Unfit(f"expected a category of 1 to {len(VOC)} for object {region.value}, found {label}")
            instances.append(Instance(region.box, label, segmentation=region.rle, id=region.value))
        file = find_image(images, path.stem) or images / f"{path.stem}.jpg"
        return ImageRecord(path.stem, file, ids.shape[1], ids.shape[0], tuple(instances))

    records = read_records(paths, lambda path: path.name, read_one, report)
    return Dataset(annotations.name, VOC, tuple(range(1, len(VOC) + 1)), records)


def _instances_of_mat(path: Path) -> tuple[NDArray[np.int32], list[int]]:
    """The map of objects of one image, and the category of each of them."""
    try:
        from scipy.io import loadmat
    except ModuleNotFoundError:
        raise BadInput("SBD: expected the package scipy: pip install 'maskx_tf[sbd]'") from None
    try:
        with files.open_regular(path) as stream:
            if os.fstat(stream.fileno()).st_size > MOST_BYTES_OF_MAT:
                raise Unfit(f"expected at most {MOST_BYTES_OF_MAT} bytes, found more")
            found = loadmat(stream, variable_names=["GTinst"], squeeze_me=True, struct_as_record=False)
    except FileNotFoundError:
        raise Unfit("expected a MATLAB file, found none") from None
    except Unfit:
        raise
    except Exception as error:  # scipy raises whatever its parts do where a file is damaged
        raise Unfit(f"expected a MATLAB file of version 5: {reason(error)}") from None
    truth = found.get("GTinst")
    ids, categories = (np.asarray(getattr(truth, name, None)) for name in ("Segmentation", "Categories"))
    if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer) or not ids.size:
        raise Unfit("expected GTinst.Segmentation, a map of whole numbers, found none")
    if categories.ndim > 1 or not np.issubdtype(categories.dtype, np.number) or not np.isfinite(categories).all():
        raise Unfit("expected GTinst.Categories, a list of numbers, found none")
    return ids.astype(np.int32), [int(one) for one in np.atleast_1d(categories)]
