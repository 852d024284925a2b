"""Jobs that make masks of the boxes in a COCO file: their plan, and the rows of a shard."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from maskx_tf import files
from maskx_tf.data.dataset import Dataset, ImageRecord
from maskx_tf.data.formats import readers
from maskx_tf.data.formats.records import Unfit
from maskx_tf.errors import BadInput, reason
from maskx_tf.files import AnyPath, Json
from maskx_tf.masks.steps import NO_STEPS, MaskSteps
from maskx_tf.tasks.batch import plan
from maskx_tf.tasks.batch.items import ImagePlace
from maskx_tf.tasks.batch.plan import BatchJob, BatchSettings, BoxFile
from maskx_tf.tasks.pseudo import fill_image, needs_mask

if TYPE_CHECKING:
    from maskx_tf.tasks.model_masks import ModelMaker


def write_plan(
    out: Path, model: AnyPath, images: Path, annotations: Path, *, size: int, steps: MaskSteps = NO_STEPS
) -> BatchJob:
    """Plans a job of the images that have boxes without a mask; crowds get none.

    Args:
        out: the folder of the job.
        model: a run, checkpoint or model folder.
        images: the folder of the images.
        annotations: the COCO file.
        size: images of a shard.
        steps: see `ModelMaker`.

    Raises:
        BadInput: the model or the data cannot be read, or every box has its mask.
    """
    boxes = box_file(images, annotations)
    dataset = dataset_of(boxes)
    places = [
        ImagePlace(json.dumps(image.id), boxes.annotations, index)
        for index, image in enumerate(dataset.images)
        if any(map(needs_mask, image.instances))
    ]
    if not places:
        raise BadInput(f"{annotations}: expected boxes without a mask, found none")
    settings = BatchSettings(boxes=boxes, refine=steps.refine, disjoint=steps.disjoint)
    return plan.write(out, model, places, size=size, settings=settings)


def box_file(images: Path, annotations: Path) -> BoxFile:
    """The boxes of a job as they are now."""
    try:
        digest = files.sha256(annotations)
    except OSError as error:
        raise BadInput(f"{annotations}: cannot be read: {reason(error)}") from None
    return BoxFile(images=os.path.abspath(images), annotations=os.path.abspath(annotations), digest=digest)


def check_boxes(boxes: BoxFile) -> None:
    """Raises BadInput if the file is not the one that the job was planned for."""
    if box_file(Path(boxes.images), Path(boxes.annotations)) != boxes:
        raise BadInput(f"{boxes.annotations}: expected the file that the job was planned for, found a changed one")


@functools.lru_cache(maxsize=1)
def dataset_of(boxes: BoxFile) -> Dataset:
    """The data set of the boxes, read once: `boxes` has the checksum of its file."""
    return readers.read(readers.DataFiles(Path(boxes.images), Path(boxes.annotations)))


@functools.lru_cache(maxsize=1)
def _opened(model: str, digest: str, boxes: BoxFile, steps: MaskSteps) -> tuple[Dataset, ModelMaker]:
    from maskx_tf.tasks.model_masks import ModelMaker

    del digest  # part of the key alone: a model that was trained further is another one
    check_boxes(boxes)
    dataset = dataset_of(boxes)
    return dataset, ModelMaker(model, dataset.class_names, steps)


@dataclass(frozen=True)
class LabelWork:
    """Makes masks of boxes. It may be pickled, and opens the model and the file when it is first asked.

    Attributes:
        model: the path of the model.
        digest: its checksum.
        boxes: the boxes.
        steps: see `ModelMaker`.
    """

    model: str
    digest: str
    boxes: BoxFile
    steps: MaskSteps

    def __call__(self, places: Sequence[ImagePlace], sizes: dict[str, int]) -> Iterator[Json]:
        """Yields the rows of these images."""
        del sizes  # the file has a checksum
        dataset, maker = _opened(self.model, self.digest, self.boxes, self.steps)
        for place in places:
            image = dataset.images[place.first]
            waiting = [index for index, one in enumerate(image.instances) if needs_mask(one)]
            try:
                filled = fill_image(image, maker)
            except Unfit as problem:
                yield _row(place.key, dataset, image, waiting, f"{problem.kind}: {problem}")
            else:
                yield _row(place.key, dataset, filled, waiting)


def _row(key: str, dataset: Dataset, image: ImageRecord, chosen: Sequence[int], status: str = "ok") -> Json:
    """The row of an image, with those of its instances that were to get masks."""
    instances = [image.instances[index] for index in chosen]
    masks = [one.segmentation for one in instances]
    return {
        "key": key,
        "status": status,
        "height": image.height,
        "width": image.width,
        "boxes": [list(one.box) for one in instances],
        "scores": [one.mask_quality or 0.0 for one in instances],
        "classes": [dataset.category_ids[one.label - 1] for one in instances],
        "names": [dataset.class_names[one.label - 1] for one in instances],
        "masks": [mask["counts"] if isinstance(mask, dict) else None for mask in masks],
        "keypoints": None,
        "annotations": [json.dumps(one.id) for one in instances],
        "mask_source": next((one.mask_source for one in instances if one.mask_source), None),
    }
