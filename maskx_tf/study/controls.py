"""Replaces the input of T by controls: a gain that also occurs with these does not come from the detector's rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskx_tf import files
from maskx_tf.checkpoints import folder, npz


def make(kind: str, detector: Path, seed: int, unit_rms: bool) -> NDArray[np.float32]:
    """The table of a control, a row for each foreground class, as large as the detector's.

    Args:
        kind: random: Gaussian rows of the same root mean square as the detector's; constant: one such row for all;
            shuffled: the detector's own rows, each class with those of another.
        detector: a run or model folder.
        seed: the seed of the draws.
        unit_rms: scale each part (cls, box) to a root mean square of one, as T does with rows of the detector: of a
            table it does not know the parts.
    """
    with npz.reading(folder.find(detector) / folder.WEIGHTS) as archive:
        rows = archive.read("box_predictor/class_rows")[1:]
        boxes = archive.read("box_predictor/box_rows").reshape(len(rows), -1)
    parts = [part / _rms(part) for part in (rows, boxes)] if unit_rms else [rows, boxes]
    own = np.concatenate(parts, axis=1).astype(np.float32)
    generator = np.random.default_rng(seed)
    if kind == "shuffled":
        return own[derangement(len(own), generator)]
    if kind == "constant":
        row = generator.standard_normal(own.shape[1]) * _rms(own).mean()
        return np.broadcast_to(row, own.shape).astype(np.float32)
    return (generator.standard_normal(own.shape) * _rms(own)).astype(np.float32)


def write(path: Path, table: NDArray[np.float32]) -> None:
    """Writes a table as a model reads it."""
    with files.new_file(path) as unfinished, unfinished.open("wb") as file:
        np.save(file, table)


def derangement(count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Returns a random permutation without fixed points, all equally likely."""
    if count < 2:
        raise ValueError(f"{count} cannot change places")
    while True:  # one in e is such
        order = generator.permutation(count)
        if not (order == np.arange(count)).any():
            return order


def _rms(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The root mean square of each row, [K, 1]."""
    return np.sqrt(np.mean(np.square(rows), axis=1, keepdims=True)) + 1e-12
