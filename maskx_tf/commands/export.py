"""`maskx export`: models that run without this package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskx_tf.commands.data import AsJson
from maskx_tf.errors import BadInput
from maskx_tf.export.precision import Precision
from maskx_tf.quiet import import_tensorflow

EXAMPLE = "Example: maskx export saved-model runs/first --out models/first model.input.canvas='[800, 1216]'"

ONNX_EXAMPLE = "Example: maskx export onnx runs/first --out first-onnx --check photos/"

LITERT_EXAMPLE = "Example: maskx export litert runs/first --out phone --precision int8 --images photos/"

app = typer.Typer(name="export", help="Write a model for TF Serving, for a device or for ONNX.", epilog=EXAMPLE)

ModelFolder = Annotated[Path, typer.Argument(metavar="MODEL", help="A run, checkpoint or imported-model folder.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Settings that override the model's, such as export.warmup=3."),
]
MetricsFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="metrics.json of maskx eval to include; the model's own if not given."),
]


@app.command("saved-model", epilog=EXAMPLE)
def saved_model(
    model: ModelFolder,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the versions; its name is the model's name.")],
    overrides: Overrides = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="The new version's number; one more than the highest if not given.")
    ] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16: the same as export.bf16=true.")] = False,
    metrics: MetricsFile = None,
    as_json: AsJson = False,
) -> None:
    """Write a SavedModel for TF Serving. Its entry points take image files, pixels, or files and boxes."""
    import_tensorflow()
    from maskx_tf.tasks.export import export_saved_model

    settings = [*(overrides or ()), *(["export.bf16=true"] if bf16 else [])]
    written = export_saved_model(model, out, settings, version=version, metrics=metrics)
    _print({**written._asdict(), "path": str(written.path)}, as_json)


@app.command(epilog=LITERT_EXAMPLE)
def litert(
    model: ModelFolder,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The new folder.")],
    overrides: Overrides = None,
    precision: Annotated[
        Precision,
        typer.Option(help="32, 16 or 8 bits for weights; mixed: 8 for masks only; int8: features in integers, too."),
    ] = Precision.float32,
    parts: Annotated[bool, typer.Option("--parts", help="Write detector and mask head as two graphs.")] = False,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Images that resemble those of later use, for --precision int8.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Number of these images that are used.")] = 100,
    metrics: MetricsFile = None,
    as_json: AsJson = False,
) -> None:
    """Write a LiteRT model of builtin operators. It takes images of one size."""
    import_tensorflow()
    from maskx_tf.tasks.export import LiteRTOptions, export_litert

    if (images is not None) != (precision is Precision.int8):
        raise BadInput("--images goes with --precision int8, and with nothing else")
    seen = () if images is None else (str(images),)
    options = LiteRTOptions(precision.value, parts, seen, samples)
    facts = export_litert(model, out, overrides or (), options, metrics=metrics)
    _print({"path": str(out), **facts}, as_json)


@app.command(epilog=ONNX_EXAMPLE)
def onnx(
    model: ModelFolder,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The new folder.")],
    overrides: Overrides = None,
    check: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Images on which answers are compared with the model's.")
    ] = None,
    metrics: MetricsFile = None,
    as_json: AsJson = False,
) -> None:
    """Write an ONNX model of standard operators. It takes any number of images of one size."""
    import_tensorflow()
    from maskx_tf.tasks.export import export_onnx

    seen = () if check is None else (str(check),)
    _print({"path": str(out), **export_onnx(model, out, overrides or (), metrics=metrics, check=seen)}, as_json)


def _print(summary: dict[str, object], as_json: bool) -> None:
    import json

    if as_json:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
        return
    print(f"wrote {summary['path']}")
    for key, value in summary.items():
        if key != "path":
            print(f"  {key}: {_text(value)}")


def _text(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key} {_text(one)}" for key, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
