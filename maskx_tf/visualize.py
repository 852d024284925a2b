"""Drawing: detections or ground truth on a picture, a legend to stack below it, and sheets of many pictures.

Classes known by boxes and masks (A) get warm colours and solid lines, those known by boxes alone (B) cool colours,
dashed lines and a marker in the label: colours tell them apart for the colour-blind, too, lines and marker in grey.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Iterable, Sequence, Set
from functools import lru_cache
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from maskx_tf.ops.paste import paste_crop
from maskx_tf.structures import Detections

Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Colour = tuple[int, int, int]
Area = tuple[int, int, int, int]  # left, top, right, bottom in whole pixels, the last two excluded

# Colours lie between these or up to a sixth darker. They build on the palette of Okabe and Ito (Color Universal
# Design, 2008), whose orange and blue lie apart along the axis that red-green blindness leaves intact. Green and
# purple, which it turns into greyish yellows and blues, serve only where A and B need not be told apart.
WARM = ((180, 50, 0), (213, 94, 0), (230, 159, 0), (240, 228, 66))
COOL = ((70, 60, 190), (0, 114, 178), (86, 180, 233), (168, 220, 255))
ANY = ((213, 94, 0), (230, 159, 0), (240, 228, 66), (0, 158, 115), (86, 180, 233), (0, 114, 178), (204, 121, 167))
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
FONT = cast(ImageFont.FreeTypeFont, ImageFont.load_default(20))  # with a size, never the old bitmap font
OPACITY = 115  # of 255, of a mask: its colour shows, and so does what is below


class _Style(NamedTuple):
    """Sizes in pixels that follow from the size of the picture."""

    line: int
    pad: int
    row: int  # height of a label
    base: int  # from its top to the line on which text stands, with capitals in the middle
    font: ImageFont.FreeTypeFont


def draw(
    image: NDArray[Any],
    detections: Detections,
    names: Sequence[str],
    *,
    a_classes: Set[str] | None = None,
    threshold: float = 0.5,
    mode: str = "continuous",
) -> Picture:
    """A copy of the picture, uint8 [H, W, 3], with boxes, masks and labels.

    Boxes are cut at the border of the picture; those wholly outside are left out, those without area are drawn one
    pixel thin. A label that finds no room loses its score, then letters. It is left out where better ones would hide
    part of it, and as soon as labels cover a third of the picture. The font knows English letters: others lose their
    accents or become "?", and a name of which nothing is left is written as "#" and the number of its class.

    Args:
        image: uint8 [H, W, 3], or grey [H, W] or [H, W, 1].
        detections: of this one image, without a batch dimension, best first; scores and masks may be None.
        names: class k is called names[k - 1].
        a_classes: names of the classes with masks, all others are B; None draws all classes in one style.
        threshold: a pixel belongs to a mask from this value on.
        mode: how masks are pasted, see `ops.masks.paste`.

    Raises:
        ValueError: an array of the wrong shape or type, a class without a name, a box not finite or turned over.
    """
    canvas = Image.fromarray(_in_colour(image))
    found = _checked(detections, len(names))
    width, height = canvas.size
    style = _style(math.sqrt(width * height))
    looks = [_look(names[number - 1], a_classes) for number in found.classes]
    areas, surfaces = _areas(found.boxes, width, height)
    seen = [index for index, surface in enumerate(surfaces) if surface]
    upwards = sorted(seen, key=lambda index: -surfaces[index])  # so that large ones do not hide small ones
    for index in upwards if found.masks is not None else []:
        crop = paste_crop(found.masks[index], found.boxes[index], height, width, threshold=threshold, mode=mode)
        _paint_mask(canvas, crop.pixels, (crop.left, crop.top), looks[index][0], style.line)
    pen = ImageDraw.Draw(canvas)
    for index in upwards:
        _paint_frame(pen, areas[index], *looks[index], style)
    labels: list[tuple[Area, str, Colour, bool]] = []
    free = width * height // 3
    for index in seen:
        number, (colour, is_b) = found.classes[index], looks[index]
        name = _written(names[number - 1], number)
        score = "" if found.scores is None else f" {found.scores[index]:.2f}"
        for text in (name + score, _fit(name, width - _label_width("", is_b, style), style)):
            size = (_label_width(text, is_b, style), style.row)
            place, hidden = _place(areas[index], size, [other for other, *_ in labels], width, height)
            if hidden == 0 and size[0] <= width:
                break
        if text and hidden < 0.25 and style.row <= height and math.prod(size) <= free:
            labels.append((place, text, colour, is_b))
            free -= math.prod(size)
    for place, text, colour, is_b in reversed(labels):
        _paint_label(pen, place, text, colour, is_b, style)
    return np.array(canvas)


def legend(
    names: Sequence[str], a_classes: Set[str] | None, width: int, *, classes: Iterable[int] | None = None
) -> Picture:
    """A strip of this width, to stack below a picture: what the lines and colours of all or of these classes mean."""
    style = _style(width)
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
            text = _fit(_written(names[number - 1], number) if number else title, width - 2 * gap - indent, style)
            needed = indent + math.ceil(style.font.getlength(text))
            if left > gap and left + needed > width - gap:
                left, top = gap, top + step
            if number:
                colour, is_b = _look(names[number - 1], a_classes)
                _paint_mask(canvas, np.ones([style.row, swatch], bool), (left, top), colour, 0)
                _paint_frame(pen, (left, top, left + swatch, top + style.row), colour, is_b, style)
            pen.text((left + indent, top + style.base), text, BLACK, style.font, "ls")
            left += needed + gap
        top += step
    return np.array(canvas)[:top]


def contact_sheet(
    pictures: Sequence[NDArray[Any]], columns: int, cell: tuple[int, int], captions: Sequence[str] | None = None
) -> Picture:
    """Pictures in a grid, each fitted into a cell of this width and height, with its caption below."""
    if min(columns, *cell) < 1 or (captions and len(captions) != len(pictures)):
        raise ValueError(f"{columns} columns of {cell}, {len(captions or ())} captions for {len(pictures)} pictures")
    style = _style(math.sqrt(cell[0] * cell[1]))
    gap = style.row // 2
    step = (cell[0] + gap, cell[1] + gap + (style.row if captions else 0))
    canvas = Image.new("RGB", (columns * step[0] + gap, math.ceil(len(pictures) / columns) * step[1] + gap), WHITE)
    pen = ImageDraw.Draw(canvas)
    for index, picture in enumerate(pictures):
        left, top = gap + index % columns * step[0], gap + index // columns * step[1]
        fitted = ImageOps.contain(Image.fromarray(_in_colour(picture)), cell)
        canvas.paste(fitted, (left + (cell[0] - fitted.width) // 2, top + (cell[1] - fitted.height) // 2))
        if captions:
            text = _fit(_written(captions[index], index + 1), cell[0], style)
            pen.text((left + cell[0] / 2, top + cell[1] + style.base), text, BLACK, style.font, "ms")
    return np.array(canvas)


def class_colour(name: str, is_a: bool | None = None) -> Colour:
    """The colour of a class: warm for A, cool for B, any for None; from its name alone, the same in every run."""
    stops = np.array(ANY if is_a is None else WARM if is_a else COOL)
    at, dark = np.frombuffer(hashlib.blake2b(name.encode(), digest_size=8).digest(), ">u4") / 2**32
    mixed = [np.interp(at * (len(stops) - 1), range(len(stops)), channel) for channel in stops.T]
    red, green, blue = (round(float(channel * (1 - dark / 6))) for channel in mixed)
    return red, green, blue


def _look(name: str, a_classes: Set[str] | None) -> tuple[Colour, bool]:
    """Colour of a class, and whether it is drawn as one of B."""
    is_a = None if a_classes is None else name in a_classes
    return class_colour(name, is_a), is_a is False


def _in_colour(image: NDArray[Any]) -> Picture:
    """A copy of the picture as uint8 [H, W, 3]."""
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (1,), (3,)) or not image.size:
        raise ValueError(f"image is {image.dtype} {list(image.shape)}, expected uint8 [H, W, 3], [H, W] or [H, W, 1]")
    return np.array(np.broadcast_to(image.reshape(*image.shape[:2], -1), (*image.shape[:2], 3)))


def _checked(detections: Detections, classes: int) -> Detections:
    """The valid detections as NumPy arrays, and the classes as a list, after a look at shapes and values."""
    arrays = {name: np.asarray(array) for name, array in detections._asdict().items() if array is not None}
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    rest = {"boxes": [4], "masks": shapes.get("masks", [0])[-1:] * 2}
    if any(shape != [*shapes["boxes"][:1], *rest.get(name, [])] for name, shape in shapes.items()):
        raise ValueError(f"shapes are {shapes}, expected boxes [D, 4], masks [D, M, M], others [D]; no batch dimension")
    kept = detections._replace(**{name: array[arrays["valid"].astype(bool)] for name, array in arrays.items()})
    for box, number in zip(kept.boxes, kept.classes, strict=True):
        if not np.isfinite(box).all() or (box[2:] < box[:2]).any():
            raise ValueError(f"a box is {box.tolist()}, expected finite x1, y1, x2, y2 with x1 <= x2 and y1 <= y2")
        if not 1 <= number <= classes:
            raise ValueError(f"a class is {number}, expected 1..{classes}, one of the names")
    return kept._replace(classes=kept.classes.astype(int).tolist())


def _style(side: float) -> _Style:
    """Sizes for a picture whose sides are about this long; letters of less than 9 pixels run together."""
    size = round(8 + side / 70)
    font = FONT.font_variant(size=size)
    row = sum(font.getmetrics()) + size // 5
    base = (row - round(font.getbbox("B", anchor="ls")[1]) + 1) // 2
    return _Style(max(1, round(side / 350)), size // 5, row, base, font)


@lru_cache(maxsize=4096)
def _has_glyph(letter: str) -> bool:
    """Whether the letter looks different from U+FFFF, which is none: fonts draw their sign for unknown letters."""
    drawn, unknown = FONT.getmask(letter), FONT.getmask("\uffff")
    return (drawn.size, bytes(drawn)) != (unknown.size, bytes(unknown))


def _written(name: str, number: int) -> str:
    """The name in letters of the font; "#" and the number if none is left."""
    text = "".join(
        letter if _has_glyph(letter) else "".join(filter(_has_glyph, unicodedata.normalize("NFKD", letter))) or "?"
        for letter in unicodedata.normalize("NFC", " ".join(name.split()))
    )
    return text if text.strip("? ") else f"#{number}"


def _fit(text: str, room: float, style: _Style) -> str:
    """The text, or as much of its beginning as there is room for."""
    shorter = (f"{text[:stop]}…" for stop in range(len(text) - 1, 0, -1))
    return next((choice for choice in (text, *shorter) if style.font.getlength(choice) <= room), "")


def _areas(boxes: NDArray[np.floating], width: int, height: int) -> tuple[list[Area], list[int]]:
    """The pixels whose centre lies in each box, at least one a side, cut to the picture; and how many they are."""
    edges = np.ceil(boxes.astype(float) - 0.5)
    edges[:, 2:] = np.maximum(edges[:, 2:], edges[:, :2] + 1.0)
    areas = np.clip(edges, 0, [width, height, width, height]).astype(int)
    return [tuple(area) for area in areas.tolist()], np.prod(areas[:, 2:] - areas[:, :2], axis=1).tolist()


def _paint_mask(canvas: Image.Image, inside: Mask, corner: tuple[int, int], colour: Colour, line: int) -> None:
    """Lays the colour over the mask, and densely along its contour; nothing outside of the mask is touched."""
    core = inside
    for _ in range(line):
        padded = np.pad(core, 1)
        core = core & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    strength = np.where(core, OPACITY, 255 * inside).astype(np.uint8)
    canvas.paste(colour, corner, Image.fromarray(strength))


def _paint_frame(pen: ImageDraw.ImageDraw, area: Area, colour: Colour, dashed: bool, style: _Style) -> None:
    """Draws lines just inside the area, with a thin rim that keeps them visible on their own colour."""
    (left, top, right, bottom), line = area, style.line
    strokes: list[Area] = []
    for start, stop in _dashes(left, right, dashed, line):
        strokes += [(start, top, stop, min(top + line, bottom)), (start, max(bottom - line, top), stop, bottom)]
    for start, stop in _dashes(top, bottom, dashed, line):
        strokes += [(left, start, min(left + line, right), stop), (max(right - line, left), start, right, stop)]
    for rim, shade in ((line // 2, _ink(colour)), (0, colour)):
        for x1, y1, x2, y2 in strokes:
            pen.rectangle((x1 - rim, y1 - rim, x2 - 1 + rim, y2 - 1 + rim), shade)


def _dashes(start: int, stop: int, dashed: bool, line: int) -> list[tuple[int, int]]:
    """An odd number of equal parts, every second of which is drawn: the corners always are."""
    parts = 2 * max(1, round((stop - start) / (8 * line))) + 1 if dashed and stop - start > 2 * line else 1
    edges = np.linspace(start, stop, parts + 1).round().astype(int).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def _ink(colour: Colour) -> Colour:
    """Black or white, whichever contrasts more by relative luminance (WCAG 2.2, contrast ratio)."""
    linear = ((np.array(colour) / 255 + 0.055) / 1.055) ** 2.4
    return BLACK if linear @ [0.2126, 0.7152, 0.0722] > 0.179 else WHITE


def _label_width(text: str, is_b: bool, style: _Style) -> int:
    """Of the text and its marker, with room around both."""
    return sum(math.ceil(style.font.getlength(part)) + 2 * style.pad for part in (("B", text) if is_b else (text,)))


def _place(area: Area, size: tuple[int, int], taken: Sequence[Area], width: int, height: int) -> tuple[Area, float]:
    """The place at the box that overlaps other labels least, the first of equals; and the share of it they cover."""
    (left, top, right, bottom), (wide, high) = area, size
    # Above the box, inside its top, below it, inside its bottom, then down its sides in at most 20 steps.
    levels = [top - high, top, bottom, bottom - high, *range(top, bottom, max(high, (bottom - top) // 20))]
    corners = np.clip([(x, y) for y in levels for x in (left, right - wide)], 0, [width - wide, height - high])
    others = np.array(taken, int).reshape(-1, 4)
    shared = np.minimum(corners[:, None] + size, others[:, 2:]) - np.maximum(corners[:, None], others[:, :2])
    overlaps = np.prod(np.maximum(shared, 0), axis=-1).sum(axis=1)
    x, y = corners[int(np.argmin(overlaps))].tolist()
    return (x, y, x + wide, y + high), float(overlaps.min()) / (wide * high)


def _paint_label(pen: ImageDraw.ImageDraw, place: Area, text: str, colour: Colour, is_b: bool, style: _Style) -> None:
    """Text on a patch of the class's colour, the marker of B before it in reversed colours."""
    (left, top, _, bottom), ink = place, _ink(colour)
    for part, paper, letters in [("B", ink, colour)] * is_b + [(text, colour, ink)]:
        right = left + _label_width(part, False, style)
        pen.rectangle((left, top, right - 1, bottom - 1), paper)
        pen.text((left + style.pad, top + style.base), part, letters, style.font, "ls")
        left = right
