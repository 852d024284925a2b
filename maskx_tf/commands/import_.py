"""`maskx import`: the weights of other programs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskx_tf.commands.progress import progress
from maskx_tf.errors import BadInput
from maskx_tf.quiet import import_tensorflow

if TYPE_CHECKING:
    from maskx_tf.config import ModelConfig
    from maskx_tf.files import Json

EXAMPLE = "Example: maskx import detectron2 model_final.pkl --out imported model.detections.score=0.3"
EXAMPLE_NAME = "torchvision:maskrcnn_resnet50_fpn"
LONGEST = 3


class Program(StrEnum):
    """The programs whose files can be read."""

    torchvision = "torchvision"
    detectron2 = "detectron2"
    detectron = "detectron"
    keras = "keras"
    mxnet = "mxnet"


def complete(incomplete: str) -> list[str]:
    """The names of published weights that begin so, for a shell's Tab key."""
    from maskx_tf.importers.published import names

    return [name for name in names() if name.startswith(incomplete)]


def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="torchvision, detectron2, detectron, keras or mxnet; or published weights, such as "
            "torchvision:maskrcnn_resnet50_fpn, which are downloaded.",
            autocompletion=complete,
        ),
    ],
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE", help="A .pth, .pkl, .safetensors, .npz, .h5 or .params file; not for published weights."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings that override the source's, such as model.roi.samples=1."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the model: a new one, or that of a model to replace.")
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File of class names, one per line, or JSON; COCO's for 80 classes if not given."
        ),
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

    settings = tuple(overrides or ())
    is_name = ":" in source
    if is_name and file is not None:  # what follows a name is a setting
        settings = (file, *settings)
    if not is_name:
        if source not in list(Program):
            raise BadInput(f"{source}: is not one of {', '.join(Program)}, nor a name such as {EXAMPLE_NAME}")
        if file is None:
            raise BadInput("Missing argument 'FILE'")
    if out is None:
        raise BadInput("Missing option '--out': the folder of the model")
    import_tensorflow()
    from maskx_tf.importers.plan import ImportRequest
    from maskx_tf.importers.run import import_file
    from maskx_tf.tasks.models import download

    if is_name:
        with progress("downloading") as bar:
            source, path = download(source, bar)
    else:
        path = Path(file or "")
    imported = import_file(source, ImportRequest(path, settings, classes, all_ids, without_rpn), out)
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
