"""Where the mask filters of a class come from when the mask head has none: the transfer function T (Hu et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import keras
import tensorflow as tf

INPUTS = ("cls", "box", "cls_box")


class Embeddings(Protocol):
    """The input of T: a vector for each class."""

    def rows(self) -> tf.Tensor:
        """float32 [K, size], a row for each foreground class."""
        ...


@dataclass(eq=False)
class BoxWeights:
    """The rows of the box predictor, without biases: what the detector learned of a class from boxes alone.

    Attributes:
        predictor: a `BoxPredictor`.
        input: "cls" (F numbers a class), "box" (4 F) or "cls_box" (5 F, cls first).
        stop_gradient: keep the mask loss out of these rows.
    """

    predictor: keras.layers.Layer
    input: str = "cls_box"
    stop_gradient: bool = True

    def __post_init__(self) -> None:
        if self.input not in INPUTS:
            raise ValueError(f"input is {self.input!r}, expected one of {', '.join(INPUTS)}")

    def rows(self) -> tf.Tensor:
        parts = []
        if "cls" in self.input:
            parts.append(self.predictor.class_rows[1:])
        if "box" in self.input:
            parts.append(tf.reshape(self.predictor.box_rows, [self.predictor.classes, -1]))
        rows = tf.concat(parts, axis=1)
        return tf.stop_gradient(rows) if self.stop_gradient else rows


@dataclass(eq=False)
class Table:
    """A fixed table, such as word vectors, in the detector's place (table 1a).

    Attributes:
        table: float32 [K, size], a row for each foreground class; never learns.
    """

    table: keras.Variable

    def rows(self) -> tf.Tensor:
        return tf.convert_to_tensor(self.table)


@dataclass(eq=False)
class TransferredFilters:
    """The filters that T makes of what it reads of each class; T is the same for all classes.

    Attributes:
        transfer: T, embeddings to filters.
        embeddings: what T reads.
    """

    transfer: keras.layers.Layer
    embeddings: Embeddings

    def all(self) -> tf.Tensor:
        """float32 [K, C], a filter for each foreground class."""
        return self.transfer(self.embeddings.rows())
