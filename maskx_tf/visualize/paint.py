"""The strokes of drawings: colours of classes, sizes that follow from the picture's, masks, frames, letters."""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Iterable, Sequence, Set
from functools import lru_cache
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Colour = tuple[int, int, int]
Place = tuple[float, float]
Area = tuple[int, int, int, int]  # left, top, right, bottom in whole pixels, the last two excluded

# Colours lie between these or up to a sixth darker. They build on the palette of Okabe and Ito (Color Universal
# Design, 2008), whose orange and blue lie apart along the axis that red-green blindness leaves intact. Green and
# purple, which it turns into greyish yellows and blues, serve only where A and B need not be told apart.
WARM = ((180, 50, 0), (213, 94, 0), (230, 159, 0), (240, 228, 66))
COOL = ((70, 60, 190), (0, 114, 178), (86, 180, 233), (168, 220, 255))
ANY = ((213, 94, 0), (230, 159, 0), (240, 228, 66), (0, 158, 115), (86, 180, 233), (0, 114, 178), (204, 121, 167))
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
FONT = cast(ImageFont.FreeTypeFont, ImageFont.load_default(20))  # with a size, never the old bitmap font
LONGEST_NAME = 200  # letters of a name that are looked at; no picture has room for more
OPACITY = 115  # opacity of a mask, out of 255: its colour and the picture below are visible


class Style(NamedTuple):
    """Sizes in pixels that follow from the size of the picture."""

    line: int
    pad: int
    row: int  # height of a label
    base: int  # from its top to the line on which text stands, with capitals in the middle
    font: ImageFont.FreeTypeFont


def class_colour(name: str, is_a: bool | None = None) -> Colour:
    """The colour of a class: warm for A, cool for B, any for None; from its name alone, the same in every run."""
    stops = np.array(ANY if is_a is None else WARM if is_a else COOL)
    at, dark = np.frombuffer(hashlib.blake2b(name.encode(), digest_size=8).digest(), ">u4") / 2**32
    mixed = [np.interp(at * (len(stops) - 1), range(len(stops)), channel) for channel in stops.T]
    red, green, blue = (round(float(channel * (1 - dark / 6))) for channel in mixed)
    return red, green, blue


def look(name: str, a_classes: Set[str] | None) -> tuple[Colour, bool]:
    """Colour of a class, and whether it is drawn as one of B."""
    is_a = None if a_classes is None else name in a_classes
    return class_colour(name, is_a), is_a is False


def in_colour(image: np.ndarray) -> Picture:
    """A copy of the picture as uint8 [H, W, 3]."""
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (1,), (3,)) or not image.size:
        raise ValueError(f"image is {image.dtype} {list(image.shape)}, expected uint8 [H, W, 3], [H, W] or [H, W, 1]")
    return np.array(np.broadcast_to(image.reshape(*image.shape[:2], -1), (*image.shape[:2], 3)))


def style_for(side: float) -> Style:
    """Sizes for a picture whose sides are about this long; letters of less than 9 pixels run together."""
    size = round(8 + side / 70)
    font = FONT.font_variant(size=size)
    row = sum(font.getmetrics()) + size // 5
    base = (row - round(font.getbbox("B", anchor="ls")[1]) + 1) // 2
    return Style(max(1, round(side / 350)), size // 5, row, base, font)


@lru_cache(maxsize=4096)
def _has_glyph(letter: str) -> bool:
    """Whether the font has the letter: it looks different from U+FFFF, which fonts draw as an unknown letter."""
    drawn, unknown = FONT.getmask(letter), FONT.getmask("\uffff")
    return (drawn.size, bytes(drawn)) != (unknown.size, bytes(unknown))


def written(name: str, number: int) -> str:
    """The name in letters of the font; "#" and the number if none is left."""
    text = "".join(
        letter if _has_glyph(letter) else "".join(filter(_has_glyph, unicodedata.normalize("NFKD", letter))) or "?"
        for letter in unicodedata.normalize("NFC", " ".join(name[:LONGEST_NAME].split()))
    )
    return text[:LONGEST_NAME] if text.strip("? ") else f"#{number}"


def fit(text: str, room: float, style: Style) -> str:
    """Returns the text, or as much of its beginning as fits."""
    shorter = (f"{text[:stop]}…" for stop in range(len(text) - 1, 0, -1))
    return next((choice for choice in (text, *shorter) if style.font.getlength(choice) <= room), "")


def paint_mask(canvas: Image.Image, inside: Mask, corner: tuple[int, int], colour: Colour, line: int) -> None:
    """Lays the colour over the mask, and densely along its contour; nothing outside of the mask is touched."""
    core = inside
    for _ in range(line):
        padded = np.pad(core, 1)
        core = core & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    strength = np.where(core, OPACITY, 255 * inside).astype(np.uint8)
    canvas.paste(colour, corner, Image.fromarray(strength))


def paint_frame(pen: ImageDraw.ImageDraw, area: Area, colour: Colour, dashed: bool, style: Style) -> None:
    """Draws lines just inside the area, with a thin rim that keeps them visible on their own colour."""
    (left, top, right, bottom), line = area, style.line
    strokes: list[Area] = []
    for start, stop in _dashes(left, right, dashed, line):
        strokes += [(start, top, stop, min(top + line, bottom)), (start, max(bottom - line, top), stop, bottom)]
    for start, stop in _dashes(top, bottom, dashed, line):
        strokes += [(left, start, min(left + line, right), stop), (max(right - line, left), start, right, stop)]
    for rim, shade in ((line // 2, ink(colour)), (0, colour)):
        for x1, y1, x2, y2 in strokes:
            pen.rectangle((x1 - rim, y1 - rim, x2 - 1 + rim, y2 - 1 + rim), shade)


def paint_skeleton(
    pen: ImageDraw.ImageDraw,
    points: Sequence[Place | None],
    lines: Iterable[tuple[int, int]],
    colour: Colour,
    size: int,
) -> None:
    """Draws lines between points, and the points on top; a rim of black or white sets both off from what is below.

    Args:
        pen: the pen of the picture.
        points: None for one that is not there.
        lines: indices of the points at their ends; a line of which an end is not there is left out.
        colour: the colour of the lines.
        size: radius of a point, and width of a line; at 1 there is no room for rims.
    """
    ends = [(points[first], points[second]) for first, second in lines]
    known = [(*first, *second) for first, second in ends if first is not None and second is not None]
    for width, paint in ((size + 2, ink(colour)), (size, colour)) if size > 1 else ((size, colour),):
        for line in known:
            pen.line(line, paint, width)
    for x, y in filter(None, points):
        fill, rim = (WHITE, BLACK) if size > 1 else (colour, None)
        pen.ellipse((x - size, y - size, x + size, y + size), fill, rim)


def _dashes(start: int, stop: int, dashed: bool, line: int) -> list[tuple[int, int]]:
    """An odd number of equal parts, every second of which is drawn: the corners always are."""
    parts = 2 * max(1, round((stop - start) / (8 * line))) + 1 if dashed and stop - start > 2 * line else 1
    edges = np.linspace(start, stop, parts + 1).round().astype(int).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def ink(colour: Colour) -> Colour:
    """Black or white, whichever contrasts more by relative luminance (WCAG 2.2, contrast ratio)."""
    linear = ((np.array(colour) / 255 + 0.055) / 1.055) ** 2.4
    return BLACK if linear @ [0.2126, 0.7152, 0.0722] > 0.179 else WHITE


def label_width(text: str, is_b: bool, style: Style) -> int:
    """Returns the size of the text and its marker, with a margin."""
    return sum(math.ceil(style.font.getlength(part)) + 2 * style.pad for part in (("B", text) if is_b else (text,)))


def paint_label(pen: ImageDraw.ImageDraw, place: Area, text: str, colour: Colour, is_b: bool, style: Style) -> None:
    """Text on a patch of the class's colour, the marker of B before it in reversed colours."""
    (left, top, _, bottom), shade = place, ink(colour)
    for part, paper, letters in [("B", shade, colour)] * is_b + [(text, colour, shade)]:
        right = left + label_width(part, False, style)
        pen.rectangle((left, top, right - 1, bottom - 1), paper)
        pen.text((left + style.pad, top + style.base), part, letters, style.font, "ls")
        left = right
