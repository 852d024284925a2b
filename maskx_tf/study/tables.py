"""A summary as people read it, Markdown and charts, and as plain data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from maskx_tf.files import Json, write_text
from maskx_tf.study.statistics import Spread
from maskx_tf.study.summary import Scored, Summary, SummaryEntry


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
    text += ["", "## each cell", "", "AP on B / on A / of boxes.", "", *_each(summary.cells)]
    return "\n".join(text)


def _each(scored: Sequence[Scored]) -> list[str]:
    """A row for each method, a column for each group."""
    groups = list(dict.fromkeys(one.group for one in scored))
    rows: dict[str, dict[str, str]] = {}
    for one in scored:
        figures = ("-" if value is None else f"{value:.1f}" for value in (one.b, one.a, one.boxes))
        rows.setdefault(one.method, {})[one.group] = " / ".join(figures)
    text = [[method, *(row.get(group, "-") for group in groups)] for method, row in rows.items()]
    return _table(["method", *groups], text)


def _cells(entry: SummaryEntry, with_paper: bool, groups: int) -> list[str]:
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


def as_json(summary: Summary) -> Json:
    """The figures as plain data."""
    plain = summary._asdict()
    plain.pop("charts")
    tables = []
    for table in summary.tables:
        entries = [{key: _plain(value) for key, value in entry._asdict().items()} for entry in table.entries]
        tables.append({**table._asdict(), "entries": entries})
    return {**plain, "tables": tables, "cells": [one._asdict() for one in summary.cells]}


def _plain(value: object) -> object:
    """A spread as a mapping; of one value it has no deviation, for which JSON has null."""
    if not isinstance(value, Spread):
        return value
    return {key: None if math.isnan(number) else number for key, number in value._asdict().items()}


def write(summary: Summary, out: Path) -> None:
    """Writes summary.md and a page for each figure into the study folder."""
    write_text(out / "summary.md", as_markdown(summary) + "\n")
    for name, chart in summary.charts.items():
        if chart:
            write_text(out / f"figure_{name}.html", PAGE.format(title=f"{summary.name}, figure {name}", chart=chart))


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body{{font:15px sans-serif;max-width:40em;margin:1em}} svg text{{font-size:11px;fill:currentColor}}
.key{{margin-right:1em}}</style>
{chart}
</html>
"""
