"""Reads Cityscapes: instances from the maps *_instanceIds.png, the eight classes that have them.

    leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png
    gtFine/train/aachen/aachen_000000_000019_gtFine_instanceIds.png

`images` is leftImg8bit/train, `annotations` gtFine/train, or another part. A pixel of 26003 belongs to the fourth car;
one of 26, without a number, belongs to a group of cars that were not separated: a crowd.
"""

from __future__ import annotations

from pathlib import Path

from maskx_tf.data.dataset import Dataset, ImageRecord, Instance
from maskx_tf.data.images import id_map
from maskx_tf.data.paths import list_files
from maskx_tf.data.problems import Report, refuse
from maskx_tf.data.threads import read_records
from maskx_tf.masks import rle
from maskx_tf.names import CITYSCAPES_IDS

FIRST = 24  # smaller ids are road, sky and the like
NUMBERED = 1000  # from here on an id is label x 1000 + number
SUFFIX = "_instanceIds.png"


def read(images: Path, annotations: Path, report: Report = refuse) -> Dataset:
    """Reads a data set.

    Args:
        images: the folder of the images, with the same folders of cities as `annotations`.
        annotations: the folder of the maps.
        report: receives every problem.
    """
    labels = {category: label for label, category in enumerate(CITYSCAPES_IDS, 1)}

    def where(path: Path) -> str:
        return f"{annotations.name}/{path.relative_to(annotations).as_posix()}"

    def read_one(path: Path, _: Report) -> ImageRecord:
        ids, scene = id_map(path), _scene_of(path)
        instances = tuple(
            Instance(region.box, labels[category], region.value < NUMBERED, region.rle, region.value)
            for region in rle.regions(ids, FIRST)
            if (category := region.value // NUMBERED if region.value >= NUMBERED else region.value) in labels
        )
        image = images / path.relative_to(annotations).parent / f"{scene}_leftImg8bit.png"
        return ImageRecord(scene, image, ids.shape[1], ids.shape[0], instances)

    records = read_records(_paths(annotations), where, read_one, report)
    return Dataset(annotations.name, tuple(CITYSCAPES_IDS.values()), tuple(CITYSCAPES_IDS), records)


def maps(annotations: Path) -> dict[str, Path]:
    """The file of each scene's map, by the id that `read` gives to its image."""
    return {_scene_of(path): path for path in _paths(annotations)}


def _paths(annotations: Path) -> list[Path]:
    return list_files(annotations, f"*{SUFFIX}", "maps of instances")


def _scene_of(path: Path) -> str:
    return path.name.removesuffix(SUFFIX).removesuffix("_gtFine").removesuffix("_gtCoarse")
