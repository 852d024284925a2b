"""`maskx data grabcut`: a data set whose masks are what GrabCut makes of its boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskx_tf.commands.data import Annotations, Format, Images, Outside
from maskx_tf.commands.progress import progress as progress_bar

EXAMPLE = "Example: maskx data grabcut --images photos --annotations boxes.json --out grabcut.json --keep voc"


def grabcut(
    images: Images,
    annotations: Annotations,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The COCO file to write.")],
    form: Format = "coco",
    keep: Annotated[
        str | None,
        typer.Option(
            "--keep",
            metavar="POLICY",
            help="Classes that keep the masks they have, as --masks of maskx data check has it; unless given, none.",
        ),
    ] = None,
    outside: Outside = False,
) -> None:
    """Write a COCO file with GrabCut's masks of the boxes. The paper's baseline is trained on it."""
    from maskx_tf.data import splits
    from maskx_tf.data.formats.readers import DataFiles
    from maskx_tf.tasks.grabcut import write_cut

    policy = None if keep is None else splits.parse_text(keep)
    with progress_bar("cutting") as bar:
        made = write_cut(DataFiles(images, annotations, form, outside=outside), out, policy, bar)
    count = sum(one.has_mask for image in made.images for one in image.instances)
    print(f"wrote {out}: {len(made.images)} images, {count} instances with masks")
