"""`maskx import`: the weights of other programs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskx_tf.quiet import import_tensorflow

if TYPE_CHECKING:
    from maskx_tf.config import ModelConfig
    from maskx_tf.files import Json

EXAMPLE = "Example: maskx import detectron2 model_final.pkl --out imported model.detections.score=0.3"
LONGEST = 3


class Program(StrEnum):
    """The programs whose files can be read."""

    torchvision = "torchvision"
    detectron2 = "detectron2"
    detectron = "detectron"
    keras = "keras"
    mxnet = "mxnet"


def import_(
    source: Annotated[
        Program, typer.Argument(metavar="SOURCE", help="torchvision, detectron2, detectron, keras or mxnet.")
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", help=".pth, .pkl, .safetensors, .npz, .h5 or .params.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the model: a new one, or a model's to replace.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings that win over the source's, such as model.roi.samples=1."),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Class names, one a line, or JSON; else COCO's for 80 classes."),
    ] = None,
    all_ids: Annotated[
        bool, typer.Option("--all-ids", help="Keep the rows of all 90 ids of COCO, as torchvision does.")
    ] = False,
    without_rpn: Annotated[
        bool, typer.Option("--without-rpn", help="Accept a Detectron file without region proposals.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON.")] = False,
) -> None:
    """Make a model folder of another program's file. seg_every_thing's files are Detectron's."""
    import json

    import_tensorflow()
    from maskx_tf.importers.plan import ImportRequest
    from maskx_tf.importers.run import import_file

    request = ImportRequest(file, tuple(overrides or ()), classes, all_ids, without_rpn)
    imported = import_file(source.value, request, out)
    summary = {"out": str(out), **_facts(imported.config.model), **imported.meta}
    print(json.dumps(summary, indent=2, ensure_ascii=False) if as_json else describe(summary))


def _facts(model: ModelConfig) -> dict[str, str | int]:
    return {"family": model.family, "backbone": model.backbone.name, "classes": len(model.class_names)}


def describe(summary: Json) -> str:
    """The summary as text."""
    lines = [
        f"wrote {summary['out']}: {summary['family']}, {summary['backbone']}, {summary['classes']} classes",
        "",
        f"tensors used: {summary['used']}",
    ]
    lines += [f"left out: {_some(names)}: {reason}" for reason, names in summary["skipped"].items() if names]
    if summary["fresh"]:
        lines.append(f"not in the file, random: {_some(summary['fresh'])}")
    lines += ["", "settings from the file and its program:"]
    lines += [f"  {key} = {value}" for key, value in summary["conventions"].items()]
    if summary["notes"]:
        lines += ["", "to know:"] + [f"- {note}" for note in summary["notes"]]
    return "\n".join(lines)


def _some(names: list[str]) -> str:
    rest = len(names) - LONGEST
    return ", ".join(names[:LONGEST]) + (f" and {rest} more" if rest > 0 else "")
