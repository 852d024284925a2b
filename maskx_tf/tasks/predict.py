"""Finds and segments objects in images: of a notebook, or of files."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskx_tf.errors import BadInput
from maskx_tf.files import Json, check_writable, write_json
from maskx_tf.masks.paste import Crop, full, paste
from maskx_tf.masks.results import coco_results
from maskx_tf.masks.steps import NO_STEPS, MaskSteps
from maskx_tf.prediction.images import ImageLike, pixels_of
from maskx_tf.structures import Detections
from maskx_tf.tasks.images import at_least, find_images, image_ids, picture_files
from maskx_tf.tasks.models import Model, ModelOrPath, finder, opened
from maskx_tf.tasks.pictures import write_picture
from maskx_tf.tasks.progress import SILENT, Progress
from maskx_tf.tasks.submission import Submission
from maskx_tf.visualize import draw, enlarged

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True, eq=False)
class Prediction:
    """The detections in an image.

    Attributes:
        image: the image, as it was given.
        size: its height and width.
        detections: best first, without padding; boxes [D, 4] and keypoints [D, P, 2] in pixels of the image, masks
            [D, M, M] over the boxes.
        model: the model that was asked.
        steps: what is made of the model's masks before they are pasted, drawn or written.
    """

    image: ImageLike
    size: tuple[int, int]
    detections: Detections
    model: Model
    steps: MaskSteps = NO_STEPS

    @property
    def names(self) -> tuple[str, ...]:
        """The class name of each detection."""
        return tuple(self.model.class_names[number - 1] for number in self.detections.classes)

    def pasted(self, threshold: float = 0.5) -> NDArray[np.bool_]:
        """The masks in the image, bool [D, height, width]; after steps, the threshold is theirs.

        Raises:
            ValueError: the model has no masks.
        """
        if self.detections.masks is None:
            raise ValueError(f"{self.model.name} has no masks")
        if self.steps.names:
            return np.array([full(crop, *self.size) for crop in self.crops or ()], bool).reshape(-1, *self.size)
        mode = self.model.config.model.detections.paste
        return paste(self.detections.masks, self.detections.boxes, *self.size, threshold=threshold, mode=mode)

    @functools.cached_property
    def crops(self) -> list[Crop] | None:
        """The masks after the steps, in the pixels of the image where they can be; None if the model has none."""
        return self._crops(self.detections, self.size, lambda: pixels_of(self.image))

    def drawn(self) -> NDArray[np.uint8]:
        """The image with boxes, masks, keypoints and labels, uint8 [h, w, 3]. A small image is enlarged."""
        picture, found = enlarged(pixels_of(self.image), self.detections)
        height, width = picture.shape[:2]
        crops = self.crops if (height, width) == self.size else self._crops(found, (height, width), lambda: picture)
        model = self.model
        return draw(picture, found, model.class_names, a_classes=model.classes_a, crops=crops, skeleton=model.skeleton)

    def as_coco(self, image_id: int) -> list[Json]:
        """COCO's results. Category ids are the data set's where the model knows them, or else 1..K."""
        return coco_results(self.detections, self.size, image_id, self.model.category_ids, self.crops)

    def as_supervision(self) -> supervision.Detections:
        """The detections for the package supervision: boxes, scores, class numbers from 0 on and names, and masks.

        Raises:
            BadInput: supervision is not installed.
        """
        try:
            import supervision
        except ImportError:
            raise BadInput("as_supervision: expected the package supervision: pip install supervision") from None
        found = self.detections
        return supervision.Detections(
            xyxy=np.asarray(found.boxes, np.float32),
            mask=None if found.masks is None else self.pasted(),
            confidence=found.scores,
            class_id=np.asarray(found.classes, int) - 1,
            data={"class_name": np.array(self.names, str)},
        )

    def _crops(
        self, found: Detections, size: tuple[int, int], pixels: Callable[[], NDArray[np.uint8]]
    ) -> list[Crop] | None:
        mode = self.model.config.model.detections.paste
        return self.steps.crops(found.boxes, found.masks, size, pixels, mode)


def predict(
    model: ModelOrPath,
    images: ImageLike | Iterable[ImageLike],
    *,
    score: float = 0.5,
    augment: bool | Sequence[int] = False,
    ensemble: Sequence[ModelOrPath] = (),
    steps: MaskSteps = NO_STEPS,
    progress: Progress = SILENT,
) -> list[Prediction]:
    """Finds and segments objects in images of any size.

    Args:
        model: an open model, or the path of one. An open model compiles its graphs once.
        images: one or more: arrays uint8 [H, W, 3] in RGB, Pillow images, or names of files, folders and patterns.
        score: detections with at least this score are kept.
        augment: look at each image mirrored and not, with each of these short sides in pixels; True stands for 3/4, 1
            and 5/4 of the model's own.
        ensemble: further models of the same classes: boxes of all are suppressed together, masks are averaged.
        steps: what is made of the model's masks: see `masks.steps.MaskSteps`.
        progress: each image is a step.

    Returns:
        A prediction for each image, in order.

    Raises:
        BadInput: the model or an image cannot be read.
    """
    every = list(_each(images))
    progress.started(len(every))
    model = opened(model)
    find = _finder([model, *map(opened, ensemble)], augment, score)
    return [*_predictions(model, find, every, score, steps, progress)]


def predict_files(
    model: ModelOrPath,
    files: Sequence[Path],
    *,
    pictures: Path | None = None,
    results: Path | None = None,
    cityscapes: Path | None = None,
    score: float = 0.5,
    augment: bool | Sequence[int] = False,
    ensemble: Sequence[ModelOrPath] = (),
    steps: MaskSteps = NO_STEPS,
    progress: Progress = SILENT,
) -> int:
    """Finds and segments objects in image files, and writes what it finds. One image is in memory at a time.

    Args:
        model: see `predict`.
        files: the image files.
        pictures: a folder for the images with the detections drawn on them; none that holds one of the files.
        results: a file for COCO's results, each with the `file_name` of its image.
        cityscapes: a folder for the files that Cityscapes' evaluation server takes.
        score: see `predict`.
        augment: see `predict`.
        ensemble: see `predict`.
        steps: see `predict`.
        progress: see `predict`.

    Returns:
        The number of detections.

    Raises:
        BadInput: something cannot be read or written.
    """
    if results is not None:
        check_writable(results)
    numbers = image_ids(files)
    drawings = {} if pictures is None else picture_files(files, pictures)
    entries: list[Json] = []
    count = 0
    model = opened(model)
    find = _finder([model, *map(opened, ensemble)], augment, score)
    submission = None if cityscapes is None else _submission(model, cityscapes, files)
    progress.started(len(files))
    pixels = (pixels_of(file) for file in files)
    for file, found in zip(files, _predictions(model, find, pixels, score, steps, progress), strict=True):
        count += len(found.names)
        if drawings:
            write_picture(drawings[file], found.drawn())
        if results is not None:
            entries += [{**entry, "file_name": file.as_posix()} for entry in found.as_coco(numbers[file])]
        if submission is not None:
            submission.add(file, found.names, found.detections.scores.tolist(), found.crops or [], found.size)
    if results is not None:
        write_json(results, entries, indent=None)
    return count


def _submission(model: Model, folder: Path, files: Sequence[Path]) -> Submission:
    if "masks" not in model.config.model.outputs:
        raise BadInput(f"{folder}: expected a model with masks, found none")
    return Submission(folder, files, model.class_names)


def _each(images: ImageLike | Iterable[ImageLike]) -> Iterator[ImageLike]:
    """The images one by one; names of folders and patterns become those of files."""
    if isinstance(images, (str, os.PathLike)):
        yield from find_images([os.fspath(images)])
    elif isinstance(images, Image.Image) or (isinstance(images, np.ndarray) and images.ndim != 4):
        yield images
    else:
        for image in images:
            yield from _each(image)


def _finder(
    models: Sequence[Model], augment: bool | Sequence[int], score: float
) -> Callable[[NDArray[np.uint8]], Detections]:
    """Returns the function that finds objects down to a score, also where the models' own thresholds are higher."""
    highest = max(model.config.model.detections.score for model in models)
    # Not down to the score itself, whose every value would need graphs of its own.
    return finder(models, augment, 0.0 if score < highest else None)


def _predictions(
    model: Model,
    find: Callable[[NDArray[np.uint8]], Detections],
    images: Iterable[ImageLike],
    score: float,
    steps: MaskSteps,
    progress: Progress,
) -> Iterator[Prediction]:
    steps.check(model.config.model.outputs)
    for image in images:
        pixels = pixels_of(image)
        height, width = pixels.shape[:2]
        yield Prediction(image, (height, width), at_least(find(pixels), score), model, steps)
        progress.advance()
