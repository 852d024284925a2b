"""One HTML page about models: figures, curves, pictures. It is self-contained and loads nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from maskx_tf.evaluation.table import COLUMNS, GROUP_ORDER, percent
from maskx_tf.files import JsonView
from maskx_tf.report import style, svg
from maskx_tf.report.embeddings import Map
from maskx_tf.report.gallery import Shown
from maskx_tf.report.svg import Line, Point
from maskx_tf.visualize import ANY

A_COLOUR, B_COLOUR, ANY_COLOUR = "#d55e00", "#0072b2", "#808080"  # as in pictures: A warm, B cool
COLOURS = {"A": A_COLOUR, "B": B_COLOUR, "all": ANY_COLOUR}
CURVES = {"50": "IoU .5", "75": "IoU .75", "mean": "mean over IoU .5 to .95"}
SETS = {"A": "A, with masks", "B": "B, boxes alone", "all": "all classes"}
KIND_TITLES = {"mask": "Masks", "box": "Boxes", "keypoint": "Keypoints"}
AP_COLUMNS = {kind: tuple(f"{kind}/{group}/AP" for group in GROUP_ORDER) for kind in KIND_TITLES}  # of log.csv
OPEN_CLASSES = 60  # more of them are folded away
GROUPS = {
    "best": "The best images",
    "median": "From the middle",
    "worst": "The worst images",
    "random": "Drawn at random",
}


class Subject(NamedTuple):
    """The known facts about one model; unknown ones are left out.

    Attributes:
        name: the name for headings.
        figures: the figures of `Metrics.as_json`, with what `maskx eval` adds.
        log: columns of log.csv.
        shown: the gallery.
        classes: the map of what T reads.
        notes: one line for each thing that is missing.
    """

    name: str
    figures: JsonView | None = None
    log: Mapping[str, Sequence[float]] | None = None
    shown: Sequence[Shown] = ()
    classes: Map | None = None
    notes: Sequence[str] = ()


def page(subjects: Sequence[Subject]) -> str:
    """The whole page."""
    title = subjects[0].name if len(subjects) == 1 else f"{len(subjects)} models"
    body = [f"<h1>{escape(title)}</h1>", _comparison(subjects) if len(subjects) > 1 else ""]
    body += [_subject(subject, with_title=len(subjects) > 1) for subject in subjects]
    return frame(title, "".join(body))


def frame(title: str, body: str) -> str:
    """A whole page of HTML with the report's look.

    Args:
        title: the title of the window.
        body: HTML.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{style.CSS}</style></head>\n'
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _comparison(subjects: Sequence[Subject]) -> str:
    """A row a model: AP and AP50 over each set, of masks and of boxes."""
    measured = [(one.name, one.figures) for one in subjects if one.figures is not None]
    kinds = [kind for kind in KIND_TITLES if any(kind in figures["groups"] for _, figures in measured)]
    tables = []
    for kind in kinds:
        head = ["model", *(f"{group} {name}" for group in GROUP_ORDER for name in ("AP", "AP50"))]
        rows = []
        for name, figures in measured:
            groups = figures["groups"].get(kind, {})
            cells = [percent(groups.get(group, {}).get(column)) for group in GROUP_ORDER for column in ("AP", "AP50")]
            rows.append([escape(name), *cells])
        tables.append(f"<h3>{kind.capitalize()}</h3>{_table(head, rows)}")
    return f"<section><h2>Side by side</h2>{''.join(tables)}</section>" if tables else ""


def _subject(subject: Subject, *, with_title: bool) -> str:
    parts = [f"<h2>{escape(subject.name)}</h2>" if with_title else ""]
    parts += [f'<p class="note">{escape(note)}</p>' for note in subject.notes]
    if subject.figures is not None:
        parts += [_facts(subject.figures), _figures(subject.figures)]
    parts.append(_training(subject.log or {}))
    parts.append(_gallery(subject.shown))
    if subject.classes is not None:
        parts.append(_map(subject.classes, subject.figures))
    return f"<section>{''.join(parts)}</section>"


def _facts(figures: JsonView) -> str:
    name = figures.get("data", {}).get("name")
    facts = [f"{figures['images']} images" + (f" of {escape(name)}" if name else "")]
    if figures["boxes"] == "truth":
        facts.append("masks of the true boxes and classes")
    known = figures.get("a_classes")
    if known is not None:
        facts.append(f"{len(known)} classes with masks are {_badge('A')} and those with boxes alone {_badge('B')}")
    return f"<p>{'; '.join(facts)}. Figures are in per cent; - where no object is.</p>"


def _figures(figures: JsonView) -> str:
    parts = []
    for kind in KIND_TITLES:
        groups = figures["groups"].get(kind)
        if not groups:
            continue
        columns = [name for name in COLUMNS if name in groups["all"]]
        rows = [
            [_badge(group) if group in "AB" else "all", *(percent(groups[group].get(name)) for name in columns)]
            for group in GROUP_ORDER
            if group in groups
        ]
        parts.append(f"<h3>{kind.capitalize()}</h3>{_table(['', *columns], rows)}")
        parts.append(f'<div class="charts">{_precision(figures["curves"].get(kind, {}), kind)}</div>')
        parts.append(_by_class(figures["classes"].get(kind, []), kind))
    return "".join(parts)


def _precision(curves: Mapping[str, Mapping[str, Sequence[float]]], kind: str) -> str:
    """Precision-recall curves: one chart an IoU, one line a set."""
    charts = []
    for key, title in CURVES.items():
        lines = []
        for group in GROUP_ORDER:
            values = curves.get(group, {}).get(key)
            if values:
                places = [step / max(len(values) - 1, 1) for step in range(len(values))]
                lines.append(Line(SETS[group], places, values, COLOURS[group], dashed=group == "B"))
        name = f"{KIND_TITLES[kind]}: {title}"
        charts.append(svg.chart(lines, title=name, x_label="recall", y_label="precision", unit=True))
    return "".join(charts)


def _by_class(classes: Sequence[JsonView], kind: str) -> str:
    known = [one for one in classes if one["figures"].get("AP") is not None]
    known.sort(key=lambda one: (-one["figures"]["AP"], one["name"]))
    if not known:
        return ""
    head = ["class", "", "objects", "AP", "", "AP50", "AP75"]
    rows = []
    for one in known:
        value = one["figures"]["AP"]
        colour = COLOURS[one["set"] or "all"]
        bar = f'<div class="bar" style="width:{100 * value:.1f}%;background:{colour}"></div>'
        cells = [percent(one["figures"].get(name)) for name in ("AP50", "AP75")]
        name = escape(one["name"])
        rows.append([name, _badge(one["set"]), str(one["instances"]), percent(value), bar, *cells])
    is_open = " open" if kind == "mask" and len(known) <= OPEN_CLASSES else ""
    title = f"{kind.capitalize()} AP of each class ({len(known)} have objects)"
    return f"<details{is_open}><summary>{title}</summary>{_table(head, rows, 'classes')}</details>"


def _training(log: Mapping[str, Sequence[float]]) -> str:
    """Losses, and average precision of masks and of boxes, over the steps of the training."""
    steps = log.get("step", [])
    charts = [
        _over_steps("Loss", "loss", steps, {name: log[name] for name in log if name.startswith("loss")}),
        *(
            _over_steps(
                f"{kind.capitalize()} AP", "AP", steps, {name: log[name] for name in log if name in AP_COLUMNS[kind]}
            )
            for kind in AP_COLUMNS
        ),
    ]
    drawn = "".join(charts)
    return f'<h3>Training</h3><div class="charts">{drawn}</div>' if drawn else ""


def _over_steps(title: str, unit: str, steps: Sequence[float], columns: Mapping[str, Sequence[float]]) -> str:
    lines = [
        Line(name, *_known(steps, values), _colour(name, number), dashed="/B/" in name)
        for number, (name, values) in enumerate(columns.items())
    ]
    return svg.chart(lines, title=f"{title} over the training", x_label="step", y_label=unit)


def _known(steps: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """The steps of which a value is known: an evaluation has a separate line, between those of losses."""
    pairs = [(step, value) for step, value in zip(steps, values, strict=True) if value == value]
    return [step for step, _ in pairs], [value for _, value in pairs]


def _colour(name: str, number: int) -> str:
    group = next((group for group in ("A", "B", "all") if f"/{group}/" in name), None)
    return COLOURS[group] if group else "#{:02x}{:02x}{:02x}".format(*ANY[number % len(ANY)])


def _gallery(shown: Sequence[Shown]) -> str:
    parts = []
    for group, title in GROUPS.items():
        members = [one for one in shown if one.group == group]
        pairs = "".join(
            f'<figure class="pair"><figcaption>image {one.image_id}, quality {percent(one.quality)}</figcaption>'
            f'<img loading="lazy" alt="the truth about image {one.image_id}" src="{one.truth}">'
            f'<img loading="lazy" alt="the prediction for image {one.image_id}" src="{one.prediction}"></figure>'
            for one in members
        )
        parts.append(f'<h4>{title}</h4><div class="pairs">{pairs}</div>' if members else "")
    if not shown:
        return ""
    told = (
        "The truth stands left, the prediction right. An image's quality is the IoU of detections with the objects "
        "that they fit, less what has no partner. Classes of B have dashed boxes and a B in the label."
    )
    return f"<h3>Pictures</h3><p>{told}</p>{''.join(parts)}"


def _map(classes: Map, figures: JsonView | None) -> str:
    """The classes as T sees them."""
    known = (figures or {}).get("a_classes")
    points = [
        Point(name, float(x), float(y), *(_look(name, known)))
        for name, (x, y) in zip(classes.names, classes.places, strict=True)
    ]
    title = f"{classes.source.capitalize()} of {len(points)} classes, {percent(classes.share)}% of their variance"
    drawn = svg.scatter(points, title=title, x_label="first component", y_label="second component")
    legend = f"{_badge('A')} filled, {_badge('B')} hollow." if known is not None else ""
    told = f"What T reads of the classes, in the two directions in which they differ most. {legend}"
    return f'<h3>Classes as T sees them</h3><p>{told}</p><div class="map">{drawn}</div>'


def _look(name: str, known: Sequence[str] | None) -> tuple[str, bool]:
    """Colour of a class's point, and whether it is hollow."""
    if known is None:
        return ANY_COLOUR, False
    return (A_COLOUR, False) if name in known else (B_COLOUR, True)


def _badge(group: str) -> str:
    return f'<span class="badge {group}">{group}</span>' if group else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """A table that scrolls by itself where it is wider than the screen; cells are HTML."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
