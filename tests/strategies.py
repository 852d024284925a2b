"""What hypothesis draws: boxes on a grid of quarter pixels, where float32 overlaps are those of exact arithmetic."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st


def _quarters(lowest: int, highest: int) -> st.SearchStrategy[float]:
    return st.integers(4 * lowest, 4 * highest).map(lambda number: number / 4)


@st.composite
def boxes(draw: st.DrawFn, *, count: int | None = None, most: int = 10, smallest_side: int = 0) -> np.ndarray:
    """float32 [count, 4] around an image of 40 x 40: inside, across and beyond its border, degenerate ones too."""
    number = draw(st.integers(1, most)) if count is None else count
    corner, side = _quarters(-10, 45), _quarters(smallest_side, 25)
    rows = [(draw(corner), draw(corner), draw(side), draw(side)) for _ in range(number)]
    return np.array([[x, y, x + width, y + height] for x, y, width, height in rows], np.float32).reshape(-1, 4)
