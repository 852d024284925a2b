"""The external oracle: numbers of other programs, in ../shared/oracle or the folder that MASKX_ORACLE names."""

from __future__ import annotations

import functools
import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "oracle"
FOLDER = Path(os.environ.get("MASKX_ORACLE") or BESIDE)
FILE = FOLDER / "torchvision_mask_rcnn_r50.npz"
needs_oracle = pytest.mark.skipif(not FILE.exists(), reason="the oracle is not next to the project (../shared/oracle)")


def each_file(pattern: str, key: str = "") -> pytest.MarkDecorator:
    """Runs a test with the argument `file` for each oracle file of this pattern, or skips it where there is none.

    Args:
        pattern: of the name of a file.
        key: an array that the test reads: files without it are left out.
    """
    wanted = f"{pattern} with {key}" if key else pattern
    absent = pytest.param(None, marks=pytest.mark.skip(f"no {wanted} in the oracle's folder (MASKX_ORACLE)"), id="none")
    files = [path for path in sorted(FOLDER.glob(pattern)) if not key or _holds(path, key)]
    return pytest.mark.parametrize("file", [pytest.param(path, id=path.stem) for path in files] or [absent])


def _holds(path: Path, key: str) -> bool:
    with np.load(path) as data:
        return key in data.files


@functools.cache
def outputs(file: Path = FILE) -> dict[str, np.ndarray]:
    """Every stored output, by the names of the oracle's README."""
    return _reader().outputs(file)


@functools.cache
def weights(file: Path = FILE) -> dict[str, np.ndarray]:
    """The weights under torchvision's names and in its layouts."""
    return _reader().weights(file)


@functools.cache
def inputs(file: Path) -> dict[str, np.ndarray]:
    """The seeded inputs that the outputs belong to, by the names of the oracle's README."""
    return _reader().inputs(file)


@functools.cache
def meta(file: Path) -> dict[str, Any]:
    """The facts of a file."""
    return _reader().meta(file)


def seeded(file: Path, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """What the oracle's generator makes of a name: float32 of this shape."""
    return _reader().base(meta(file)["seed"], name, shape)


@functools.cache
def _reader() -> Any:
    """oracle.py of the folder, or the one next to the project, for folders that hold files alone."""
    place = next(folder / "oracle.py" for folder in (FOLDER, BESIDE) if (folder / "oracle.py").is_file())
    spec = importlib.util.spec_from_file_location("oracle_reader", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def relative(result: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, as a share of the largest number expected."""
    return float(np.abs(np.asarray(result) - expected).max() / np.abs(expected).max())


def nhwc(name: str) -> np.ndarray:
    """A stored NCHW tensor in our layout."""
    return outputs()[name].transpose(0, 2, 3, 1)


def level_rows(name: str, numbers: int) -> np.ndarray:
    """RPN output of one level, [1, A * numbers, H, W], as [1, H * W * A, numbers]: our order of the anchors."""
    values = nhwc(name)
    return values.reshape(1, -1, numbers)


def matched_share(boxes: np.ndarray, others: np.ndarray, labels: np.ndarray, other_labels: np.ndarray) -> float:
    """How many of the boxes have a partner of the same label at IoU > .99 among the others, as a share."""
    return len(matched_pairs(boxes, others, labels, other_labels)[0]) / len(boxes)


def matched_pairs(
    boxes: np.ndarray, others: np.ndarray, labels: np.ndarray, other_labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of boxes and of their best partners of the same label, for those that have one at IoU > .99."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0.0), axis=-1)
    area, other_area = (np.prod(group[:, 2:] - group[:, :2], axis=-1) for group in (boxes, others))
    iou = shared / (area[:, None] + other_area[None, :] - shared)
    iou = np.where(labels[:, None] == other_labels[None, :], iou, 0.0)
    ours = np.flatnonzero(iou.max(axis=1) > 0.99)
    return ours, iou[ours].argmax(axis=1)
