"""`maskx export`: models that run without this package."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskx_tf.commands.quiet import import_tensorflow
from maskx_tf.errors import BadInput

if TYPE_CHECKING:
    from maskx_tf.export.source import Source

EXAMPLE = "Example: maskx export saved-model runs/first --out models/first model.input.canvas='[800, 1216]'"

LITERT_EXAMPLE = "Example: maskx export litert runs/first --out phone --precision int8 --images photos/"

app = typer.Typer(name="export", help="Write a model for TF Serving or for a device.", epilog=EXAMPLE)

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A run, checkpoint or imported-model folder.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Settings that win over the model's, such as export.warmup=3."),
]
Metrics = Annotated[
    Path | None, typer.Option(metavar="FILE", help="metrics.json of maskx eval, to be packed; else the model's own.")
]
AsJson = Annotated[bool, typer.Option("--json", help="The summary as JSON.")]


@app.command("saved-model", epilog=EXAMPLE)
def saved_model(
    model: Model,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the versions; its name is the model's name.")],
    overrides: Overrides = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="The new version's number; else one more than the highest there.")
    ] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16: the same as export.bf16=true.")] = False,
    metrics: Metrics = None,
    as_json: AsJson = False,
) -> None:
    """Write a SavedModel for TF Serving. Its entry points take image files, pixels, or files and boxes."""
    import_tensorflow()

    from maskx_tf.export import saved_model
    from maskx_tf.export.source import open_source

    source = open_source(model, [*(overrides or ()), *(["export.bf16=true"] if bf16 else [])])
    written = saved_model.write(_with(source, metrics), out, version=version)
    _print({**written._asdict(), "path": str(written.path)}, as_json)


class Precision(StrEnum):
    """What a LiteRT model computes with."""

    float32 = "float32"
    float16 = "float16"
    dynamic = "dynamic"
    int8 = "int8"


@app.command(epilog=LITERT_EXAMPLE)
def litert(
    model: Model,
    out: Annotated[Path, typer.Option(metavar="DIR", help="A folder that is not there yet.")],
    overrides: Overrides = None,
    precision: Annotated[
        Precision,
        typer.Option(help="float16 and dynamic store weights in 16 and 8 bits; int8 also computes features in 8."),
    ] = Precision.float32,
    parts: Annotated[bool, typer.Option("--parts", help="Detector and mask head as graphs of their own.")] = False,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Images like those that will be seen, for --precision int8.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="How many of them are looked at.")] = 100,
    metrics: Metrics = None,
    as_json: AsJson = False,
) -> None:
    """Write a LiteRT model of builtin operators. It takes images of one size."""
    import_tensorflow()

    from maskx_tf.export import litert as writer
    from maskx_tf.export.device import letterbox
    from maskx_tf.export.source import open_source
    from maskx_tf.prediction.images import read_image
    from maskx_tf.tasks.images import find_images

    if (images is not None) != (precision is Precision.int8):
        raise BadInput("--images goes with --precision int8, and with nothing else")
    source = open_source(model, overrides or (), portable=True)
    size = source.config.model.input
    files = [] if images is None else list(find_images([str(images)]))[:samples]
    examples = (letterbox(read_image(file), size.canvas, size.short_side, size.long_side) for file in files)
    facts = writer.write(_with(source, metrics), out, precision=precision.value, parts=parts, images=examples)
    _print({"path": str(out), **facts}, as_json)


def _with(source: Source, metrics: Path | None) -> Source:
    """The source with the figures of an evaluation."""
    from maskx_tf.data.files import read_json

    return source if metrics is None else source._replace(meta={**source.meta, "metrics": read_json(metrics)})


def _print(summary: dict[str, Any], as_json: bool) -> None:
    import json

    if as_json:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
        return
    print(f"wrote {summary['path']}")
    for key, value in summary.items():
        if key != "path":
            print(f"  {key}: {_text(value)}")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key} {_text(one)}" for key, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
