"""Charts as inline SVG, lines and a map of points: in the page's colours, without a script or the network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 420, 270  # a phone shows it in its own size
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 40
LETTER, ROW = 5.9, 11  # width and height of a letter of a point's label
MOST_DOTS = 400  # points of a line that are drawn


class Line(NamedTuple):
    """A line of a chart; points whose y is not finite interrupt it."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: str
    dashed: bool = False


class Point(NamedTuple):
    """A point of a map."""

    name: str
    x: float
    y: float
    colour: str
    hollow: bool = False


def chart(lines: Sequence[Line], *, title: str, x_label: str, y_label: str, unit: bool = False) -> str:
    """A chart of lines with its legend; unit: both axes show 0 to 1."""
    points = [(x, y) for line in lines for x, y in zip(line.xs, line.ys, strict=True) if math.isfinite(x + y)]
    if not points:
        return ""
    x_range, y_range = ((0.0, 1.0),) * 2 if unit else (_range([p[0] for p in points]), _range([p[1] for p in points]))
    drawn = [_axes(x_range, y_range, x_label, y_label)]
    for line in lines:
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        for piece in _pieces(line):
            places = " ".join(f"{_x(x, x_range):.1f},{_y(y, y_range):.1f}" for x, y in piece)
            if len(piece) == 1:
                x, y = places.split(",")
                drawn.append(f'<circle cx="{x}" cy="{y}" r="2.5" fill="{line.colour}"/>')
            else:
                drawn.append(f'<polyline points="{places}" fill="none" stroke="{line.colour}" stroke-width="2"{dash}/>')
    keys = "".join(_key(line) for line in lines)
    return f"<figure><figcaption>{escape(title)}</figcaption>{_frame(title, drawn)}<p class=keys>{keys}</p></figure>"


def _key(line: Line) -> str:
    """An entry of the legend."""
    dash = ' stroke-dasharray="5 4"' if line.dashed else ""
    stroke = f'<path d="M0 4H24" stroke="{line.colour}" stroke-width="2.5"{dash}/>'
    drawn = f'<svg viewBox="0 0 24 8" width="24" height="8" aria-hidden="true">{stroke}</svg>'
    return f'<span class="key">{drawn}{escape(line.name)}</span>'


def scatter(points: Sequence[Point], *, title: str, x_label: str, y_label: str) -> str:
    """A map of named points; a name that finds no room is seen by pointing at its point."""
    if not points:
        return ""
    x_range, y_range = _range([point.x for point in points]), _range([point.y for point in points])
    drawn = [_axes(x_range, y_range, x_label, y_label, ticks=False)]
    taken: list[tuple[float, float, float, float]] = []
    places = [(_x(point.x, x_range), _y(point.y, y_range)) for point in points]
    taken += [(x - 4, y - 4, x + 4, y + 4) for x, y in places]
    for point, (x, y) in zip(points, places, strict=True):
        fill = "none" if point.hollow else point.colour
        drawn.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="{point.colour}" stroke-width="1.8">'
            f"<title>{escape(point.name)}</title></circle>"
        )
        wide = LETTER * len(point.name)
        for left, middle in ((x + 6, y), (x - 6 - wide, y), (x - wide / 2, y - 10), (x - wide / 2, y + 10)):
            area = (left, middle - ROW / 2, left + wide, middle + ROW / 2)
            inside = area[0] >= LEFT and area[2] <= WIDTH - RIGHT and area[1] >= TOP and area[3] <= HEIGHT - BOTTOM
            if inside and not any(_overlap(area, other) for other in taken):
                taken.append(area)
                drawn.append(f'<text x="{left:.1f}" y="{middle + 3.5:.1f}" font-size="10">{escape(point.name)}</text>')
                break
    return f"<figure><figcaption>{escape(title)}</figcaption>{_frame(title, drawn)}</figure>"


def _frame(title: str, drawn: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(drawn)}</svg>'


def _axes(
    x_range: tuple[float, float], y_range: tuple[float, float], x_label: str, y_label: str, *, ticks: bool = True
) -> str:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    drawn = [f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="currentColor" opacity=".6"/>']
    for value in _ticks(x_range) if ticks else []:
        x = _x(value, x_range)
        drawn.append(f'<path d="M{x:.1f} {TOP}V{bottom}" stroke="currentColor" opacity=".12"/>')
        drawn.append(f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{_number(value)}</text>')
    for value in _ticks(y_range) if ticks else []:
        y = _y(value, y_range)
        drawn.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="currentColor" opacity=".12"/>')
        drawn.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{_number(value)}</text>')
    middle_x, middle_y = (LEFT + right) / 2, (TOP + bottom) / 2
    drawn.append(f'<text x="{middle_x}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>')
    turned = f'transform="rotate(-90 11 {middle_y})"'
    drawn.append(f'<text x="11" y="{middle_y}" text-anchor="middle" {turned}>{escape(y_label)}</text>')
    return "".join(drawn)


def _pieces(line: Line) -> list[list[tuple[float, float]]]:
    """The runs of finite points, thinned out to what can be seen."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(line.xs, line.ys, strict=True):
        if math.isfinite(x + y):
            pieces[-1].append((x, y))
        elif pieces[-1]:
            pieces.append([])
    thinned = []
    for piece in filter(None, pieces):
        step = math.ceil(len(piece) / MOST_DOTS)
        thinned.append([*piece[: len(piece) - 1 : step], piece[-1]])
    return thinned


def _range(values: Sequence[float]) -> tuple[float, float]:
    """From the least to the largest, and a little further."""
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 0.5 * abs(high) or 0.5
    return (0.0 if 0 <= low < 0.3 * high else low - room), high + room


def _ticks(limits: tuple[float, float]) -> list[float]:
    """About five round numbers between the limits."""
    low, high = limits
    raw = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _number(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.4g}" if abs(value) > 1e-12 else "0"


def _x(value: float, limits: tuple[float, float]) -> float:
    return LEFT + (value - limits[0]) / (limits[1] - limits[0]) * (WIDTH - LEFT - RIGHT)


def _y(value: float, limits: tuple[float, float]) -> float:
    return HEIGHT - BOTTOM - (value - limits[0]) / (limits[1] - limits[0]) * (HEIGHT - TOP - BOTTOM)


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
