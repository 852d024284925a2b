"""`maskx data grabcut`: a data set whose masks are what GrabCut makes of its boxes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskx_tf.commands.data import Annotations, Format, Images
from maskx_tf.commands.progress import progress as progress_bar
from maskx_tf.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from maskx_tf.data.dataset import Dataset

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
) -> None:
    """Write a COCO file with GrabCut's masks of the boxes. The paper's baseline is trained on it."""
    from maskx_tf.data import coco_write, splits
    from maskx_tf.data.readers import Source, read
    from maskx_tf.evaluation.grabcut import require

    require()
    dataset = read(Source(images, annotations, form))
    kept = frozenset[str]() if keep is None else splits.a_classes(splits.parse_text(keep), dataset.class_names)
    with progress_bar("cutting") as bar:
        bar.started(len(dataset.images))
        made = cut(dataset, kept, bar.advance)
    coco_write.write(made, out, images)
    count = sum(one.has_mask for image in made.images for one in image.instances)
    print(f"wrote {out}: {len(made.images)} images, {count} instances with masks")


def cut(dataset: Dataset, kept: frozenset[str], advance: Callable[[], None]) -> Dataset:
    """The data set with GrabCut's masks in place of its own, but for classes that keep theirs.

    Crowds have none: their boxes hold many objects. Nor do boxes of which nothing lies in the image.
    """
    from maskx_tf.data import files
    from maskx_tf.data.dataset import ImageRecord, Instance
    from maskx_tf.data.fields import Unfit
    from maskx_tf.data.problems import Report, refuse
    from maskx_tf.evaluation.grabcut import segment
    from maskx_tf.ops.rle import encode_crop

    def one_image(place: int, report: Report) -> ImageRecord:
        del report
        image = dataset.images[place]
        try:
            pixels = files.pixels(image)
        except Unfit as problem:
            raise BadInput(f"{image.file!s}: image {image.id} of {dataset.name}: {problem}") from None

        def masked(one: Instance) -> Instance:
            if dataset.class_names[one.label - 1] in kept:
                return one
            crop = segment(pixels, [one.box])[0]
            is_seen = crop.pixels.any() and not one.crowd
            return one._replace(segmentation=encode_crop(crop, image.height, image.width) if is_seen else None)

        return image._replace(instances=tuple(map(masked, image.instances)))

    records = []
    for record in files.in_threads(one_image, range(len(dataset.images)), refuse):
        records.append(record)
        advance()
    return dataset._replace(images=tuple(records))
