"""The formats that can be read, and the three ways to open data: for training, for evaluation, and for viewing."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from maskx_tf.data import own_reader, splits
from maskx_tf.data.annotators import cvat, label_studio, yolo
from maskx_tf.data.dataset import Dataset, ImageRecord, MaskFile, for_learning
from maskx_tf.data.formats import (
    cityscapes,
    coco,
    coco_write,
    labelme,
    mask_folder,
    open_images,
    via,
    visual_genome,
    voc,
)
from maskx_tf.data.formats.join import Renaming, join, ordered
from maskx_tf.data.problems import Problem, Report, refuse
from maskx_tf.errors import BadInput, did_you_mean, visible

# A reader takes the folder of the images, the file or folder of the annotations, and the receiver of problems.
READERS: Mapping[str, Callable[[Path, Path, Report], Dataset]] = {
    "coco": coco.read,
    "voc": voc.read,
    "sbd": voc.read_sbd,
    "visual_genome": visual_genome.read,
    "visual_genome_val": partial(visual_genome.read, part="val"),
    "visual_genome_test": partial(visual_genome.read, part="test"),
    "cityscapes": cityscapes.read,
    "open_images": open_images.read,
    "labelme": labelme.read,
    "via": via.read,
    "masks": mask_folder.read,
    "yolo": yolo.read,
    "label_studio": label_studio.read,
    "cvat": cvat.read,
}
# A writer takes the data set, the file or folder to write, and the folder to which names of images are relative.
WRITERS: Mapping[str, Callable[[Dataset, Path, Path], None]] = {
    "coco": coco_write.write,
    "yolo": yolo.write,
    "label_studio": label_studio.write,
    "cvat": cvat.write,
}


class DataFiles(NamedTuple):
    """The files of a data set.

    Attributes:
        images: the folder of the images.
        annotations: the file or folder of the annotations, as the format has it.
        format: a key of READERS, or the dotted name of a function of the user's.
        masks_b: a COCO file with masks that are kept apart from the annotations; evaluation opens it, and training
            under the policy `oracle` alone.
        outside: whether files outside of these folders are opened as well.
    """

    images: Path
    annotations: Path
    format: str = "coco"
    masks_b: Path | None = None
    outside: bool = False


def read(source: DataFiles, report: Report = refuse) -> Dataset:
    """A data set as its files have it, without the masks that are kept apart."""
    if "." in source.format:
        return own_reader.read(source.format, source.images, source.annotations)
    if source.format not in READERS:
        raise BadInput(f"format: expected one of {', '.join(READERS)}, found {source.format!r}")
    with _without_collector():
        dataset = READERS[source.format](source.images, source.annotations, report)
        return dataset if source.outside else _inside(dataset, source, report)


def _inside(dataset: Dataset, source: DataFiles, report: Report) -> Dataset:
    """The data set without images whose files, or whose masks' files, lie outside of its folders.

    Annotations may come from anywhere, and could name any file of this machine.
    """
    parents = (source.images, source.annotations if source.annotations.is_dir() else source.annotations.parent)
    folders = tuple(os.path.join(os.path.abspath(folder), "") for folder in parents)

    def is_inside(image: ImageRecord) -> bool:
        masks = (one.segmentation.path for one in image.instances if isinstance(one.segmentation, MaskFile))
        for path in (image.file, *masks):
            if isinstance(path, Path) and not os.path.abspath(path).startswith(folders):
                what = (
                    f"expected files in {source.images}, found {visible(str(path))}; outside (--outside) allows others"
                )
                report(Problem("outside", f"{dataset.name}: image {image.id}", what))
                return False
        return True

    return dataset._replace(images=tuple(filter(is_inside, dataset.images)))


def with_masks_b(dataset: Dataset, source: DataFiles, report: Report = refuse) -> Dataset:
    """The data set of a source with the masks that are kept apart from it, if there are any."""
    if source.masks_b is None:
        return dataset
    with _without_collector():
        return coco.attach_masks(dataset, source.masks_b, report)


def whole(source: DataFiles) -> Dataset:
    """Returns all that a data set has: every box unchanged, and every mask."""
    return with_masks_b(read(source), source)


def truth(source: DataFiles, say: Callable[[str], None] = lambda text: None) -> Dataset:
    """Returns a data set without masks that a program made; if there are any, `say` receives a line."""
    dataset = whole(source)
    made = [one.mask_source for image in dataset.images for one in image.instances if one.mask_source is not None]
    if not made:
        return dataset
    say(f"{dataset.name}: {len(made)} masks with mask_source ({', '.join(sorted(set(made)))}) are not taken for truth")

    def stripped(image: ImageRecord) -> ImageRecord:
        instances = (one if one.mask_source is None else one.with_mask(None) for one in image.instances)
        return image._replace(instances=tuple(instances))

    return dataset._replace(images=tuple(map(stripped, dataset.images)))


def check_policy(sources: Sequence[DataFiles], policy: splits.Policy) -> None:
    """Raises BadInput for the policy `oracle` where no masks are kept apart."""
    if policy == "oracle" and not any(source.masks_b for source in sources):
        raise BadInput("masks: oracle: expected a data set with masks_b, the masks that are kept apart, found none")


@contextmanager
def _without_collector() -> Iterator[None]:
    """Switches the garbage collector off, which takes half of the time: records have no reference cycles."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def for_training(
    sources: Sequence[DataFiles], policy: splits.Policy, names: Renaming | None = None, class_names: Sequence[str] = ()
) -> Dataset:
    """Returns the training data of these data sets, joined by class name, without the masks that training must not see.

    All training data come from this function. Boxes are cut to their images, and masks of classes outside A are
    dropped. A file of masks kept apart is opened only if the policy is `oracle`.

    Args:
        sources: the data sets.
        policy: says which classes are A.
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


def for_evaluation(
    sources: Sequence[DataFiles], names: Renaming | None = None, say: Callable[[str], None] = lambda text: None
) -> Dataset:
    """The truth about these data sets, joined by class name: every box as it was, and every mask that is true.

    New names are those of the training data; these data may lack some of its classes.
    """
    datasets = [truth(source, say) for source in sources]
    known = {name for dataset in datasets for name in dataset.class_names}
    return join(datasets, {old: new for old, new in (names or {}).items() if old in known})


def for_a_look(sources: Sequence[DataFiles], names: Renaming | None = None) -> Dataset:
    """All that these data sets have, joined by class name, with the masks that a program made."""
    return join([whole(source) for source in sources], names)
