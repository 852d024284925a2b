"""`maskx export`: models that run without this package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from maskx_tf.commands.quiet import import_tensorflow

EXAMPLE = "Example: maskx export saved-model runs/first --out models/first model.input.canvas='[800, 1216]'"

app = typer.Typer(name="export", help="Write a model as a SavedModel for TF Serving.", epilog=EXAMPLE)

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A run, checkpoint or imported-model folder.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Settings that win over the model's, such as export.warmup=3."),
]
AsJson = Annotated[bool, typer.Option("--json", help="The summary as JSON.")]


@app.callback()
def export() -> None:
    """Write a model as a SavedModel for TF Serving."""


@app.command("saved-model", epilog=EXAMPLE)
def saved_model(
    model: Model,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the versions; its name is the model's name.")],
    overrides: Overrides = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="The new version's number; else one more than the highest there.")
    ] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16: the same as export.bf16=true.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a SavedModel with entry points for image files, for pixels, and for files and boxes."""
    import_tensorflow()

    from maskx_tf.export import saved_model
    from maskx_tf.export.source import open_source

    source = open_source(model, [*(overrides or ()), *(["export.bf16=true"] if bf16 else [])])
    written = saved_model.write(source, out, version=version)
    _print({**written._asdict(), "path": str(written.path)}, as_json)


def _print(summary: dict[str, Any], as_json: bool) -> None:
    import json

    if as_json:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
        return
    rest = ", ".join(f"{key} {value}" for key, value in summary.items() if key not in ("path", "signatures"))
    print(f"wrote {summary['path']}: {rest}")
    print("signatures: " + ", ".join(summary["signatures"]))
