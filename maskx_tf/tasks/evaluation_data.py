"""The data sets that an evaluation reads: their truth, their images and their maps of ids."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from maskx_tf.config import Config, DataConfig, recipes
from maskx_tf.config.data import Source
from maskx_tf.data import opening
from maskx_tf.data.dataset import Dataset
from maskx_tf.data.formats import cityscapes, coco, coco_write
from maskx_tf.data.formats.records import Unfit
from maskx_tf.data.images import id_map
from maskx_tf.data.pipeline import examples
from maskx_tf.errors import BadInput
from maskx_tf.evaluation.cityscapes import IdMap
from maskx_tf.evaluation.lvis import FederatedRules
from maskx_tf.evaluation.runner import PixelSource
from maskx_tf.evaluation.truth import Truth
from maskx_tf.files import Json
from maskx_tf.tasks.progress import SILENT, Progress


class EvaluationData(NamedTuple):
    """A data set that is open for any number of evaluations.

    Attributes:
        dataset: its records, with every mask.
        truth: the same as COCO's mapping.
        examples: its images, without the instances, which an evaluation does not read there.
        sources: the data sets.
    """

    dataset: Dataset
    truth: Truth
    examples: examples.Examples
    sources: tuple[Source, ...]


def open_data(data: DataConfig, class_names: Sequence[str] = (), progress: Progress = SILENT) -> EvaluationData:
    """Opens `data.val`; see `data.opening.validation_set`."""
    dataset = opening.validation_set(data, class_names, progress.say)
    bare = dataset._replace(images=tuple(image._replace(instances=()) for image in dataset.images), keypoints=None)
    return EvaluationData(dataset, coco_write.as_coco(dataset), examples.from_dataset(bare, cache_mib=0), data.val)


def check_keypoints(dataset: Dataset, config: Config) -> None:
    """Raises BadInput where the model and the data have keypoints, and not the same."""
    known, named = config.model.keypoint.names, dataset.keypoints
    if "keypoints" in config.model.outputs and named is not None and named.names != known:
        expected, found = (", ".join(names[:3]) for names in (known, named.names))
        raise BadInput(
            f"{dataset.name}: expected the model's {len(known)} keypoints, such as {expected}, found "
            f"{len(named.names)}, such as {found}"
        )


def cityscapes_maps(data: EvaluationData) -> Callable[[int], IdMap]:
    """Gives the map of ids of each image; see `evaluation.cityscapes`.

    Raises:
        BadInput: the data set is no folder of Cityscapes.
    """
    formats = [source.format for source in data.sources]
    if formats != ["cityscapes"]:
        raise BadInput(f"metric cityscapes: expected one data set of format cityscapes, found {', '.join(formats)}")
    paths = cityscapes.maps(Path(data.sources[0].annotations))
    numbers = examples.image_numbers(data.dataset)
    files = {number: paths[str(image.id)] for number, image in zip(numbers, data.dataset.images, strict=True)}

    def read_map(image_id: int) -> IdMap:
        try:
            return id_map(files[image_id])
        except Unfit as problem:  # it was whole when the data set was opened
            raise BadInput(f"{files[image_id]}: {problem}") from None

    return read_map


def lvis_rules(data: EvaluationData) -> FederatedRules:
    """Reads the fields of the data's file that COCO's format does not have; see `evaluation.lvis`.

    Raises:
        BadInput: the data set is no file of LVIS.
    """
    paths = [Path(source.annotations) for source in data.sources if source.format == "coco"]
    if len(paths) != len(data.sources) or len(paths) != 1:
        raise BadInput(f"metric lvis: expected one data set of format coco, found {len(data.sources)}")
    lists = coco.read_lists(paths[0])
    numbers = dict(zip((image.id for image in data.dataset.images), examples.image_numbers(data.dataset), strict=True))
    try:
        images = [(numbers[one["id"]], one) for one in lists["images"] if one["id"] in numbers]
        return FederatedRules(
            {number: frozenset(one["neg_category_ids"]) for number, one in images},
            {number: frozenset(one["not_exhaustive_category_ids"]) for number, one in images},
            {int(one["id"]): str(one["frequency"]) for one in lists["categories"]},
        )
    except (LookupError, TypeError):
        expected = "neg_category_ids and not_exhaustive_category_ids of images, and frequency of categories"
        raise BadInput(f"{paths[0]}: expected LVIS' annotations: {expected}, found others") from None


def original_pixels(dataset: Dataset) -> PixelSource:
    """Gives the images as they are in their files."""
    places = {number: place for place, number in enumerate(examples.image_numbers(dataset))}
    return lambda image_id: examples.pixels(dataset, places[image_id])


def with_absolute_paths(data: DataConfig) -> Json:
    """The data sets and the file of new names, as a configuration has them, with absolute paths."""
    plain = data.model_dump(mode="json", include={"val", "names"})
    for source in plain["val"]:
        found = {key: source[key] for key in ("images", "annotations", "masks_b") if source[key] is not None}
        source |= {key: str(Path(path).resolve()) for key, path in found.items()}
    if plain["names"] is not None:
        plain["names"] = str(Path(recipes.find(plain["names"])).resolve())
    return plain


def file_facts(dataset: Dataset) -> list[tuple[int, int]]:
    """Size and time of each image file, which change with what it shows; size and checksum of an image in memory."""
    found = []
    for image in dataset.images:
        if isinstance(image.file, bytes):
            found.append((len(image.file), zlib.crc32(image.file)))
        elif image.file.is_file():
            facts = image.file.stat()
            found.append((facts.st_size, facts.st_mtime_ns))
    return found
