"""The tables of a study beside the paper's numbers, from the lines of its results alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from maskx_tf.config.loader import replace_text
from maskx_tf.evaluation import svg
from maskx_tf.study import cells, results
from maskx_tf.study.config import FigureConfig, StudyConfig, TableConfig
from maskx_tf.study.results import Line
from maskx_tf.study.statistics import Spread, gain, paired, spread

B, A = "mask/B/AP", "mask/A/AP"
TEST, VAL = "test", "val"
COLOURS = ("#666666", "#c2410c", "#1d4ed8", "#15803d", "#7e22ce")
Lines = dict[tuple[str, str], Line]


class Entry(NamedTuple):
    """A row: figures of the test part in per cent, over groups.

    Attributes:
        title: how the table calls the method.
        method: its name; of a choice, that of the method that was chosen, or None while that is open.
        missing: groups whose cell has not run.
        b: on B.
        a: on A.
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


class Table(NamedTuple):
    """A table of the paper, or the numbers of a figure."""

    name: str
    title: str
    baseline: str
    groups: tuple[str, ...]
    entries: list[Entry]


class Summary(NamedTuple):
    """What a study has found so far.

    Attributes:
        name: of the study.
        finished: cells.
        planned: cells.
        other: how many of the finished ones were run with other settings than the study has now.
        tables: in their order, those of figures last.
        charts: name and HTML of each figure.
    """

    name: str
    finished: int
    planned: int
    other: int
    tables: list[Table]
    charts: dict[str, str]


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
    return Summary(study.name, len(finished), len(planned), other, tables, charts)


def table_of(study: StudyConfig, table: TableConfig, lines: Lines) -> Table:
    """A table's rows."""
    groups = table.groups or _whole(study)
    entries = [_entry(study, lines, row.method, row.title, table.baseline, groups, row.paper) for row in table.rows]
    return Table(table.name, table.title, table.baseline, tuple(groups), entries)


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
) -> Entry:
    method, other = chosen(study, name, lines), chosen(study, baseline, lines)
    of_b, of_a = (values(lines, method, groups, figure) if method else {} for figure in (B, A))
    base_b, base_a = (values(lines, other, groups, figure) if other else {} for figure in (B, A))
    same = method == other
    return Entry(
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
        line = next((lines[group.name, name] for name in names if (group.name, name) in lines), None)
        if line is not None:
            sizes.setdefault(int(line["a"]), []).append(group.name)
    return dict(sorted(sizes.items()))


def _of_size(study: StudyConfig, figure: FigureConfig, size: int, groups: list[str], lines: Lines) -> Table:
    names = (figure.baseline, *figure.methods)
    entries = [_entry(study, lines, name, name, figure.baseline, groups) for name in names]
    return Table(
        f"figure {figure.name}", f"{figure.title}: {size} classes in A", figure.baseline, tuple(groups), entries
    )


def _chart(study: StudyConfig, figure: FigureConfig, points: dict[int, list[str]], lines: Lines) -> str:
    """AP on B over the number of classes in A, a line for each method."""
    drawn = []
    for name, colour in zip((figure.baseline, *figure.methods), COLOURS, strict=False):
        method = chosen(study, name, lines)
        means = {size: spread(list(values(lines, method or "", of, B).values())) for size, of in points.items()}
        known = {size: found.mean for size, found in means.items() if found is not None}
        drawn.append(svg.Line(name, list(known), list(known.values()), colour))
    return svg.chart(drawn, title=figure.title, x_label="classes in A", y_label="mask AP on B")


def as_markdown(summary: Summary) -> str:
    """The tables as Markdown that is aligned, so that a terminal shows it as well."""
    state = f"{summary.finished} of {summary.planned} cells have run"
    if summary.other:
        state += f", {summary.other} of them with other settings than the study has now"
    text = [
        f"# {summary.name}",
        "",
        f"{state}. Mask AP in per cent on the test part: mean and standard deviation over n groups (seeds or splits). "
        "Differences to the baseline are of the same group, with the 95 % confidence interval of their mean by "
        "Student's t; gain is that of the mean on B. The paper's columns: COCO, voc to nonvoc and nonvoc to voc.",
    ]
    for table in summary.tables:
        text += ["", f"## {table.name}: {table.title}", ""]
        head = ["method", "n", "B", "A", f"B - {table.baseline}", f"A - {table.baseline}", "gain on B"]
        with_paper = any(entry.paper for entry in table.entries)
        head += ["paper v>n: B", "A", "n>v: B", "A"] if with_paper else []
        text += _table(head, [_cells(entry, with_paper, len(table.groups)) for entry in table.entries])
    return "\n".join(text)


def _cells(entry: Entry, with_paper: bool, groups: int) -> list[str]:
    count = str(groups) if not entry.missing else f"{groups - entry.missing} of {groups}"
    more = [_difference(entry.more_b), _difference(entry.more_a)]
    share = "-" if entry.gain_b is None else f"{100 * entry.gain_b:+.0f} %"
    paper = [f"{value:.1f}" for value in entry.paper] if entry.paper else ["-"] * 4
    return [entry.title, count, _mean(entry.b), _mean(entry.a), *more, share, *(paper if with_paper else [])]


def _mean(found: Spread | None) -> str:
    if found is None:
        return "-"
    return f"{found.mean:.1f}" + (f" ± {found.deviation:.1f}" if found.n > 1 else "")


def _difference(found: Spread | None) -> str:
    if found is None:
        return "-"
    interval = f" [{found.mean - found.half:+.1f}, {found.mean + found.half:+.1f}]" if found.n > 1 else ""
    return f"{found.mean:+.1f}{interval}"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(3, *(len(row[column]) for row in [head, *rows])) for column in range(len(head))]

    def line(row: list[str]) -> str:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        return f"| {' | '.join(cells)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return [line(head), line(rule), *(line(row) for row in rows)]


def as_json(summary: Summary) -> dict[str, Any]:
    """The figures as plain data."""
    plain = summary._asdict()
    plain.pop("charts")
    tables = []
    for table in summary.tables:
        entries = [
            {key: value._asdict() if isinstance(value, Spread) else value for key, value in entry._asdict().items()}
            for entry in table.entries
        ]
        tables.append({**table._asdict(), "entries": entries})
    return {**plain, "tables": tables}


def write(summary: Summary, out: Path) -> None:
    """Writes summary.md and a page for each figure into the study folder."""
    out.mkdir(parents=True, exist_ok=True)
    replace_text(out / "summary.md", as_markdown(summary) + "\n")
    for name, chart in summary.charts.items():
        if chart:
            replace_text(out / f"figure_{name}.html", PAGE.format(title=f"{summary.name}, figure {name}", chart=chart))


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body{{font:15px sans-serif;max-width:40em;margin:1em}} svg text{{font-size:11px;fill:currentColor}}
.key{{margin-right:1em}}</style>
{chart}
</html>
"""
