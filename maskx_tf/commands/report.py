"""`maskx report`: one page about runs and evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: maskx report runs/mask_x evals/mask_x evals/oracle --out report.html"


def report(
    folders: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN_OR_EVAL",
            help="Run folders, model folders, and folders that maskx eval --out wrote, or their metrics.json.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The HTML file to write.")],
    pictures: Annotated[
        int, typer.Option(min=0, max=50, help="Images of each kind in the gallery: best, median, worst, random.")
    ] = 3,
    score: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Show and judge detections with at least this score.")
    ] = 0.5,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the choice of random images.")] = 0,
) -> None:
    """Write one HTML page about runs and evaluations. Tables, curves, classes, and truth next to prediction."""
    from maskx_tf.tasks.report import GalleryOptions, write_report

    report = write_report(folders, out, GalleryOptions(pictures, score, seed))
    print(f"wrote {report.path}: {report.subjects} models and evaluations, {report.bytes / 2**20:.1f} MiB")
