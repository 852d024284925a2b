"""Draws a map of the classes by the vectors that T reads: similar classes lie close together."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskx_tf.checkpoints import folder, npz


class Map(NamedTuple):
    """The classes of a model in two dimensions.

    Attributes:
        names: the names of the K classes.
        places: float64 [K, 2].
        share: the share of the variance that the two dimensions hold, 0..1.
        source: what was mapped.
    """

    names: tuple[str, ...]
    places: NDArray[np.float64]
    share: float
    source: str


def of_model(path: Path) -> Map | None:
    """The map of a model folder or of the model in a run folder; None where T reads nothing, or too few classes.

    Only the rows are read, not the whole of the weights.

    Raises:
        BadInput: there is no model, or it is damaged.
    """
    config, _ = folder.open_config(path)
    names = config.model.class_names
    if not config.model.has_transfer or len(names) < 3:
        return None
    reads = config.model.transfer.input
    with npz.reading(folder.find(path) / folder.WEIGHTS) as archive:
        if reads == "embedding":
            rows, source = archive.read(folder.TABLE), "a fixed table"
        elif reads == "box":
            rows, source = archive.read("box_predictor/box_rows"), "box rows"
        else:
            rows, source = archive.read("box_predictor/class_rows")[1:], "class rows"
            if reads == "cls_box":
                boxes = archive.read("box_predictor/box_rows").reshape(len(names), -1)
                rows, source = np.concatenate([_unit(rows), _unit(boxes)], axis=1), "class and box rows"
    places, share = principal(_unit(rows.reshape(len(names), -1)))
    return Map(names, places, share, source)


def _unit(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows of length one: directions count, and rare classes have short rows."""
    rows = rows.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def principal(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """The two directions of most variance of rows [K, size]: [K, 2], and their share of it."""
    centred = rows - rows.mean(axis=0)
    left, strengths, _ = np.linalg.svd(centred, full_matrices=False)
    places = left[:, :2] * strengths[:2]
    # A singular vector may point either way: its largest entry is made positive.
    signs = np.sign(places[np.abs(places).argmax(axis=0), [0, 1]])
    total = float((strengths**2).sum())
    return places * np.where(signs == 0, 1, signs), float((strengths[:2] ** 2).sum()) / total if total else 0.0
