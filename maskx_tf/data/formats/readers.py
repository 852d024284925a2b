"""The formats that can be read, and the three ways to open data: for training, for evaluation, for a look at it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from maskx_tf.data import splits
from maskx_tf.data.dataset import Dataset, for_learning
from maskx_tf.data.formats import cityscapes, coco, labelme, mask_folder, open_images, via, visual_genome, voc
from maskx_tf.data.formats.join import Names, join, ordered
from maskx_tf.data.problems import Report, refuse
from maskx_tf.errors import BadInput, did_you_mean

# A reader takes the folder of the images, the file or folder of the annotations, and whom to tell of problems.
READERS: Mapping[str, Callable[[Path, Path, Report], Dataset]] = {
    "coco": coco.read,
    "voc": voc.read,
    "visual_genome": visual_genome.read,
    "visual_genome_val": partial(visual_genome.read, part="val"),
    "visual_genome_test": partial(visual_genome.read, part="test"),
    "cityscapes": cityscapes.read,
    "open_images": open_images.read,
    "labelme": labelme.read,
    "via": via.read,
    "masks": mask_folder.read,
}


class Source(NamedTuple):
    """Where a data set lies.

    Attributes:
        images: the folder of the images.
        annotations: the file or folder of the annotations, as the format has it.
        format: a key of READERS.
        masks_b: a COCO file with masks that are kept apart from the annotations; evaluation opens it, and training
            under the policy `oracle` alone.
    """

    images: Path
    annotations: Path
    format: str = "coco"
    masks_b: Path | None = None


def read(source: Source, report: Report = refuse) -> Dataset:
    """A data set as its files have it, without the masks that are kept apart."""
    if source.format not in READERS:
        raise BadInput(f"format: expected one of {', '.join(READERS)}, found {source.format!r}")
    with _without_collector():
        return READERS[source.format](source.images, source.annotations, report)


def with_masks_b(dataset: Dataset, source: Source, report: Report = refuse) -> Dataset:
    """The data set of a source with the masks that are kept apart from it, if there are any."""
    if source.masks_b is None:
        return dataset
    with _without_collector():
        return coco.attach_masks(dataset, source.masks_b, report)


def whole(source: Source) -> Dataset:
    """The whole truth about a data set: every box as it was, and every mask."""
    return with_masks_b(read(source), source)


def check_policy(sources: Sequence[Source], policy: splits.Policy) -> None:
    """Raises BadInput for the policy `oracle` where no masks are kept apart."""
    if policy == "oracle" and not any(source.masks_b for source in sources):
        raise BadInput("masks: oracle: expected a data set with masks_b, the masks that are kept apart, found none")


@contextmanager
def _without_collector() -> Iterator[None]:
    """Spares the search for cycles, which takes half of the time: records have none."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def for_training(
    sources: Sequence[Source], policy: splits.Policy, names: Names | None = None, class_names: Sequence[str] = ()
) -> Dataset:
    """What training may see of these data sets, joined by class name.

    This is the only door to training. Behind it, boxes lie in their images and `has_mask` is decided: a mask of a class
    outside A is gone, and a file of masks kept apart was not opened, unless the policy is `oracle`.

    Args:
        sources: where they lie.
        policy: which classes are A.
        names: new names for classes.
        class_names: all classes of the data, and perhaps others, in the order in which they are numbered; empty: those
            of the data in theirs.

    Raises:
        BadInput: something is wrong with the data; one line with the file, the record and what was expected.
    """
    check_policy(sources, policy)
    joined = join([whole(source) if policy == "oracle" else read(source) for source in sources], names)
    if class_names:
        for name in joined.class_names:
            if name not in class_names:
                what = f"expected every class of {joined.name}, found no {name!r}; names can rename or drop it"
                raise BadInput(f"model.class_names: {what}{did_you_mean(name, class_names)}")
        joined = ordered(joined, class_names)
    return for_learning(splits.apply(joined, policy))


def for_evaluation(sources: Sequence[Source], names: Names | None = None) -> Dataset:
    """The whole truth about these data sets, joined by class name: every box as it was, and every mask."""
    return join([whole(source) for source in sources], names)
