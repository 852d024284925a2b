"""Makes masks of boxes with a model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from maskx_tf.data.dataset import Instance
from maskx_tf.errors import BadInput
from maskx_tf.masks import grabcut
from maskx_tf.masks.paste import Crop
from maskx_tf.masks.steps import NO_STEPS, MaskSteps
from maskx_tf.tasks.models import ModelOrPath, opened


class ModelMaker:
    """A model's masks of the true boxes and classes; none for classes that it does not know.

    The quality of a mask is its extent (`grabcut.extent`) times the mean probability of its cells.

    Args:
        model: an open model, or the path of one.
        class_names: the class names of the data set.
        steps: what follows the model; GrabCut in its place is `pseudo.GrabCutMaker`.

    Raises:
        BadInput: a step cannot be done, the model has no masks, or knows no class of the data.
    """

    in_threads = False

    def __init__(self, model: ModelOrPath, class_names: tuple[str, ...], steps: MaskSteps = NO_STEPS) -> None:
        self._model = opened(model, class_names)
        self.name = self._model.name
        if "masks" not in self._model.config.model.outputs:
            raise BadInput(f"{self.name}: expected a model with masks, found none")
        steps.check(self._model.config.model.outputs)
        self._steps = steps
        numbers = {name: number for number, name in enumerate(self._model.class_names, 1)}
        self._numbers = [numbers.get(name, 0) for name in class_names]
        if not any(self._numbers):
            raise BadInput(f"{self.name}: expected a class of the data, such as {class_names[0]}, found none")

    def __call__(self, pixels: NDArray[np.uint8], instances: list[Instance]) -> list[grabcut.CutTarget]:
        """A mask of each instance's box, with its quality."""
        boxes = np.array([one.box for one in instances], np.float32)
        classes = np.array([self._numbers[one.label - 1] for one in instances], np.int32)
        known = np.flatnonzero(classes)
        nothing = grabcut.CutTarget(Crop(0, 0, np.zeros([0, 0], bool)), 0.0)
        made = [nothing] * len(instances)
        if not known.size:
            return made
        masks = np.asarray(self._model.predictor.segment(pixels, boxes[known], classes[known]).masks)
        mode = self._model.config.model.detections.paste
        crops = self._steps.crops(boxes[known], masks, pixels.shape[:2], lambda: pixels, mode) or []
        for index, mask, crop in zip(known, masks, crops, strict=True):
            inside = mask >= 0.5
            confidence = float(mask[inside].mean()) if inside.any() else 0.0
            made[index] = grabcut.CutTarget(crop, grabcut.extent(crop.pixels) * confidence)
        return made
