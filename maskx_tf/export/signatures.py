"""The entry points of an export: image files, pixels, or files and boxes in; detections in original images out.

Names are those of TensorFlow's Object Detection API. Boxes are normalised (ymin, xmin, ymax, xmax) of the image as
people see it, upright; classes are the ids of the data set; masks are those of the predicted class, stretched over
their boxes, in 256 grey levels; keypoints are normalised (y, x), and zeros for classes that have none. Entries beyond
`num_detections` are zero.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from maskx_tf.config import ModelConfig
from maskx_tf.export import decode
from maskx_tf.export.decode import Canvases
from maskx_tf.export.freeze import as_constants
from maskx_tf.files import Json
from maskx_tf.models.branch import Scene
from maskx_tf.models.rcnn import RCNN
from maskx_tf.ops import boxes as box_ops
from maskx_tf.ops import images as image_ops
from maskx_tf.protocol.messages import IMAGE_TENSOR, SEGMENT_BOXES, SERVING_DEFAULT
from maskx_tf.structures import ADDED_FIELDS, PASTE_MODES, Detections

# The most boxes of an image that segment_boxes takes: the detector itself uses a thousand regions.
MAX_BOXES = 1000
BAD_BOXES = "bad_boxes: expected finite numbers"
Outputs = dict[str, tf.Tensor]


class Labels(NamedTuple):
    """The names and ids that callers see, in the order of the class indices 1..K.

    Attributes:
        ids: the ids of the data set.
        names: the names of the classes.
    """

    ids: Sequence[int]
    names: Sequence[str]


class Signatures(tf.Module):
    """The entry points of one model, as functions to be saved.

    Args:
        model: the model. Its weights stay variables: constants would take three times the memory at the first call.
        config: the configuration from which it was built.
        labels: the labels of its classes.
        max_pixels: image files that hold more are refused.
    """

    def __init__(self, model: RCNN, config: ModelConfig, labels: Labels, *, max_pixels: int) -> None:
        super().__init__()
        # An attribute, so that they are saved: TensorFlow's variables. Of Keras' ones, copies would be saved, and TF
        # Serving would not find the variables that the functions read.
        self.weights = [variable.value for variable in model.variables]
        self._network = _Network(model, config.input.canvas, config.detections.limit)
        self._labels = labels
        self._paste = float(PASTE_MODES.index(config.detections.paste))
        settings = config.input
        letterbox = functools.partial(
            image_ops.letterbox,
            canvas=settings.canvas,
            short_side=settings.short_side,
            long_side=settings.long_side,
            rounding=settings.rounding,
        )
        options: Json = {"letterbox": letterbox, "canvas": settings.canvas}
        self._from_files: Any = functools.partial(decode.from_files, max_pixels=max_pixels, **options)
        self._from_pixels: Any = functools.partial(decode.from_pixels, **options)

    def functions(self, names: Sequence[str]) -> Json:
        """The entry points of these names, traced."""
        files = tf.TensorSpec([None], tf.string, "image_bytes")
        pixels = tf.TensorSpec([None, None, None, 3], tf.uint8, "input_tensor")
        boxes = tf.TensorSpec([None, None, 4], tf.float32, "boxes")
        every: dict[str, tuple[Callable[..., Outputs], list[tf.TensorSpec]]] = {
            SERVING_DEFAULT: (self._detect_files, [files]),
            IMAGE_TENSOR: (self._detect_pixels, [pixels]),
            SEGMENT_BOXES: (self._segment, [files, boxes]),
        }
        return {name: _traced(function, *specs) for name, (function, specs) in every.items() if name in names}

    def _detect_files(self, image_bytes: tf.Tensor) -> Outputs:
        return self._detect(self._from_files(_some(image_bytes, "image_bytes")))

    def _detect_pixels(self, input_tensor: tf.Tensor) -> Outputs:
        return self._detect(self._from_pixels(_some(input_tensor, "input_tensor")))

    def _detect(self, canvases: Canvases) -> Outputs:
        found = self._network.detect(canvases.pixels, canvases.sizes)
        return self._outputs(found, canvases, box_ops.normalise(found.boxes, *_sides(canvases)))

    def _segment(self, image_bytes: tf.Tensor, boxes: tf.Tensor) -> Outputs:
        shape = tf.shape(boxes)
        tf.debugging.Assert(shape[0] == tf.size(image_bytes), ["boxes: expected as many rows as images"])
        tf.debugging.Assert(shape[1] <= MAX_BOXES, [f"boxes: expected at most {MAX_BOXES} an image"])
        canvases = self._from_files(_some(image_bytes, "image_bytes"))
        finite = tf.reduce_all(tf.math.is_finite(boxes), axis=[1, 2])
        status = tf.where((canvases.status == decode.OK) & ~finite, BAD_BOXES, canvases.status)
        inside = tf.where(finite[:, None, None], tf.clip_by_value(boxes, 0.0, 1.0), 0.0)
        in_canvas = box_ops.denormalise(box_ops.swap_xy(inside), *_sides(canvases))
        found = self._network.segment(canvases.pixels, canvases.sizes, in_canvas)
        return self._outputs(found, canvases._replace(status=status), box_ops.swap_xy(inside))

    def _outputs(self, found: Detections, canvases: Canvases, boxes: tf.Tensor) -> Outputs:
        """Returns the outputs of a signature; boxes are the detections', normalised."""
        read = canvases.status == decode.OK
        valid = found.valid & read[:, None]
        classes = tf.where(valid, found.classes, 0)
        paste = tf.fill(tf.shape(canvases.sizes[:, :1]), self._paste)
        outputs = {
            "detection_boxes": tf.where(valid[..., None], box_ops.swap_xy(boxes), 0.0),
            "detection_scores": tf.where(valid, found.scores, 0.0),
            "detection_classes": tf.gather(tf.constant([0, *self._labels.ids], tf.int32), classes),
            "detection_class_names": tf.gather(tf.constant(["", *self._labels.names]), classes),
            "num_detections": tf.reduce_sum(tf.cast(valid, tf.int32), axis=1),
            "image_info": tf.concat([canvases.original_sizes, canvases.sizes, paste], axis=1),
            "image_status": canvases.status,
        }
        if found.masks is not None:
            levels = tf.cast(tf.round(255.0 * found.masks), tf.uint8)
            outputs["detection_masks"] = tf.where(valid[..., None, None], levels, tf.zeros_like(levels))
        if found.keypoints is not None:
            places = tf.reverse(found.keypoints / canvases.sizes[:, None, None, ::-1], [-1])
            outputs["detection_keypoints"] = tf.where(valid[..., None, None], places, 0.0)
            outputs["detection_keypoint_scores"] = tf.where(valid[..., None], found.keypoint_scores, 0.0)
        return outputs


class _Network:
    """The model in pieces that are traced once, so that entry points share what they have in common.

    Args:
        model: a model of any family.
        canvas: height and width of its input.
        part: how many given boxes are segmented at a time, because layers know their number when they are traced.
    """

    def __init__(self, model: RCNN, canvas: tuple[int, int], part: int) -> None:
        self._part = part
        images, sizes = tf.TensorSpec([None, *canvas, 3], tf.uint8), tf.TensorSpec([None, 2])
        self._features = _traced(lambda images, sizes: model.features(images, sizes), images, sizes)
        features = _specs(self._features)
        scene = Scene(images, sizes, features)
        # Without fields that are None, which would count as values. Masks are there where the detector draws them.
        self._detect = _traced(lambda scene: tuple(part for part in model.detect(scene) if part is not None), scene)
        self._added = tuple(name for name in ADDED_FIELDS if name in model.outputs)
        if not self._added:
            return
        boxes, classes = tf.TensorSpec([None, part, 4]), tf.TensorSpec([None, part], tf.int32)
        prepared = as_constants(model.prepare())
        self._classify = _traced(lambda scene, boxes: model.box.classify(scene, boxes), scene, boxes)

        def add(scene: Scene, boxes: tf.Tensor, classes: tf.Tensor) -> tuple[tf.Tensor, ...]:
            found = model.complete(scene, Detections(boxes, None, classes, None), prepared)
            return tuple(getattr(found, name) for name in self._added)

        self._add = _traced(add, scene, boxes, classes)

    def detect(self, images: tf.Tensor, sizes: tf.Tensor) -> Detections:
        scene = self._scene(images, sizes)
        found = Detections(*self._detect(scene))
        if found.masks is not None or not self._added:
            return found
        return found._replace(**dict(zip(self._added, self._add(scene, found.boxes, found.classes), strict=True)))

    def _scene(self, images: tf.Tensor, sizes: tf.Tensor) -> Scene:
        return Scene(images, sizes, self._features(images, sizes))

    def segment(self, images: tf.Tensor, sizes: tf.Tensor, boxes: tf.Tensor) -> Detections:
        scene = self._scene(images, sizes)

        def segment_part(boxes: tf.Tensor) -> tuple[tf.Tensor, ...]:
            classes, scores = self._classify(scene, boxes)
            return scores, classes, *self._add(scene, boxes, classes)

        batch, count = tf.shape(boxes)[0], tf.shape(boxes)[1]
        parts = tf.maximum(-(-count // self._part), 1)
        padded = tf.pad(boxes, [[0, 0], [0, parts * self._part - count], [0, 0]])
        stacked = tf.reshape(padded, tf.stack([batch, parts, self._part, 4]))
        each = [(tf.float32, []), (tf.int32, []), *((one.dtype, one.shape[2:]) for one in _specs(self._add))]
        found = tf.map_fn(
            segment_part,
            tf.transpose(stacked, [1, 0, 2, 3]),
            fn_output_signature=tuple(tf.TensorSpec([None, self._part, *rest], dtype) for dtype, rest in each),
        )
        joined = []
        for values, (_, rest) in zip(found, each, strict=True):  # [parts, B, part, ...]
            together = tf.transpose(values, [1, 0, *range(2, 3 + len(rest))])
            joined.append(tf.reshape(together, [batch, parts * self._part, *rest])[:, :count])
        scores, classes, *added = joined
        found = Detections(boxes, scores, classes, tf.ones_like(classes, tf.bool))
        return found._replace(**dict(zip(self._added, added, strict=True)))


def _traced(function: Callable[..., Any], *specs: Any) -> Any:
    """The function for arguments of these specs, traced now."""
    return tf.function(function, autograph=False).get_concrete_function(*specs)


def _specs(traced: Any) -> Any:
    """Returns the output specs of a traced function, for a function that takes its outputs."""
    return tf.nest.map_structure(tf.TensorSpec.from_tensor, traced.structured_outputs)


def _some(images: tf.Tensor, name: str) -> tf.Tensor:
    """Returns the images; fails clearly for an empty batch, where some kernels fail with obscure errors."""
    check = tf.debugging.Assert(tf.shape(images)[0] > 0, [f"{name}: expected at least one image"])
    with tf.control_dependencies([check]):
        return tf.identity(images)


def _sides(canvases: Canvases) -> tuple[tf.Tensor, tf.Tensor]:
    """Height and width inside the canvas, for boxes [B, N, 4]."""
    return canvases.sizes[:, None, 0], canvases.sizes[:, None, 1]
