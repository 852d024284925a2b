"""Makes the tables of a study, next to the paper's numbers, from the lines of its results."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from maskx_tf.report import svg
from maskx_tf.study import cells, results
from maskx_tf.study.config import FigureConfig, StudyConfig, TableConfig
from maskx_tf.study.results import ResultLine
from maskx_tf.study.statistics import Spread, differences, gain, paired, spread

B, A, BOX_FIGURE = "mask/B/AP", "mask/A/AP", "box/all/AP"
TEST, VAL = "test", "val"
METHOD_COLOURS = ("#666666", "#c2410c", "#1d4ed8", "#15803d", "#7e22ce")
Lines = dict[tuple[str, str], ResultLine]


class SummaryEntry(NamedTuple):
    """A row: figures of the test part in per cent, over groups.

    Attributes:
        title: how the table calls the method.
        method: its name; of a choice, that of the method that was chosen, or None while that is open.
        missing: groups whose cell has not run.
        b: AP on B.
        a: AP on A.
        more_b: minus the baseline in the same group, on B.
        more_a: the same on A.
        gain_b: how much higher than the baseline's the mean on B is, as a share.
        paper: the paper's numbers.
    """

    title: str
    method: str | None
    missing: int
    b: Spread | None
    a: Spread | None
    more_b: Spread | None
    more_a: Spread | None
    gain_b: float | None
    paper: tuple[float, ...] | None


class SummaryTable(NamedTuple):
    """A table of the paper, or the numbers of a figure."""

    name: str
    title: str
    baseline: str
    groups: tuple[str, ...]
    entries: list[SummaryEntry]


class Scored(NamedTuple):
    """A cell's AP on B, on A and of boxes, of the test part in per cent; None where it has none."""

    method: str
    group: str
    b: float | None
    a: float | None
    boxes: float | None


class Summary(NamedTuple):
    """The results of a study so far.

    Attributes:
        name: the name of the study.
        finished: the number of finished cells.
        planned: the number of all cells.
        other: the number of finished cells that were run with other settings than the study has now.
        tables: the tables in order; those of figures come last.
        charts: the name and HTML of each figure.
        cells: the finished cells.
    """

    name: str
    finished: int
    planned: int
    other: int
    tables: list[SummaryTable]
    charts: dict[str, str]
    cells: list[Scored]


def summarise(study: StudyConfig, out: Path) -> Summary:
    """The tables and figures of the results in a study folder."""
    places, lines = cells.Places(out), results.read(out / results.RESULTS)
    planned = cells.cells_of(study)
    finished = [cell for cell in planned if (cell.group.name, cell.method.name) in lines]
    other = sum(
        lines[cell.group.name, cell.method.name]["digest"] != cells.digest(study, cell, places) for cell in finished
    )
    tables = [table_of(study, table, lines) for table in study.tables]
    charts = {}
    for figure in study.figures:
        points = _sizes(study, figure, lines)
        tables += [_of_size(study, figure, size, groups, lines) for size, groups in points.items()]
        charts[figure.name] = _chart(study, figure, points, lines)
    scored = [_scored(cell, lines) for cell in finished]
    return Summary(study.name, len(finished), len(planned), other, tables, charts, scored)


def _scored(cell: cells.Cell, lines: Lines) -> Scored:
    group, method = cell.group.name, cell.method.name
    b, a, boxes = (values(lines, method, [group], figure).get(group) for figure in (B, A, BOX_FIGURE))
    return Scored(method, group, b, a, boxes)


def table_of(study: StudyConfig, table: TableConfig, lines: Lines) -> SummaryTable:
    """A table's rows."""
    groups = table.groups or _whole(study)
    entries = [_entry(study, lines, row.method, row.title, table.baseline, groups, row.paper) for row in table.rows]
    return SummaryTable(table.name, table.title, table.baseline, tuple(groups), entries)


def chosen(study: StudyConfig, name: str, lines: Lines) -> str | None:
    """The method that a name means: of a choice, the best on the validation part; None while one has not run."""
    choice = next((one for one in study.choices if one.name == name), None)
    if choice is None:
        return name
    means = {}
    for method in choice.among:
        found = values(lines, method, _whole(study), choice.figure, VAL)
        if len(found) < len(_whole(study)):
            return None
        means[method] = sum(found.values()) / len(found)
    return max(means, key=lambda method: means[method])


def values(lines: Lines, method: str, groups: Sequence[str], figure: str, part: str = TEST) -> dict[str, float]:
    """A figure in per cent by group, of those whose cell has run."""
    found = {group: lines[group, method]["figures"].get(part, {}) for group in groups if (group, method) in lines}
    return {group: 100 * figures[figure] for group, figures in found.items() if figure in figures}


def _whole(study: StudyConfig) -> tuple[str, ...]:
    """The groups that run every method."""
    return tuple(group.name for group in study.groups if group.methods is None)


def _entry(
    study: StudyConfig,
    lines: Lines,
    name: str,
    title: str,
    baseline: str,
    groups: Sequence[str],
    paper: tuple[float, ...] | None = None,
) -> SummaryEntry:
    method, other = chosen(study, name, lines), chosen(study, baseline, lines)
    of_b, of_a = (values(lines, method, groups, figure) if method else {} for figure in (B, A))
    base_b, base_a = (values(lines, other, groups, figure) if other else {} for figure in (B, A))
    same = method == other
    return SummaryEntry(
        title=title if method in (name, None) else f"{title}: {method}",
        method=method,
        missing=len(groups) - len(of_b),
        b=spread(list(of_b.values())),
        a=spread(list(of_a.values())),
        more_b=None if same else paired(of_b, base_b),
        more_a=None if same else paired(of_a, base_a),
        gain_b=None if same else gain(of_b, base_b),
        paper=paper,
    )


def _sizes(study: StudyConfig, figure: FigureConfig, lines: Lines) -> dict[int, list[str]]:
    """The groups by the number of classes in A, of those that ran a method of the figure."""
    names = (figure.baseline, *figure.methods)
    sizes: dict[int, list[str]] = {}
    for group in study.groups:
        if figure.groups is not None and group.name not in figure.groups:
            continue
        line = next((lines[group.name, name] for name in names if (group.name, name) in lines), None)
        if line is not None:
            sizes.setdefault(int(line["a"]), []).append(group.name)
    return dict(sorted(sizes.items()))


def _of_size(study: StudyConfig, figure: FigureConfig, size: int, groups: list[str], lines: Lines) -> SummaryTable:
    names = (figure.baseline, *figure.methods)
    entries = [_entry(study, lines, name, name, figure.baseline, groups) for name in names]
    return SummaryTable(
        f"figure {figure.name}", f"{figure.title}: {size} classes in A", figure.baseline, tuple(groups), entries
    )


def _chart(study: StudyConfig, figure: FigureConfig, points: dict[int, list[str]], lines: Lines) -> str:
    """Draws each method's gain on B over the baseline by the number of classes in A: means, and a dot for each group.

    AP cannot be compared between sizes, because B is another set of classes at each size.
    """
    base = chosen(study, figure.baseline, lines)
    drawn = []

    def of(method: str | None, groups: Sequence[str]) -> dict[str, float]:
        return values(lines, method, groups, B) if method else {}

    for name, colour in zip(figure.methods, itertools.cycle(METHOD_COLOURS), strict=False):
        method = chosen(study, name, lines)
        more = {size: differences(of(method, groups), of(base, groups)) for size, groups in points.items()}
        means = [(size, sum(found) / len(found)) for size, found in more.items() if found]
        dots = [(size, value) for size, found in more.items() for value in found]
        alone = [pair for dot in dots for pair in ((math.nan, math.nan), dot)]  # a gap before each makes it a dot
        xs, ys = zip(*means, *alone, strict=True) if means else ((), ())
        drawn.append(svg.Line(name, xs, ys, colour))
    label = f"mask AP on B, minus {figure.baseline}"
    return svg.chart(drawn, title=figure.title, x_label="classes in A", y_label=label)
