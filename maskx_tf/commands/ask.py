"""`maskx ask`: what a server finds in pictures. Neither this nor what it imports needs TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskx_tf.errors import BadInput
from maskx_tf.tasks.images import at_least, find_images, image_ids, picture_files

if TYPE_CHECKING:
    from maskx_tf.serving.client import Answer, Client

EXAMPLE = "Example: maskx ask localhost:8500 photos/ --model pets --out answers --json results.json"
SERVED_SUFFIXES = (".jpg", ".jpeg", ".png")


def ask(
    address: Annotated[
        str, typer.Argument(metavar="HOST:PORT", help="HOST:PORT of a gRPC port, or http://HOST:PORT of a REST port.")
    ],
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE", help="JPEG and PNG files, folders of them, or quoted patterns.")
    ],
    model: Annotated[str, typer.Option(help="The model's name; maskx serve does not need it.")] = "",
    version: Annotated[int | None, typer.Option(min=1, help="The model's version; the newest if not given.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Also draw the answers, into this folder.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write COCO results, with file names.")
    ] = None,
    score: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Show and write detections with at least this score.")
    ] = 0.5,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="assets/labels.json of the export; drawings then mark classes of A and B."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds for each picture.")] = 60.0,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Pictures sent at a time.")] = 4,
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt gRPC.")] = False,
    roots: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PEM file of certificates to trust; implies --tls.")
    ] = None,
) -> None:
    """Ask a server what is in pictures."""
    from maskx_tf.files import check_writable, write_json
    from maskx_tf.serving.client import Client, ServingError, Tls, read_tls

    if "://" not in address and not address.rpartition(":")[2].isdigit():
        raise BadInput(f"{address}: expected HOST:PORT, such as localhost:8500, or http://HOST:PORT")
    files = list(find_images(images, SERVED_SUFFIXES))
    if not files:
        raise BadInput(f"{' '.join(images)}: no image there ({', '.join(SERVED_SUFFIXES)})")
    a_classes = None if labels is None else _read_labels(labels)
    try:
        security = read_tls(str(roots)) if roots is not None else Tls() if tls else None
    except OSError as error:
        raise BadInput(f"{roots}: cannot be read: {error.strerror}") from None
    if json_file is not None:
        check_writable(json_file)
    numbers, pictures = image_ids(files), {} if out is None else picture_files(files, out)
    results: list[dict[str, object]] = []
    unread = 0
    try:
        with Client(address, model, version=version, timeout=timeout, tls=security) as client:
            for file, answer in _answers(client, files, concurrency):
                unread += not answer.ok
                answer = _from(answer, score)
                print(f"{file}: {describe(answer)}", flush=True)
                if pictures and answer.ok:
                    _draw(pictures[file], file, answer, a_classes)
                if json_file is not None:
                    results += [{**entry, "file_name": file.as_posix()} for entry in _results(answer, numbers[file])]
    except ServingError as error:
        raise BadInput(f"{address}: {error}{_advice(error.code, model)}") from None
    except ValueError as error:
        raise BadInput(f"{address}: {error}") from None
    if json_file is not None:
        write_json(json_file, results, indent=None)
    if unread:
        raise BadInput(f"{unread} of {len(files)} images could not be read by the server, as said above")


def describe(answer: Answer) -> str:
    """An answer in one line: classes and scores, best first."""
    if not answer.ok:
        return answer.status
    found = answer.detections
    if not len(found.valid):
        return "nothing found"
    names = answer.names or [f"class {number}" for number in found.classes]
    return ", ".join(f"{name} {value:.2f}" for name, value in zip(names, found.scores, strict=True))


def _answers(client: Client, files: Sequence[Path], concurrency: int) -> Iterator[tuple[Path, Answer]]:
    from maskx_tf.files import read_bytes

    return zip(files, client.stream(map(read_bytes, files), concurrency=concurrency), strict=True)


def _from(answer: Answer, score: float) -> Answer:
    """The answer without detections below this score."""
    kept = answer.detections.scores >= score
    names = answer.names and tuple(name for name, keep in zip(answer.names, kept, strict=True) if keep)
    return answer._replace(detections=at_least(answer.detections, score), names=names)


def _advice(code: str, model: str) -> str:
    named = model or "none"
    return f" (--model is {named})" if code in ("NOT_FOUND", "INVALID_ARGUMENT") else ""


def _read_labels(path: Path) -> set[str] | None:
    """Names of the classes with masks, if the file tells."""
    from maskx_tf.files import read_json

    labels = read_json(path)
    try:
        marked = [label for label in labels if "masks" in label]
        return {str(label["name"]) for label in marked if label["masks"]} if marked else None
    except (TypeError, LookupError):
        raise BadInput(f"{path}: expected labels.json of an export") from None


def _draw(path: Path, file: Path, answer: Answer, a_classes: set[str] | None) -> None:
    from maskx_tf.masks.rgb import read_image
    from maskx_tf.tasks.pictures import write_picture
    from maskx_tf.visualize import draw, enlarged

    found, names = answer.numbered()
    write_picture(path, draw(*enlarged(read_image(file), found), names, a_classes=a_classes, mode=answer.paste))


def _results(answer: Answer, image_id: int) -> list[dict[str, object]]:
    from maskx_tf.masks.paste import paste_crops
    from maskx_tf.masks.results import coco_results

    found = answer.detections
    crops = paste_crops(found.masks, found.boxes, answer.size, answer.paste)
    return coco_results(found, answer.size, image_id, None, crops)
