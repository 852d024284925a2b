"""`maskx study`: reproduces the papers' tables, next to the papers' figures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from maskx_tf import interrupts
from maskx_tf.commands import recipes
from maskx_tf.quiet import import_tensorflow

EXAMPLE = "Example: maskx study synthetic_quick --out studies/quick"


def study(
    config_file: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG",
            help="A study: a YAML file, or a name that maskx recipes lists.",
            autocompletion=recipes.complete,
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings that replace the study's.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="STUDY", help="The study folder; studies/ and its name if not given.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="CELL", help="Run only GROUP/METHOD, a group, or a method; may be repeated."),
    ] = None,
    summarize: Annotated[
        bool, typer.Option("--summarize", help="Run nothing; make the tables of the existing results.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the tables' figures as JSON.")] = False,
) -> None:
    """Run methods over seeds and splits, and compare them. Started again, it goes on."""
    from maskx_tf.study import config

    loaded = config.load(config_file, overrides or [])
    folder = out or Path("studies") / loaded.name
    if not summarize:
        import_tensorflow()
        from maskx_tf.study import run

        try:
            run.run(loaded, folder, only or (), lambda text: print(text, file=sys.stderr, flush=True))
        except run.StudyStopped:
            print("stopped; the same command goes on from there", file=sys.stderr)
            raise typer.Exit(interrupts.EXIT_CODE) from None
    from maskx_tf.study import summary, tables

    found = summary.summarise(loaded, folder)
    tables.write(found, folder)
    print(json.dumps(tables.as_json(found), indent=2, allow_nan=False) if as_json else tables.as_markdown(found))
