"""`maskx predict`: pictures in; pictures with masks, and COCO results, out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskx_tf.commands.progress import progress as progress_bar
from maskx_tf.commands.quiet import import_tensorflow
from maskx_tf.errors import BadInput
from maskx_tf.tasks.images import SUFFIXES, at_least, find_images, image_ids, picture_names

if TYPE_CHECKING:
    from maskx_tf.structures import Detections

EXAMPLE = "Example: maskx predict runs/my_model photos/ --out predictions --json results.json --score 0.7"


def predict(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A run, checkpoint or imported-model folder; a .yaml: random weights."),
    ],
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE", help="Image files, folders of them, or quoted patterns.")
    ],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for the pictures.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write COCO results to this file.")
    ] = None,
    score: Annotated[float, typer.Option(min=0.0, max=1.0, help="Show and write detections from this score on.")] = 0.5,
    no_images: Annotated[bool, typer.Option("--no-images", help="Write no pictures.")] = False,
    augment: Annotated[
        bool, typer.Option("--augment", help="Also look at the image mirrored, and at 3/4 and 5/4 of its size.")
    ] = False,
) -> None:
    """Find and segment objects in images."""
    files = list(find_images(images))
    if not files:
        raise BadInput(f"{' '.join(images)}: no image there ({', '.join(SUFFIXES)})")
    if no_images and json_file is None:
        raise BadInput("--no-images without --json leaves nothing to write")
    if not no_images and out is None:
        raise BadInput("expected --out DIR for the pictures, or --no-images")

    import_tensorflow()
    from maskx_tf.masks.results import coco_results
    from maskx_tf.prediction.images import View, read_image
    from maskx_tf.tasks.models import load

    opened = load(model)
    config, meta, predictor = opened.config, opened.meta, opened.predictor
    views = [View(scale, flip) for scale in (0.75, 1.0, 1.25) for flip in (False, True)]
    numbers, pictures = image_ids(files), picture_names(files)
    results: list[dict[str, Any]] = []
    with progress_bar("predicting", len(files)) as bar:
        for file in files:
            image = read_image(file)
            found = predictor.augmented(image, views) if augment else predictor(image)
            found = at_least(found, score)
            if out is not None and not no_images:
                _write_picture(out / pictures[file], image, found, config.model, meta)
            results += coco_results(
                found, image.shape[:2], numbers[file], meta.get("category_ids"), config.model.detections.paste
            )
            bar.advance()
    if json_file is not None:
        _write_results(json_file, results)
    print(f"{len(files)} images, {len(results)} detections" + ("" if no_images else f", pictures in {out}"))


def _write_picture(path: Path, image: Any, found: Detections, config: Any, meta: dict[str, Any]) -> None:
    from PIL import Image

    from maskx_tf.visualize import draw, enlarged

    a_classes = meta.get("a_classes")
    picture = draw(
        *enlarged(image, found),
        config.class_names,
        a_classes=None if a_classes is None else set(a_classes),
        mode=config.detections.paste,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    Image.fromarray(picture).save(unfinished, format="PNG")
    unfinished.replace(path)


def _write_results(path: Path, results: list[dict[str, Any]]) -> None:
    import json

    from maskx_tf.config.loader import replace_text

    replace_text(path, json.dumps(results) + "\n")
