"""`maskx predict`: pictures in; pictures with masks, and COCO results, out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskx_tf.commands.quiet import import_tensorflow
from maskx_tf.errors import BadInput

if TYPE_CHECKING:
    from maskx_tf.structures import Detections

EXAMPLE = "Example: maskx predict runs/my_model photos/ --out predictions --json results.json --score 0.7"
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


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
    from rich.progress import track

    from maskx_tf.predict import ImagePredictor, View, read_image

    network, config, meta = _open(model)
    predictor = ImagePredictor(network, config.model)
    views = [View(scale, flip) for scale in (0.75, 1.0, 1.25) for flip in (False, True)]
    numbers, pictures = image_ids(files), picture_names(files)
    results: list[dict[str, Any]] = []
    for file in track(files, description="predicting", transient=True):
        image = read_image(file)
        found = predictor.augmented(image, views) if augment else predictor(image)
        found = at_least(found, score)
        if out is not None and not no_images:
            _write_picture(out / pictures[file], image, found, config.model, meta)
        results += as_results(found, image.shape[:2], numbers[file], meta.get("category_ids"), config.model)
    if json_file is not None:
        _write_results(json_file, results)
    print(f"{len(files)} images, {len(results)} detections" + ("" if no_images else f", pictures in {out}"))


def find_images(names: Sequence[str]) -> Iterator[Path]:
    """The image files that files, folders and patterns name, each once, in order."""
    import glob

    seen: set[Path] = set()
    for name in names:
        path = Path(name)
        if path.is_dir():
            found = sorted(entry for entry in path.rglob("*") if entry.suffix.lower() in SUFFIXES)
        elif path.exists():
            found = [path]
        else:
            found = [Path(match) for match in sorted(glob.glob(name, recursive=True))]
            if not found:
                raise BadInput(f"{name}: no such file or folder, and no file fits it as a pattern")
        for file in found:
            if file not in seen:
                seen.add(file)
                yield file


def image_ids(files: Sequence[Path]) -> dict[Path, int]:
    """COCO's image ids: the numbers in the files' names if all are distinct numbers, or else 1, 2, 3, ..."""
    if all(file.stem.isascii() and file.stem.isdigit() for file in files):
        numbers = [int(file.stem) for file in files]
        if len(set(numbers)) == len(files):
            return dict(zip(files, numbers, strict=True))
    return {file: number for number, file in enumerate(files, start=1)}


def picture_names(files: Sequence[Path]) -> dict[Path, str]:
    """A name for each picture: the file's own, with the names of its folders in front where two would be the same."""
    counts: dict[str, int] = {}
    for file in files:
        counts[file.stem] = counts.get(file.stem, 0) + 1
    return {
        file: (file.stem if counts[file.stem] == 1 else "_".join([*file.parts[:-1], file.name]).strip("/._")) + ".png"
        for file in files
    }


def at_least(found: Detections, score: float) -> Detections:
    """The detections from this score on."""
    kept = found.scores >= score
    return found._replace(**{key: value[kept] for key, value in found._asdict().items() if value is not None})


def as_results(
    found: Detections, size: tuple[int, int], image_id: int, category_ids: Sequence[int] | None, config: Any
) -> list[dict[str, Any]]:
    """COCO's results of one image; category ids are the data set's where the model knows them, or else 1..K."""
    from pycocotools import mask as coco_mask

    from maskx_tf.ops.paste import paste

    height, width = size
    results = []
    for index in range(len(found.scores)):
        number = int(found.classes[index])
        x1, y1, x2, y2 = (float(edge) for edge in found.boxes[index])
        result: dict[str, Any] = {
            "image_id": image_id,
            "category_id": number if category_ids is None else int(category_ids[number - 1]),
            "bbox": [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(float(found.scores[index]), 6),
        }
        if found.masks is not None:
            one = slice(index, index + 1)
            pixels = paste(found.masks[one], found.boxes[one], height, width, mode=config.detections.paste)[0]
            rle = coco_mask.encode(pixels.astype("uint8", order="F"))
            result["segmentation"] = {"size": [height, width], "counts": rle["counts"].decode("ascii")}
        results.append(result)
    return results


def _open(model: str) -> tuple[Any, Any, dict[str, Any]]:
    """The model, its configuration and what else is known of it; of a recipe, a model with random weights."""
    if not model.endswith((".yaml", ".yml")):
        from maskx_tf.checkpoints.io import open_model

        return open_model(model)
    from maskx_tf.config import load
    from maskx_tf.models.build import build

    config = load(model)
    return build(config.model), config, {}


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
