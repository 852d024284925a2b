"""Around pictures: the legend to stack below one, and sheets of many."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence, Set

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from maskx_tf.visualize.paint import (
    BLACK,
    WHITE,
    Picture,
    fit,
    in_colour,
    look,
    paint_frame,
    paint_mask,
    style_for,
    written,
)


def legend(
    names: Sequence[str], a_classes: Set[str] | None, width: int, *, classes: Iterable[int] | None = None
) -> Picture:
    """A strip of this width, to stack below a picture: what the lines and colours of all or of these classes mean."""
    style = style_for(width)
    gap, swatch, step = style.row // 2, style.row, style.row + style.row // 2
    groups: dict[str, list[int]] = {}
    for number in sorted(set(range(1, len(names) + 1) if classes is None else map(int, classes))):
        title = "" if a_classes is None else "A: boxes and masks" if names[number - 1] in a_classes else "B: boxes only"
        groups.setdefault(title, []).append(number)
    # As high as if each entry had a row of its own; what stays empty is cut off.
    canvas = Image.new("RGB", (width, gap + step * sum(len(members) + 1 for members in groups.values())), WHITE)
    pen, top = ImageDraw.Draw(canvas), gap
    for title, members in sorted(groups.items()):
        left = gap
        for number in [0, *members] if title else members:
            indent = swatch + gap // 2 if number else 0
            text = fit(written(names[number - 1], number) if number else title, width - 2 * gap - indent, style)
            needed = indent + math.ceil(style.font.getlength(text))
            if left > gap and left + needed > width - gap:
                left, top = gap, top + step
            if number:
                colour, is_b = look(names[number - 1], a_classes)
                paint_mask(canvas, np.ones([style.row, swatch], bool), (left, top), colour, 0)
                paint_frame(pen, (left, top, left + swatch, top + style.row), colour, is_b, style)
            pen.text((left + indent, top + style.base), text, BLACK, style.font, "ls")
            left += needed + gap
        top += step
    return np.array(canvas)[:top]


def contact_sheet(
    pictures: Sequence[np.ndarray], columns: int, cell: tuple[int, int], captions: Sequence[str] | None = None
) -> Picture:
    """Pictures in a grid, each fitted into a cell of this width and height, with its caption below."""
    if min(columns, *cell) < 1 or (captions and len(captions) != len(pictures)):
        raise ValueError(f"{columns} columns of {cell}, {len(captions or ())} captions for {len(pictures)} pictures")
    style = style_for(math.sqrt(cell[0] * cell[1]))
    gap = style.row // 2
    step = (cell[0] + gap, cell[1] + gap + (style.row if captions else 0))
    canvas = Image.new("RGB", (columns * step[0] + gap, math.ceil(len(pictures) / columns) * step[1] + gap), WHITE)
    pen = ImageDraw.Draw(canvas)
    for index, picture in enumerate(pictures):
        left, top = gap + index % columns * step[0], gap + index // columns * step[1]
        fitted = ImageOps.contain(Image.fromarray(in_colour(picture)), cell)
        canvas.paste(fitted, (left + (cell[0] - fitted.width) // 2, top + (cell[1] - fitted.height) // 2))
        if captions:
            text = fit(written(captions[index], index + 1), cell[0], style)
            pen.text((left + cell[0] / 2, top + cell[1] + style.base), text, BLACK, style.font, "ms")
    return np.array(canvas)
