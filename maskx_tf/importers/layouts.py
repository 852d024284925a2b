"""From the layouts of PyTorch and Caffe2 to ours, tensor by tensor.

A layout knows both ways: what to do with the array, and which shape the file must have for a variable of ours, so
that an error can speak the file's language.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

ArrayShape = tuple[int, ...]


class Layout(NamedTuple):
    """How a tensor of a file becomes a variable.

    Attributes:
        convert: the file's array to ours.
        expected: the shape of our variable to the shape in the file.
    """

    convert: Callable[[np.ndarray], np.ndarray]
    expected: Callable[[ArrayShape], ArrayShape]


UNCHANGED = Layout(lambda array: array, lambda shape: shape)
# OIHW to HWIO, groups included.
CONV = Layout(lambda array: array.transpose(2, 3, 1, 0), lambda s: (s[3], s[2], s[0], s[1]))
# (in, out, h, w) to (in, h, w, out), without a flip: what each input pixel adds to its block of output pixels.
DECONV = Layout(lambda array: array.transpose(0, 2, 3, 1), lambda s: (s[0], s[3], s[1], s[2]))
DENSE = Layout(lambda array: array.T, lambda s: (s[1], s[0]))


def dense_on_map(side: int) -> Layout:
    """A fully connected layer on a flattened map [side, side, C]: there channels vary slowest, here fastest."""

    def convert(array: np.ndarray) -> np.ndarray:
        outputs = len(array)
        return array.reshape(outputs, -1, side, side).transpose(2, 3, 1, 0).reshape(-1, outputs)

    return Layout(convert, DENSE.expected)


def rows(order: Sequence[int], total: int, *, each: int = 1) -> Layout:
    """Chosen rows of a tensor that has one for every class of the file.

    Args:
        order: for each row of ours, the class in the file.
        total: the classes in the file, background included where it has rows.
        each: how many rows a class has: 4 where they are boxes.
    """
    index = list(order)

    def convert(array: np.ndarray) -> np.ndarray:
        grouped = array.reshape(total, each, *array.shape[1:]) if each > 1 else array
        return grouped[index]

    def expected(shape: ArrayShape) -> ArrayShape:
        return (total * each, *shape[2:]) if each > 1 else (total, *shape[1:])

    return Layout(convert, expected)


def filters(order: Sequence[int], total: int) -> Layout:
    """Chosen filters of a 1x1 convolution with one output a class: [total, C, 1, 1] to [K, C]."""
    chosen = rows(order, total)
    return Layout(lambda array: chosen.convert(array)[:, :, 0, 0], lambda shape: (total, shape[1], 1, 1))
