"""Mask^X R-CNN: mask weights made of box weights, so that classes without masks get them too (Hu et al. 2018)."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from maskx_tf.models.mask_rcnn import MaskRCNN

INPUTS = ("cls", "box", "cls_box")


class MaskXRCNN(MaskRCNN):
    """Mask R-CNN whose mask filters come out of the transfer function T.

    The embedding of a class is its rows of the box predictor, without biases: what the detector learned of the class
    from boxes alone. T is the same for all classes and learns from those that have masks.

    Args:
        transfer: T, embeddings to filters.
        input: "cls" (F numbers a class), "box" (4 F) or "cls_box" (5 F, cls first).
        stop_gradient: keep the mask loss out of the rows that T reads.
        **kwargs: see `MaskRCNN`.
    """

    def __init__(
        self, *, transfer: keras.layers.Layer, input: str = "cls_box", stop_gradient: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if input not in INPUTS:
            raise ValueError(f"input is {input!r}, expected one of {', '.join(INPUTS)}")
        self.transfer = transfer
        self.input_parts = input.split("_")
        self.stop_gradient = stop_gradient

    def mask_layers(self) -> list[keras.layers.Layer]:
        return [self.mask_head, self.transfer]

    def embeddings(self) -> tf.Tensor:
        """What T reads: float32 [K, size], a row for each foreground class."""
        rows = []
        if "cls" in self.input_parts:
            rows.append(self.box_predictor.class_rows[1:])
        if "box" in self.input_parts:
            rows.append(tf.reshape(self.box_predictor.box_rows, [self.box_predictor.classes, -1]))
        embeddings = tf.concat(rows, axis=1)
        return tf.stop_gradient(embeddings) if self.stop_gradient else embeddings

    def constants(self) -> tuple[tf.Tensor, ...]:
        """The filters of all foreground classes, float32 [K, C]."""
        return (self.transfer(self.embeddings()),)

    def mask_logits(self, pooled: tf.Tensor, classes: tf.Tensor, constants: tuple[tf.Tensor, ...]) -> tf.Tensor:
        (filters,) = constants
        return self.mask_head(pooled, tf.gather(filters, tf.maximum(classes - 1, 0)))


class TableMaskXRCNN(MaskXRCNN):
    """Mask^X R-CNN whose T reads a fixed table, such as word vectors, instead of the detector (table 1a).

    Args:
        table: float32 [K, size], a row for each foreground class; never learns.
        **kwargs: see `MaskXRCNN`.
    """

    def __init__(self, *, table: keras.Variable, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = table

    def embeddings(self) -> tf.Tensor:
        return tf.convert_to_tensor(self.table)
