"""Figures as text: one table a kind of IoU, in per cent, as papers print them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ValidationError, field_validator

from maskx_tf import files
from maskx_tf.config.data import Source
from maskx_tf.errors import BadInput
from maskx_tf.evaluation.metrics import gap
from maskx_tf.files import Json, JsonView

METRICS = "metrics.json"  # what an evaluation writes
COLUMNS = (
    "AP",
    "AP50",
    "AP75",
    "APs",
    "APm",
    "APl",
    "APr",
    "APc",
    "APf",
    "AR",
    "AR100",
    "AR300",
    "APr50",
    "APr70",
    "IoU",
)
RULES = {"cityscapes": ", by Cityscapes' rules", "lvis": ", by LVIS' rules"}
GROUP_ORDER = ("A", "B", "all")


class _Class(BaseModel):
    name: str
    set: str
    instances: int
    unknown: int
    figures: dict[str, float | None]


class _Data(BaseModel):
    """The data set of an evaluation, as in a configuration."""

    name: str | None = None
    val: tuple[Source, ...] = ()
    names: str | None = None


class _Stored(BaseModel):
    """The keys of metrics.json that are needed to show it; it may have more."""

    images: int
    boxes: str
    groups: dict[str, dict[str, dict[str, float | None]]]
    classes: dict[str, list[_Class]]
    curves: dict[str, dict[str, dict[str, list[float]]]]
    name: str | None = None
    model: str | None = None
    data: _Data = _Data()
    a_classes: list[str] | None = None

    @field_validator("groups")
    @classmethod
    def _whole(cls, groups: dict[str, Json]) -> dict[str, Json]:
        if not groups or not all("all" in of_kind for of_kind in groups.values()):
            raise ValueError("no figures over all classes")
        return groups


def read_metrics(path: Path) -> Json:
    """The figures that `maskx eval` wrote.

    Raises:
        BadInput: the file cannot be read, or is another.
    """
    data = files.read_json(path)
    try:
        _Stored.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadInput(f"{path}: expected the figures of maskx eval: {where}: {first['msg']}") from None
    return dict(data)


def as_text(figures: JsonView, *, per_class: bool = False) -> str:
    """Tables of what `Metrics.as_json` gives."""
    boxes = "" if figures["boxes"] == "detected" else ", boxes and classes of the truth"
    rules = RULES.get(figures.get("metric", ""), "")
    lines = [f"{figures['images']} images{boxes}{rules}; in per cent; - where no object is"]
    for kind, groups in figures["groups"].items():
        columns = [name for name in COLUMNS if name in groups["all"]]
        rows = [[group, *_cells(groups[group], columns)] for group in GROUP_ORDER if group in groups]
        lines += ["", *_table([kind, *columns], rows)]
        classes = figures["classes"][kind]
        unknown = sum(one["unknown"] for one in classes)
        if unknown:
            lines.append(f"{unknown} objects have no {kind} to compare with and count neither way")
        if per_class:
            rows = [
                [one["name"], one["set"] or "-", str(one["instances"]), *_cells(one["figures"], columns)]
                for one in classes
            ]
            lines += ["", *_table([f"{kind}, by class", "set", "objects", *columns], rows)]
    return "\n".join(lines)


def gap_text(figures: JsonView, oracle: JsonView) -> str:
    """Returns the gap between the model and the oracle, over B, or over all if classes are not divided."""
    groups = next(iter(figures["groups"].values()))
    group = "B" if "B" in groups else "all"
    found = gap(figures, oracle, group)
    rows = [
        [f"{kind} {name}", *_cells(entry, ("method", "oracle", "difference", "share"))]
        for kind, entries in found.items()
        for name, entry in entries.items()
        if name in COLUMNS[:3]
    ]
    if not rows:
        raise BadInput(f"oracle: expected figures over {group} that the model has, too; found none")
    return "\n".join(_table([f"gap to the oracle, {group}", "model", "oracle", "difference", "share"], rows))


def percent(value: float | None) -> str:
    """A share as it is printed."""
    return "-" if value is None else f"{100 * value:.1f}"


def _cells(figures: Mapping[str, float | None], names: Sequence[str]) -> list[str]:
    return [percent(figures.get(name)) for name in names]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with the first column to the left and the others to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in [head, *rows]
    ]
