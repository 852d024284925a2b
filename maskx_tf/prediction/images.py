"""Image in, Detections out: letterbox, model, and back to the pixels of the original."""

from __future__ import annotations

import functools
import math
import os
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from maskx_tf.config import ModelConfig
from maskx_tf.config.model import STRIDES
from maskx_tf.errors import BadInput, reason
from maskx_tf.masks.rgb import read_image, upright_rgb
from maskx_tf.models.inference import Predictor
from maskx_tf.models.rcnn import RCNN
from maskx_tf.ops import images as image_ops
from maskx_tf.structures import Detections, KeypointSet

# A file, a Pillow image, or pixels uint8 [H, W, 3] in RGB.
ImageLike = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]


class View(NamedTuple):
    """One way of looking at an image.

    Attributes:
        scale: a multiple of the configured short and long side.
        flip: mirrored left to right.
    """

    scale: float = 1.0
    flip: bool = False


def pixels_of(image: ImageLike) -> NDArray[np.uint8]:
    """The pixels of an image, uint8 [H, W, 3], whatever holds it; see `masks.rgb.upright_rgb`.

    Raises:
        BadInput: a file or a Pillow image cannot be read, or an array is not uint8 [H, W, 3].
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise BadInput(f"image: expected an array uint8 [H, W, 3], found {image.dtype} {list(image.shape)}")
        return image
    if not isinstance(image, Image.Image):
        return read_image(image)
    try:
        return upright_rgb(image)
    except Exception as error:  # the decoders raise errors of any type
        raise BadInput(f"image: {reason(error)}") from None


def keypoints_of(config: ModelConfig) -> KeypointSet:
    """The keypoints that a model knows; without names if it has none."""
    return KeypointSet.of_names(config.keypoint.names, config.keypoint.skeleton, config.keypoint.flip)


class ImagePredictor:
    """Detections of single images of any size, in NumPy and in the image's own pixels.

    Args:
        model: a model of any family.
        config: the `model` section that it was built from.
        score: detections score more than this; None stands for the model's own threshold.
    """

    def __init__(self, model: RCNN, config: ModelConfig, score: float | None = None) -> None:
        self.model = model
        self.config = config
        self.score = score
        self._predictors: dict[tuple[int, int], Predictor] = {}
        self._mirror_of = keypoints_of(config).mirror

    def __call__(self, image: NDArray[np.uint8]) -> Detections:
        """Detections of uint8 [H, W, 3]: only the valid ones, best first, in pixels of the image."""
        return self.detect_view(image, View())

    def refresh(self) -> None:
        """Updates the predictor to the model's current weights."""
        for predictor in self._predictors.values():
            predictor.refresh()

    def segment(self, image: NDArray[np.uint8], boxes: np.ndarray, classes: np.ndarray | None = None) -> Detections:
        """Masks and keypoints of boxes [N, 4] in the image's pixels, for classes [N] of 1..K or the likeliest ones."""
        found = self.segment_view(image, View(), np.asarray(boxes, np.float32), classes)
        return found._replace(boxes=np.asarray(boxes, np.float32))

    def detect_view(self, image: NDArray[np.uint8], view: View) -> Detections:
        """Returns the detections in a view; see `__call__`."""
        predictor, canvas, size = self._on_canvas(image, view)
        return self.in_image(predictor.detect(canvas, size), image, size, view)

    def features_view(self, image: NDArray[np.uint8], view: View) -> tuple[list[tf.Tensor], tf.Tensor]:
        """The features of an image in a view, and float32 [1, 2], the image's size on the canvas of the view."""
        predictor, canvas, size = self._on_canvas(image, view)
        return predictor.features(canvas, size), size

    def in_image(self, found: Detections, image: NDArray[np.uint8], size: tf.Tensor, view: View) -> Detections:
        """The valid detections of a batch of one canvas, in pixels of the image.

        Args:
            found: the detections in pixels of a view's canvas.
            image: the image.
            size: float32 [1, 2], height and width of the image on the canvas.
            view: the view in which they were found.
        """
        original = found._replace(boxes=image_ops.to_original(found.boxes, size, _original_size(image)))
        kept = found.valid[0].numpy()
        result = original.mapped(lambda array: array[0].numpy()[kept])
        if view.flip:
            result = result._replace(boxes=_mirror(result.boxes, image.shape[1]))
        return self._with_keypoints(result, image, size, view)

    def segment_view(
        self, image: NDArray[np.uint8], view: View, boxes: NDArray[np.float32], classes: np.ndarray | None
    ) -> Detections:
        """Returns the masks in a view; see `segment`."""
        predictor, canvas, size = self._on_canvas(image, view)
        # The number of boxes is a shape of the graph: rounding it up to the limit keeps few graphs.
        count, limit = len(boxes), self.config.detections.limit
        padded = max(math.ceil(count / limit), 1) * limit
        fill = ((0, padded - count), (0, 0))
        seen = np.pad(_mirror(boxes, image.shape[1]) if view.flip else boxes, fill)
        given = None if classes is None else tf.constant(np.pad(classes, fill[0])[None], tf.int32)
        in_canvas = image_ops.from_original(tf.constant(seen[None]), size, _original_size(image))
        found = predictor.segment(canvas, size, in_canvas, given)
        result = found.mapped(lambda array: array[0, :count].numpy())
        if view.flip and result.masks is not None:
            result = result._replace(masks=result.masks[:, :, ::-1])
        result = result._replace(boxes=boxes, valid=np.ones(count, bool))
        return self._with_keypoints(result, image, size, view)

    def _with_keypoints(self, found: Detections, image: np.ndarray, size: tf.Tensor, view: View) -> Detections:
        """The detections with their keypoints moved from the canvas of a view to the image, left and right as there.

        Args:
            found: keypoints [D, P, 2]; those of a class that has none are at 0, 0, and stay there.
            image: the image as it was given.
            size: float32 [1, 2], height and width of the image on the canvas.
            view: the view in which they were found.
        """
        if found.keypoints is None:
            return found
        points = image_ops.points_to_original(found.keypoints[None], size, _original_size(image))[0].numpy()
        if not view.flip:
            return found._replace(keypoints=points)
        turned = np.where(points.any(axis=2, keepdims=True), points * [-1, 1] + [image.shape[1], 0], 0.0)
        return found._replace(
            keypoints=turned[:, self._mirror_of].astype(np.float32),
            keypoint_scores=found.keypoint_scores[:, self._mirror_of],
        )

    def _on_canvas(self, image: NDArray[np.uint8], view: View) -> tuple[Predictor, tf.Tensor, tf.Tensor]:
        """The predictor of a view's canvas, the image on it, uint8 [1, H, W, 3], and its size there, float32 [1, 2]."""
        settings, step = self.config.input, STRIDES[self.config.backbone.neck]
        height, width = (math.ceil(side * view.scale / step) * step for side in settings.canvas)
        short, long = (round(side * view.scale) for side in (settings.short_side, settings.long_side))
        letterbox = letterbox_for((height, width), short, long, settings.rounding)
        pixels = image[:, ::-1] if view.flip else image
        boxed, size = letterbox(tf.constant(np.ascontiguousarray(pixels)))
        if (height, width) not in self._predictors:
            self._predictors[height, width] = Predictor(self.model, (height, width), score=self.score)
        return self._predictors[height, width], boxed[None], size[None]


@functools.cache
def letterbox_for(canvas: tuple[int, int], short: int, long: int, rounding: str) -> Any:
    """`ops.images.letterbox` with these settings, as a graph for images of any size."""
    return tf.function(
        functools.partial(image_ops.letterbox, canvas=canvas, short_side=short, long_side=long, rounding=rounding),
        input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)],
        autograph=False,
    )


def _original_size(image: np.ndarray) -> tf.Tensor:
    return tf.constant([image.shape[:2]], tf.float32)


def _mirror(boxes: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Boxes [N, 4] in the picture mirrored left to right."""
    return np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
