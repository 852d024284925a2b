"""Compiled inference: graphs for a canvas of one size, T computed once, weights optionally frozen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from maskx_tf.models.branch import Prepared
from maskx_tf.models.rcnn import RCNN
from maskx_tf.structures import Detections

Compiled = TypeVar("Compiled", Detections, list[tf.Tensor])


class Predictor:
    """A model's compiled functions for canvases of one size.

    What depends on the weights alone (`model.prepare()`, such as the filters that T makes of all classes) is computed
    once. After a change of the weights call `refresh`; until then an answer may mix old weights and new.

    Args:
        model: a model of any family.
        canvas: height and width of the images.
        score: detections score more than this; None stands for the model's own threshold.
        freeze: make the weights constants of the graph, so that TensorFlow prepares them once: a few per cent faster,
            for which the first call takes many seconds and gigabytes (docs/performance.md).
        jit: compile with XLA, for models built portable.
    """

    def __init__(
        self,
        model: RCNN,
        canvas: tuple[int, int],
        *,
        score: float | None = None,
        freeze: bool = False,
        jit: bool = False,
    ) -> None:
        self.model = model
        self.canvas = canvas
        self.score = score
        self.freeze = freeze
        self.jit = jit
        self._prepared = tf.nest.map_structure(lambda value: tf.Variable(value, trainable=False), model.prepare())
        self._graphs: dict[str, Callable[..., Any]] = {}

    def refresh(self) -> None:
        """Updates the predictor to the model's current weights."""
        tf.nest.map_structure(lambda held, value: held.assign(value), self._prepared, self.model.prepare())
        if self.freeze:
            self._graphs.clear()

    def detect(self, images: tf.Tensor, image_sizes: tf.Tensor) -> Detections:
        """Detections in canvas pixels of RGB canvases [B, H, W, 3] in 0..255 and sizes float32 [B, 2] inside them."""
        key = f"detect {images.dtype.name}"
        if key not in self._graphs:

            def run(images: tf.Tensor, sizes: tf.Tensor) -> Detections:
                return self.model.infer(images, sizes, self._read_prepared(), self.score)

            self._graphs[key] = self._compile(run, self._specs(images.dtype))
        return self._graphs[key](images, image_sizes)

    def segment(
        self, images: tf.Tensor, image_sizes: tf.Tensor, boxes: tf.Tensor, classes: tf.Tensor | None = None
    ) -> Detections:
        """Returns the branches' outputs for boxes float32 [B, N, 4] in canvas pixels; the classes may be absent."""
        model = self.model
        if not model.branches:
            raise TypeError(f"{model.name} has neither masks nor keypoints")
        count = boxes.shape[1]
        key = f"segment {images.dtype.name} {count} {classes is None}"
        if key not in self._graphs:

            def run(
                images: tf.Tensor, sizes: tf.Tensor, boxes: tf.Tensor, classes: tf.Tensor | None = None
            ) -> Detections:
                return model.segment(images, sizes, boxes, classes, self._read_prepared())

            specs = [*self._specs(images.dtype), tf.TensorSpec([None, count, 4], tf.float32)]
            given = [] if classes is None else [tf.TensorSpec([None, count], tf.int32)]
            self._graphs[key] = self._compile(run, [*specs, *given])
        return self._graphs[key](images, image_sizes, boxes, *([] if classes is None else [classes]))

    def features(self, images: tf.Tensor, image_sizes: tf.Tensor) -> list[tf.Tensor]:
        """The features that the heads read; see `RCNN.features`."""
        key = f"features {images.dtype.name}"
        if key not in self._graphs:
            self._graphs[key] = self._compile(self.model.features, self._specs(images.dtype))
        return self._graphs[key](images, image_sizes)

    def _read_prepared(self) -> tuple[Prepared, ...]:
        return tf.nest.map_structure(lambda held: held.read_value(), self._prepared)

    def _specs(self, dtype: tf.DType) -> list[tf.TensorSpec]:
        return [tf.TensorSpec([None, *self.canvas, 3], dtype), tf.TensorSpec([None, 2], tf.float32)]

    def _compile(self, function: Callable[..., Compiled], specs: list[tf.TensorSpec]) -> Callable[..., Compiled]:
        if not self.freeze:
            return tf.function(function, autograph=False, jit_compile=self.jit).get_concrete_function(*specs)
        traced = tf.function(function, autograph=False).get_concrete_function(*specs)
        structure = traced.structured_outputs
        # The loops stay functional: lowered ones could not be frozen a second time, at export.
        frozen = convert_variables_to_constants_v2(traced, lower_control_flow=False)

        def run(*arguments: object) -> Compiled:
            found = iter(frozen(*(tf.convert_to_tensor(value) for value in arguments)))
            # What the model has not, such as the masks of a detector, is a leaf of the structure and no output.
            leaves = [None if leaf is None else next(found) for leaf in tf.nest.flatten(structure)]
            return tf.nest.pack_sequence_as(structure, leaves)

        return tf.function(run, autograph=False, jit_compile=True) if self.jit else run
