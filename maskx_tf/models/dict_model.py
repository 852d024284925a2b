"""Makes Keras' own methods accept batches that are dicts, on canvases of several sizes.

Unsupported arguments of Keras are refused, with a message that names what to use instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from maskx_tf.layers.parts import LayerConfig

Batch = dict[str, tf.Tensor]
LeafShape = tuple[int | None, ...] | None

LOSSES = "the losses are means over regions; compile(loss_weights={name: weight}) weights them"
REFUSED = {
    "y": "a batch is one dict with the images and what is true of them (docs/pipeline.md)",
    "sample_weight": LOSSES,
    "class_weight": LOSSES,
    "loss": "the model computes its own losses; loss_weights={name: weight} weights them",
    "metrics": "the model reports its losses; maskx eval measures average precision",
    "weighted_metrics": "the model reports its losses; maskx eval measures average precision",
}
NO_CONFIG = (
    "a model that `build` did not make has no Keras config, which keras.Model.save and clone_model need: "
    "maskx_tf.checkpoints.io.save writes a model folder, maskx_tf.load reads it; model.save_weights writes the weights"
)
NO_EXPORT = (
    "model.export is not supported: write a model folder with maskx_tf.checkpoints.io.save, then a SavedModel of it "
    "with maskx_tf.export_saved_model, or use maskx export litert"
)


class DictModel(keras.Model):
    """A Keras model whose batches are dicts.

    `fit` and its relatives take one dict, or a data set, a generator or a `keras.utils.PyDataset` of dicts or of
    tuples (dict,). A graph is traced for each canvas size, because the layers need static sizes.
    """

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        policy = self.dtype_policy
        if policy.variable_dtype != "float32":
            raise ValueError(
                f"dtype policy: expected float32, mixed_float16 or mixed_bfloat16, which keep weights in float32, "
                f"found {policy.name}"
            )
        self.supports_jit = False  # Keras would choose XLA on a GPU; `Learning.jit` does, for models built portable

    def fit(
        self,
        x: object = None,
        y: object = None,
        *args: object,
        sample_weight: object = None,
        class_weight: object = None,
        **kwargs: object,
    ) -> Any:
        refuse(y=y, sample_weight=sample_weight, class_weight=class_weight)
        _, val_y, val_weight = keras.utils.unpack_x_y_sample_weight(kwargs.get("validation_data"))
        refuse(y=val_y, sample_weight=val_weight)
        return super().fit(x, None, *args, **kwargs)

    def evaluate(
        self, x: object = None, y: object = None, *args: object, sample_weight: object = None, **kwargs: object
    ) -> Any:
        refuse(y=y, sample_weight=sample_weight)
        return super().evaluate(x, None, *args, **kwargs)

    def train_on_batch(
        self,
        x: object,
        y: object = None,
        sample_weight: object = None,
        class_weight: object = None,
        return_dict: bool = False,
    ) -> Any:
        refuse(y=y, sample_weight=sample_weight, class_weight=class_weight)
        return super().train_on_batch(x, return_dict=return_dict)

    def make_train_function(self, force: bool = False) -> None:
        self._make_for_each_shape("train_function", super().make_train_function, force)

    def make_test_function(self, force: bool = False) -> None:
        self._make_for_each_shape("test_function", super().make_test_function, force)

    def make_predict_function(self, force: bool = False) -> None:
        self._make_for_each_shape("predict_function", super().make_predict_function, force)

    def _make_for_each_shape(self, name: str, make: Callable[..., None], force: bool) -> None:
        """Makes Keras build another function for each shape of a batch, apart from the number of images.

        Keras' own function forgets static shapes as soon as it has seen two.

        Args:
            name: of the attribute that holds the function.
            make: sets this attribute to Keras' own function.
            force: whether to replace a function that exists.
        """
        if not force and getattr(self, name) is not None:
            return
        functions: dict[tuple[LeafShape, ...], Callable[[Any], Any]] = {}

        def run(source: Any, shapes: tuple[LeafShape, ...]) -> Any:
            if shapes not in functions:
                make(force=True)
                functions[shapes] = getattr(self, name)
                setattr(self, name, choose)
            return functions[shapes](source)

        def choose(source: Any) -> Any:
            if isinstance(source, list):  # `predict` gives batches
                return run(source, shapes_of(source))
            spec = getattr(source, "element_spec", None)
            if spec is not None and is_static(shapes_of(spec)):
                return run(source, shapes_of(spec))
            # Only the batches themselves have static shapes.
            outputs = None
            for _, batch in zip(range(self.steps_per_execution), source, strict=False):
                outputs = run(iter([batch]), shapes_of(batch))
            if outputs is None:
                raise StopIteration
            return outputs

        setattr(self, name, choose)

    def get_config(self) -> LayerConfig:
        raise NotImplementedError(NO_CONFIG)

    @classmethod
    def from_config(cls, config: LayerConfig, custom_objects: object = None) -> Any:
        del config, custom_objects
        raise NotImplementedError(NO_CONFIG)

    def save(self, *args: object, **kwargs: object) -> None:
        del args, kwargs
        raise NotImplementedError(NO_CONFIG)  # before Keras writes a part of a file

    def export(self, *args: object, **kwargs: object) -> None:
        del args, kwargs
        raise NotImplementedError(NO_EXPORT)


def refuse(**arguments: object) -> None:
    """Refuses arguments of Keras' methods that were given.

    Raises:
        ValueError: see above.
    """
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(f"{name} is not supported: {REFUSED[name]}")


def batch_of(data: object) -> Batch:
    """The dict of a batch, as any of Keras' methods hands it to a step.

    Raises:
        ValueError: there is more than a dict, or none.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    refuse(y=y, sample_weight=sample_weight)
    if not isinstance(x, Mapping):
        raise ValueError(f"expected a batch that is a dict of tensors (docs/pipeline.md), found {type(x).__name__}")
    return {name: tf.convert_to_tensor(value) for name, value in x.items()}


def shapes_of(batch: Any) -> tuple[LeafShape, ...]:
    """The static shapes in a batch, or in its specification, each without its first dimension."""
    shapes = [
        tf.TensorShape(leaf.shape) for leaf in tf.nest.flatten(batch, expand_composites=True) if hasattr(leaf, "shape")
    ]
    return tuple(None if shape.rank is None else tuple(shape.as_list()[1:]) for shape in shapes)


def is_static(shapes: tuple[LeafShape, ...]) -> bool:
    """Whether all of them are known."""
    return all(shape is not None and None not in shape for shape in shapes)
