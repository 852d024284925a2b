"""`maskx data records`: a data set as TFRecord files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from maskx_tf.commands.data import AsJson
from maskx_tf.commands.progress import progress
from maskx_tf.errors import BadInput

EXAMPLE = "Example: maskx data records recipe.yaml data.masks=voc --out records; then train with data.records=records"


def records(
    config_file: Annotated[
        str, typer.Argument(metavar="CONFIG", help="A recipe whose data.train is written, joined and renamed.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write; new, or not finished.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings that replace the recipe's.")
    ] = None,
    per_shard: Annotated[int, typer.Option(min=1, max=1_000_000, help="Images per file.")] = 500,
    workers: Annotated[
        int, typer.Option(help="Processes that write; 0: one per core. The files do not depend on it.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Write what a recipe trains on as TFRecord files. Without the masks of B; started again, it goes on."""
    from maskx_tf.config import load
    from maskx_tf.data import opening
    from maskx_tf.data.threads import cores
    from maskx_tf.quiet import import_tensorflow

    if not 0 <= workers <= 256:
        raise BadInput(f"--workers {workers}: expected 0 to 256")
    config = load(config_file, overrides or [])
    import_tensorflow()
    from maskx_tf.data.pipeline import tfrecords_write
    from maskx_tf.training import start

    dataset = opening.training_set(config.data, start.classes(config, ()))
    _, dataset = opening.with_keypoints(config, dataset)

    with progress("writing") as bar:
        figures = tfrecords_write.write(
            dataset,
            out,
            per_shard=per_shard,
            workers=workers or cores(),
            started=bar.started,
            advance=bar.advance,
            prepare=import_tensorflow,
        )
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    print(
        f"wrote {out}: {figures['images']} images, {figures['instances']} instances, {figures['with_masks']} with "
        f"masks, in {figures['shards']} files of {figures['bytes'] / 2**20:.0f} MiB in all"
        + (f"; {figures['shards_kept']} of them were there" if figures["shards_kept"] else "")
    )
