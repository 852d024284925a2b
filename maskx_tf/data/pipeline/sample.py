"""One image and its instances as tensors, on their way into a batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import tensorflow as tf

from maskx_tf.ops import boxes as box_ops
from maskx_tf.ops import masks as mask_ops
from maskx_tf.structures import MASK_SIDE, VALID, Field

MIN_SIDE = 1.0  # pixels; an instance with a shorter side is not used


@dataclass(frozen=True)
class Sample:
    """One image and its G instances, some of which may be padding.

    Attributes:
        image: [h, w, 3] in 0..255, uint8 or float32.
        fields: what is said of an instance: VALID, and those of the data set with their flags.
        values: the values by name of the field, [G, *shape]; zeros where not valid or not known.
    """

    image: tf.Tensor
    fields: tuple[Field, ...]
    values: Mapping[str, tf.Tensor]

    def __getitem__(self, name: str) -> tf.Tensor:
        return self.values[name]

    def with_image(self, image: tf.Tensor) -> Sample:
        """The sample with another image."""
        return dataclasses.replace(self, image=image)

    def with_values(self, **values: tf.Tensor) -> Sample:
        """The sample with other values of some fields."""
        return dataclasses.replace(self, values={**self.values, **values})

    def mapped(self, change: Callable[[Field, tf.Tensor], tf.Tensor]) -> Sample:
        """The sample with each value changed by a function of its field and itself."""
        return self.with_values(**{field.name: change(field, self[field.name]) for field in self.fields})

    # With these two, `tf.nest` and so `tf.cond` take a Sample for a structure of its tensors.
    def __tf_flatten__(self) -> tuple[tuple[Field, ...], tuple[tf.Tensor, dict[str, tf.Tensor]]]:
        return self.fields, (self.image, dict(self.values))

    @classmethod
    def __tf_unflatten__(cls, fields: tuple[Field, ...], tensors: tuple[tf.Tensor, dict[str, tf.Tensor]]) -> Sample:
        return cls(tensors[0], fields, tensors[1])


def as_sample(image: tf.Tensor, fields: Sequence[Field], values: Mapping[str, tf.Tensor]) -> Sample:
    """Tensors of unknown shape as a Sample whose instances are all valid.

    Args:
        image: uint8 [h, w, 3].
        fields: the fields of the data set, with their flags.
        values: the values of these fields, by name.
    """
    shaped = {field.name: tf.ensure_shape(values[field.name], [None, *field.shape]) for field in fields}
    valid = tf.ones_like(shaped["classes"], tf.bool)
    return Sample(tf.ensure_shape(image, [None, None, 3]), (VALID, *fields), {"valid": valid, **shaped})


def blank(canvas: tuple[int, int], fields: Sequence[Field], limit: int) -> Sample:
    """A black image with `limit` places for instances, none of which is valid; `fields` as in `as_sample`."""
    every = (VALID, *fields)
    values = {field.name: tf.zeros([limit, *field.shape], field.dtype) for field in every}
    return Sample(tf.zeros([*canvas, 3], tf.uint8), every, values)


def drop_tiny(sample: Sample) -> Sample:
    """Without the instances that are less than MIN_SIDE pixels wide or high."""
    width, height = box_ops.sides(sample["boxes"])
    return tidy(sample.with_values(valid=sample["valid"] & (tf.minimum(width, height) >= MIN_SIDE)))


def first(sample: Sample, limit: int) -> Sample:
    """Returns the first instances, as many as fit into a batch."""
    return sample.mapped(lambda _, value: value[:limit])


def pad(sample: Sample, limit: int) -> Sample:
    """The valid instances, at most `limit`, in their order, and padding up to it."""

    def fill(field: Field, value: tf.Tensor) -> tf.Tensor:
        kept = tf.boolean_mask(value, sample["valid"])[:limit]
        padded = tf.pad(kept, [[0, limit - tf.shape(kept)[0]], *([[0, 0]] * len(field.shape))])
        return tf.ensure_shape(padded, [limit, *field.shape])

    return sample.mapped(fill)


def grids_of(masks: tf.Tensor) -> tf.Tensor:
    """Packed masks as bool [G, S, S]."""
    return tf.reshape(mask_ops.unpack_bits(masks), [-1, MASK_SIDE, MASK_SIDE])


def tidy(sample: Sample) -> Sample:
    """Zeros in whatever is not valid or not known, and in points that are not there."""

    def cleared(field: Field, value: tf.Tensor) -> tf.Tensor:
        kept = sample["valid"] & sample[field.flag] if field.flag else sample["valid"]
        kept = tf.reshape(kept, [-1, *([1] * len(field.shape))])
        if field.kind == "points":
            kept &= value[..., 2:] != 0.0
        return tf.where(kept, value, tf.zeros([], value.dtype))

    return sample.mapped(cleared)
