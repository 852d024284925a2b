"""Makes masks of boxes, to learn from: GrabCut's, which are the paper's baseline, or those of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from maskx_tf import files
from maskx_tf.data import splits
from maskx_tf.data.dataset import Dataset, ImageRecord, Instance
from maskx_tf.data.formats import coco_write, readers
from maskx_tf.data.images import load_pixels, naming
from maskx_tf.data.problems import Report, refuse
from maskx_tf.data.threads import in_threads
from maskx_tf.masks import grabcut
from maskx_tf.masks.rle import encode_crop
from maskx_tf.tasks.progress import SILENT, Progress


class Maker(Protocol):
    """Makes masks of boxes.

    Attributes:
        name: what `mask_source` says.
        in_threads: whether several threads may ask.
    """

    name: str
    in_threads: bool

    def __call__(self, pixels: NDArray[np.uint8], instances: list[Instance]) -> list[grabcut.CutTarget]:
        """A mask of each instance's box, with its quality, in an image uint8 [H, W, 3]."""
        ...


class GrabCutMaker:
    """GrabCut's masks; their quality is what `masks.grabcut.targets` says."""

    name, in_threads = "grabcut", True

    def __init__(self) -> None:
        grabcut.require()

    def __call__(self, pixels: NDArray[np.uint8], instances: list[Instance]) -> list[grabcut.CutTarget]:
        """A mask of each instance's box, with its quality."""
        return grabcut.targets(pixels, [one.box for one in instances])


class Masked(NamedTuple):
    """The result of making masks.

    Attributes:
        dataset: the data set.
        known: instances whose masks were there.
        made: instances that got one.
        left: instances that got none, for the quality was too low or there is nothing to see.
    """

    dataset: Dataset
    known: int
    made: int
    left: int


def fill(dataset: Dataset, maker: Maker, least: float = 0.0, advance: Callable[[], None] = lambda: None) -> Masked:
    """The data set with made masks where instances have none.

    Crowds get none, because their boxes hold many objects. Boxes that lie outside of the image get none either.

    Args:
        dataset: its images are read.
        maker: makes the masks.
        least: masks of a lower quality are left out.
        advance: is called after each image.

    Raises:
        BadInput: an image cannot be read, or something is not installed.
    """

    def one_image(image: ImageRecord, report: Report) -> ImageRecord:
        del report
        with naming(image, dataset.name):
            return fill_image(image, maker, least)

    found: Iterable[ImageRecord]
    if maker.in_threads:
        found = in_threads(one_image, dataset.images, refuse)
    else:
        found = (one_image(image, refuse) for image in dataset.images)
    records = []
    for record in found:
        records.append(record)
        advance()
    known, having, total = (
        sum(test(one) for image in images for one in image.instances)
        for images, test in ((dataset.images, _has_mask), (records, _has_mask), (records, _is_one))
    )
    return Masked(dataset._replace(images=tuple(records)), known, having - known, total - having)


def fill_image(image: ImageRecord, maker: Maker, least: float = 0.0) -> ImageRecord:
    """An image of `fill`.

    Raises:
        Unfit: it cannot be read.
    """
    waiting = [one for one in image.instances if needs_mask(one)]
    if not waiting:
        return image
    made = iter(maker(load_pixels(image), waiting))

    def masked(one: Instance) -> Instance:
        if not needs_mask(one):
            return one
        crop, quality = next(made)
        if quality < least or not crop.pixels.any():
            return one
        mask = encode_crop(crop, image.height, image.width)
        return one._replace(segmentation=mask, mask_source=maker.name, mask_quality=round(quality, 4))

    return image._replace(instances=tuple(map(masked, image.instances)))


def needs_mask(one: Instance) -> bool:
    """Whether an instance should get a made mask: it has none and is no crowd, whose box holds many objects."""
    return not one.has_mask and not one.crowd


def write_filled(
    source: readers.DataFiles,
    out: Path,
    maker_for: Callable[[tuple[str, ...]], Maker],
    *,
    least: float = 0.0,
    policy: splits.Policy = "all",
    progress: Progress = SILENT,
) -> Masked:
    """Writes a data set as a COCO file, with made masks; see `fill`.

    Args:
        source: the data set.
        out: the file.
        maker_for: what makes the masks, for the names of the classes.
        least: see `fill`.
        policy: the classes that keep the masks which the data set has; those of others are made.
        progress: each image is a step.

    Raises:
        BadInput: the file cannot be written, an image is in no file, or as `fill` does.
    """
    files.check_writable(out)
    dataset = splits.apply(readers.read(source), policy)
    for image in dataset.images:
        coco_write.relative_name(image, source.images)  # raises BadInput if the file cannot name it
    progress.started(len(dataset.images))
    filled = fill(dataset, maker_for(dataset.class_names), least, progress.advance)
    coco_write.write(filled.dataset, out, source.images)
    return filled


def _has_mask(one: Instance) -> bool:
    return one.has_mask


def _is_one(one: Instance) -> bool:
    return not one.crowd or one.has_mask
