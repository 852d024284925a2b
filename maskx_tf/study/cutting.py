"""A data set whose masks are GrabCut's of its boxes: what the paper's weakly supervised baseline learns from."""

from __future__ import annotations

from collections.abc import Callable, Collection

from maskx_tf.data import files
from maskx_tf.data.dataset import Dataset, ImageRecord, Instance
from maskx_tf.data.fields import Unfit
from maskx_tf.data.problems import Report, refuse
from maskx_tf.errors import BadInput
from maskx_tf.evaluation.grabcut import segment
from maskx_tf.ops.rle import encode_crop


def cut(dataset: Dataset, kept: Collection[str], advance: Callable[[], None] = lambda: None) -> Dataset:
    """The data set with GrabCut's masks in place of its own, but for classes that keep theirs.

    Crowds have none: their boxes hold many objects. Nor do boxes of which nothing lies in the image.

    Args:
        dataset: its images are read.
        kept: names of the classes that keep their masks.
        advance: is called after each image.

    Raises:
        BadInput: an image cannot be read.
    """

    def one_image(place: int, report: Report) -> ImageRecord:
        del report
        image = dataset.images[place]
        try:
            pixels = files.pixels(image)
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
    for record in files.in_threads(one_image, range(len(dataset.images)), refuse):
        records.append(record)
        advance()
    return dataset._replace(images=tuple(records))
