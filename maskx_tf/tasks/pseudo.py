"""GrabCut's masks of the boxes of a data set, to learn from: the paper's baseline."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from maskx_tf.data import splits
from maskx_tf.data.dataset import Dataset, ImageRecord, Instance
from maskx_tf.data.formats import coco_write, readers
from maskx_tf.data.formats.records import Unfit
from maskx_tf.data.images import load_pixels
from maskx_tf.data.problems import Report, refuse
from maskx_tf.data.threads import in_threads
from maskx_tf.errors import BadInput
from maskx_tf.masks.grabcut import require, segment
from maskx_tf.masks.rle import encode_crop
from maskx_tf.tasks.progress import SILENT, Progress


def cut(dataset: Dataset, kept: Collection[str], advance: Callable[[], None] = lambda: None) -> Dataset:
    """The data set with GrabCut's masks in place of its own, but for classes that keep theirs.

    Crowds have none: their boxes hold many objects. Nor do boxes of which nothing lies in the image.

    Args:
        dataset: its images are read.
        kept: names of the classes that keep their masks.
        advance: is called after each image.

    Raises:
        BadInput: an image cannot be read, or OpenCV is not installed.
    """
    require()

    def one_image(place: int, report: Report) -> ImageRecord:
        del report
        image = dataset.images[place]
        try:
            pixels = load_pixels(image)
        except Unfit as problem:
            raise BadInput(f"{image.file!s}: image {image.id} of {dataset.name}: {problem}") from None

        def masked(one: Instance) -> Instance:
            if dataset.class_names[one.label - 1] in kept:
                return one
            crop = segment(pixels, [one.box])[0]
            is_seen = crop.pixels.any() and not one.crowd
            return one._replace(segmentation=encode_crop(crop, image.height, image.width) if is_seen else None)

        return image._replace(instances=tuple(map(masked, image.instances)))

    records = []
    for record in in_threads(one_image, range(len(dataset.images)), refuse):
        records.append(record)
        advance()
    return dataset._replace(images=tuple(records))


def write_cut(
    source: readers.DataFiles, out: Path, keep: splits.Policy | None = None, progress: Progress = SILENT
) -> Dataset:
    """Writes a data set as a COCO file, with GrabCut's masks; see `cut`.

    Args:
        source: the data set.
        out: the file.
        keep: the policy whose classes keep the masks that they have; None: no class does.
        progress: each image is a step.

    Returns:
        What was written.
    """
    dataset = readers.read(source)
    kept = frozenset[str]() if keep is None else splits.a_classes(keep, dataset.class_names)
    progress.started(len(dataset.images))
    made = cut(dataset, kept, progress.advance)
    coco_write.write(made, out, source.images)
    return made
