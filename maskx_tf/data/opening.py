"""The data sets that a configuration names, opened for training and for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from maskx_tf.config import Config, recipes
from maskx_tf.config.data import DataConfig, Source
from maskx_tf.data import splits
from maskx_tf.data.dataset import Dataset, ImageRecord
from maskx_tf.data.formats import readers
from maskx_tf.data.formats.join import Renaming, ordered, read_names
from maskx_tf.errors import BadInput
from maskx_tf.structures import KeypointSet

if TYPE_CHECKING:
    from maskx_tf.data.pipeline.examples import Examples


def training_set(data: DataConfig, class_names: Sequence[str] = ()) -> Dataset:
    """Returns the training data: `data.train` joined and renamed, without the masks of B.

    Args:
        data: the section of the configuration.
        class_names: `model.class_names`; empty: the classes of the data, in their order.

    Raises:
        BadInput: something is wrong with the data, the classes do not fit, or no image has `data.min_keypoints`.
    """
    if not data.train:
        raise BadInput("data.train: expected data sets to learn from, found none")
    dataset = readers.for_training(_sources(data.train), policy_of(data), _names(data), class_names)
    return _with_enough_keypoints(dataset, data.min_keypoints)


def _with_enough_keypoints(dataset: Dataset, least: int) -> Dataset:
    """Returns the images with at least this many keypoints."""

    def count(image: ImageRecord) -> int:
        return sum(one.keypoint_count for one in image.instances if not one.crowd)

    images = tuple(image for image in dataset.images if count(image) >= least)
    if not images:
        raise BadInput(f"data.min_keypoints: expected images of {dataset.name} with {least} keypoints, found none")
    return dataset._replace(images=images)


def with_keypoints(config: Config, dataset: Dataset) -> tuple[Config, Dataset]:
    """Returns both with the keypoints that the model learns: those of the data, or none.

    Raises:
        BadInput: the data have none, or others than `model.keypoint` names.
    """
    settings, known = config.model.keypoint, dataset.keypoints
    if not settings.use:
        return config, dataset._replace(keypoints=None)
    if known is None:
        raise BadInput("data.train: expected keypoints for model.keypoint.use, found none")
    if settings.names not in ((), known.names):
        raise BadInput(
            f"data.train: expected the keypoints of model.keypoint.names, such as {settings.names[0]}, "
            f"found {', '.join(known.names[:3])}"
        )
    skeleton, flip = (
        tuple((known.names[first], known.names[second]) for first, second in pairs)
        for pairs in (known.skeleton, known.flip)
    )
    chosen = known.names, settings.skeleton or skeleton, settings.flip or flip
    return config.with_keypoints(*chosen), dataset._replace(keypoints=KeypointSet.of_names(*chosen))


def training_examples(data: DataConfig, dataset: Dataset) -> Examples:
    """The images and masks of a training set for the pipeline: from `data.records` if there are any.

    Raises:
        BadInput: the records are of another data set, or of this one with other masks.
    """
    from maskx_tf.data.pipeline import examples, tfrecords_write  # TensorFlow

    if data.records is None:
        return examples.from_dataset(dataset)
    return tfrecords_write.open_written(dataset, Path(data.records))


def validation_set(
    data: DataConfig, class_names: Sequence[str] = (), say: Callable[[str], None] = lambda text: None
) -> Dataset:
    """The whole truth about `data.val`, joined and renamed, with every mask that no program made.

    Args:
        data: the section of the configuration.
        class_names: those of the model; other classes are left out, because the model cannot find them.
            Empty: the classes of the data, in their order.
        say: receives a line if masks are left out.

    Raises:
        BadInput: something is wrong with the data, or it shows no class of the model.
    """
    if not data.val:
        raise BadInput("data.val: expected data sets to evaluate on, found none")
    joined = readers.for_evaluation(_sources(data.val), _names(data), say)
    if not class_names:
        return joined
    if not set(joined.class_names) & set(class_names):
        found = ", ".join(joined.class_names[:3])
        raise BadInput(f"{joined.name}: expected some of the model's classes, such as {class_names[0]}, found {found}")
    return ordered(joined, class_names)


def _sources(sources: Sequence[Source]) -> list[readers.DataFiles]:
    return [
        readers.DataFiles(
            Path(source.images),
            Path(source.annotations),
            source.reader or source.format,
            None if source.masks_b is None else Path(source.masks_b),
            source.outside,
        )
        for source in sources
    ]


def policy_of(data: DataConfig) -> splits.Policy:
    """The policy of `data.masks`."""
    return splits.parse(data.model_dump(mode="json", include={"masks"})["masks"])


def _names(data: DataConfig) -> Renaming | None:
    return None if data.names is None else read_names(Path(recipes.find(data.names)))
