"""Puts the tensors of a file into the variables of a model; each tensor is used exactly once, each variable set.

A layout leads from PyTorch's or Caffe2's tensor to ours, and from the shape of our variable to the one that the file
must have, so that an error can speak the file's language.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from maskx_tf.checkpoints.variables import named
from maskx_tf.errors import BadInput, listed

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


class Assignment(NamedTuple):
    """A variable and the tensor that it is made of.

    Attributes:
        variable: its name.
        tensor: name in the file.
        layout: how one becomes the other.
        leaves: why rows of the tensor are left out; empty if none are.
    """

    variable: str
    tensor: str
    layout: Layout
    leaves: str = ""


class VariableTable(NamedTuple):
    """Where everything comes from.

    Attributes:
        entries: variables made of tensors.
        constants: variables that the file has no tensor for, because its program folded them away, and their value.
    """

    entries: tuple[Assignment, ...]
    constants: Mapping[str, float] = {}


class Rule(NamedTuple):
    """Tensors that are left out, and why.

    Attributes:
        pattern: a pattern for the whole name.
        reason: the rule's name in the summary.
    """

    pattern: str
    reason: str


class Filled(NamedTuple):
    """How a file's tensors were used.

    Attributes:
        used: names of the tensors that variables are made of.
        skipped: names of those left out in whole or in part, by rule.
        fresh: names of the variables that keep their random start.
    """

    used: tuple[str, ...]
    skipped: dict[str, list[str]]
    fresh: tuple[str, ...]


def fill(
    model: keras.Model,
    tensors: Mapping[str, np.ndarray],
    table: VariableTable,
    rules: Sequence[Rule],
    *,
    path: Path,
    may_stay: Sequence[str] = (),
) -> Filled:
    """Sets every variable of a model.

    Args:
        model: a built model.
        tensors: the tensors of the file, by name.
        table: which tensor goes into which variable.
        rules: the rules for tensors that the table does not name.
        path: the path of the file, for messages.
        may_stay: starts of names of variables that may keep their random start where the file has no tensor for them.

    Raises:
        BadInput: naming the tensors that are missing, left over, of a wrong shape or type, or not finite.
    """
    variables = named(model)
    entries = [entry for entry in table.entries if entry.tensor in tensors or not _starts(entry.variable, may_stay)]
    _refuse_missing(path, "tensor", {entry.tensor for entry in entries} - set(tensors))
    skipped = _skip(set(tensors) - {entry.tensor for entry in entries}, rules, path)
    set_ones = {entry.variable for entry in entries} | set(table.constants)
    fresh = set(variables) - set_ones
    if set_ones - set(variables):
        homeless = listed(set_ones - set(variables))
        raise BadInput(f"{path}: has what belongs into {homeless}, which a model with these settings does not have")
    _refuse_missing(path, "tensor for", {name for name in fresh if not _starts(name, may_stay)})
    for entry in entries:
        variables[entry.variable].assign(_converted(entry, tensors[entry.tensor], variables[entry.variable], path))
        if entry.leaves:
            skipped.setdefault(entry.leaves, []).append(entry.tensor)
    for name, value in table.constants.items():
        variables[name].assign(np.full(variables[name].shape, value, np.float32))
    return Filled(tuple(entry.tensor for entry in entries), skipped, tuple(sorted(fresh)))


def _starts(name: str, starts: Iterable[str]) -> bool:
    return name.startswith(tuple(starts))


def _refuse_missing(path: Path, what: str, names: set[str]) -> None:
    if names:
        raise BadInput(f"{path}: expected a {what} {listed(names)}, found none")


def _skip(names: set[str], rules: Sequence[Rule], path: Path) -> dict[str, list[str]]:
    """Names by the rule that leaves them out."""
    skipped: dict[str, list[str]] = {}
    unknown = []
    for name in sorted(names):
        rule = next((rule for rule in rules if re.fullmatch(rule.pattern, name)), None)
        if rule is None:
            unknown.append(name)
        else:
            skipped.setdefault(rule.reason, []).append(name)
    if unknown:
        raise BadInput(f"{path}: holds {listed(unknown)}, for which this model has no place")
    return skipped


def _converted(entry: Assignment, tensor: np.ndarray, variable: Any, path: Path) -> np.ndarray:
    expected = entry.layout.expected(tuple(variable.shape))
    where = f"{path}: {entry.tensor}"
    if tensor.shape != expected:
        raise BadInput(f"{where}: expected shape {list(expected)}, found {list(tensor.shape)}")
    if not np.issubdtype(tensor.dtype, np.floating):
        raise BadInput(f"{where}: expected floating point numbers, found {tensor.dtype}")
    if not np.isfinite(tensor).all():
        raise BadInput(f"{where}: expected finite numbers, found {tensor[~np.isfinite(tensor)][0]}")
    return entry.layout.convert(tensor).astype(np.float32)
