"""The files of the FCIS oracle, which hold outputs of the reference's own operators, and its layouts in ours.

What a file holds decides which tests read it, not its name.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.oracle import each_file


def each_file_with(key: str) -> pytest.MarkDecorator:
    """Runs a test with the argument `file` for each FCIS file that holds this array, or skips it."""
    return each_file("fcis*.npz", key)


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
