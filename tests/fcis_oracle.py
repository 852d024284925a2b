"""The files of the FCIS oracle: outputs of the reference's own operators (../shared/oracle, or MASKX_ORACLE).

What a file holds decides which tests read it, not its name.
"""

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


def each_file_with(key: str) -> pytest.MarkDecorator:
    """Runs a test with the argument `file` for each FCIS file that holds this array, or skips it."""
    found = []
    for path in sorted(FOLDER.glob("fcis*.npz")):
        with np.load(path) as data:
            if key in data.files:
                found.append(pytest.param(path, id=path.stem))
    absent = pytest.param(None, marks=pytest.mark.skip(f"no fcis*.npz with {key} in the oracle's folder"), id="none")
    return pytest.mark.parametrize("file", found or [absent])


@functools.cache
def outputs(path: Path) -> dict[str, np.ndarray]:
    """Every stored output, by the names of the oracle's README."""
    return _reader().outputs(path)


@functools.cache
def inputs(path: Path) -> dict[str, np.ndarray]:
    """The maps, features and gradients that are made again from a seed."""
    return _reader().inputs(path)


def weights(path: Path) -> dict[str, np.ndarray]:
    """The reference's weights, by its names and in its layouts."""
    return _reader().weights(path)


def meta(path: Path) -> dict[str, Any]:
    """The facts about a file."""
    return _reader().meta(path)


@functools.cache
def _reader() -> Any:
    """oracle.py of the folder, or the one next to the project, for folders that hold files alone."""
    place = next(folder / "oracle.py" for folder in (FOLDER, BESIDE) if (folder / "oracle.py").is_file())
    spec = importlib.util.spec_from_file_location("fcis_oracle_reader", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cell_major(maps: np.ndarray, group: int = 7) -> np.ndarray:
    """The reference's maps [D * cells, H, W] in our order: [H, W, cells * D]."""
    channels, height, width = maps.shape
    parts = maps.reshape(channels // group**2, group**2, height, width)
    return np.ascontiguousarray(parts.transpose(2, 3, 1, 0).reshape(height, width, channels))


def ref_major(maps: np.ndarray, group: int = 7) -> np.ndarray:
    """The inverse of `cell_major`."""
    height, width, channels = maps.shape
    return maps.reshape(height, width, group**2, -1).transpose(3, 2, 0, 1).reshape(channels, height, width)


def continuous(inclusive: np.ndarray) -> np.ndarray:
    """Inclusive boxes [..., 4] as ours: 1 more at x2 and y2."""
    return (inclusive + np.array([0, 0, 1, 1], np.float32)).astype(np.float32)
