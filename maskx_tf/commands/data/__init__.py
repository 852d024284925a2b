"""`maskx data`: makes, checks, counts, shows, splits and converts data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskx_tf.commands.progress import progress as progress_bar
from maskx_tf.errors import BadInput
from maskx_tf.synthetic.parameters import Recipe, usual_a

if TYPE_CHECKING:
    from maskx_tf.data import splits
    from maskx_tf.data.dataset import Dataset
    from maskx_tf.data.formats.join import Renaming
    from maskx_tf.data.formats.readers import DataFiles
    from maskx_tf.files import Json

USUAL = Recipe()
FORMATS = "coco, voc, cityscapes, open_images, labelme, yolo, cvat and more, all in docs/data.md."

app = typer.Typer(
    name="data",
    help="Make, check, count, show, split and convert data sets.",
    epilog="Example: maskx data check --images photos --annotations instances.json",
)

Images = Annotated[Path, typer.Option("--images", metavar="DIR", help="Folder of the images.")]
Annotations = Annotated[
    Path,
    typer.Option("--annotations", metavar="PATH", help="File or folder of the annotations, depending on the format."),
]
Format = Annotated[str, typer.Option("--format", metavar="NAME", help=FORMATS)]
Masks = Annotated[
    str,
    typer.Option(
        "--masks",
        metavar="POLICY",
        help="Classes that keep their masks: all, none, oracle, voc, nonvoc, E1_A20 to E5_A60, '[dog, cat]', "
        "'{random: {a: 20}}'.",
    ),
]
MasksB = Annotated[
    Path | None,
    typer.Option("--masks-b", metavar="FILE", help="COCO file with the masks of B."),
]
Outside = Annotated[bool, typer.Option("--outside", help="Also open files outside of these folders.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]


@app.command(epilog="Example: maskx data synth --out bench --images 2000 --size 160 --seed 1")
def synth(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write; new, or empty.")],
    images: Annotated[
        int, typer.Option(help="Images in all parts: a tenth is val, a fifth is test, the rest is train.")
    ] = USUAL.images,
    size: Annotated[int, typer.Option(help="Side of an image, in pixels.")] = USUAL.size,
    classes: Annotated[
        int, typer.Option(help="Number of classes, out of 80 pairs of silhouette and material.")
    ] = USUAL.classes,
    a: Annotated[
        int | None, typer.Option(help="Number of classes that keep their masks; 7 of 10 if not given.")
    ] = None,
    companions: Annotated[float, typer.Option(help="Share of groups that are overlapping pairs.")] = USUAL.companions,
    offset: Annotated[
        float, typer.Option(help="Distance between the centres of a pair, as a share of the sum of their radii.")
    ] = USUAL.offset,
    seed: Annotated[int, typer.Option(help="Seed of classes, split and scenes.")] = USUAL.seed,
    workers: Annotated[
        int, typer.Option(help="Processes that draw; 0: one per core. The result does not depend on it.")
    ] = 0,
    keypoints: Annotated[
        bool, typer.Option("--keypoints", help="Also write four keypoints of each object; all else stays the same.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the synthetic benchmark. Images, boxes, the masks of A, and the masks of B apart."""
    from maskx_tf.data.threads import cores
    from maskx_tf.synthetic.generate import generate

    if not 0 <= workers <= 256:
        raise BadInput(f"--workers {workers}: expected 0 to 256")
    recipe = Recipe(images, size, classes, usual_a(classes) if a is None else a, companions, offset, seed)
    with progress_bar("drawing", images) as progress:
        counts = generate(recipe, out, workers or cores(), progress.advance, keypoints=keypoints)
    if as_json:
        print(json.dumps({"out": str(out), "recipe": recipe._asdict(), "parts": counts}, indent=2))
    else:
        parts = (f"{part} {of['images']} images with {of['instances']} instances" for part, of in counts.items())
        print(f"wrote {out}: {', '.join(parts)}; {recipe.a} of {recipe.classes} classes have masks")


@app.command(epilog="Example: maskx data check --images photos --annotations instances.json --masks voc")
def check(
    images: Images,
    annotations: Annotations,
    form: Format = "coco",
    masks: Masks = "all",
    masks_b: MasksB = None,
    outside: Outside = False,
    without_images: Annotated[bool, typer.Option("--no-images", help="Do not decode the images.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find what is wrong with a data set. Says what training would make of it; exit code 2 if that were wrong."""
    from maskx_tf.data import checks, splits
    from maskx_tf.data.formats.readers import DataFiles

    source = DataFiles(images, annotations, form, masks_b, outside)
    with progress_bar("checking") as progress:
        dataset, findings = checks.check(
            source,
            splits.parse_text(masks),
            with_images=not without_images,
            started=progress.started,
            advance=progress.advance,
        )
    found = findings.as_data()
    if as_json:
        print(json.dumps(_size(dataset) | {"wrong": findings.wrong, "findings": found}, indent=2))
    else:
        print(_as_text(_size(dataset), found))
    if findings.wrong:
        raise BadInput(f"{annotations}: training would be wrong: {findings.wrong} errors, listed above")


@app.command(epilog="Example: maskx data stats --images photos --annotations instances.json --json")
def stats(
    images: Images,
    annotations: Annotations,
    form: Format = "coco",
    masks: Masks = "all",
    masks_b: MasksB = None,
    outside: Outside = False,
    as_json: AsJson = False,
) -> None:
    """Count instances by class, with masks and without, and by size."""
    from maskx_tf.data import splits
    from maskx_tf.data import stats as statistics
    from maskx_tf.data.formats.readers import DataFiles

    policy = splits.parse_text(masks)
    figures = statistics.count(_opened(DataFiles(images, annotations, form, masks_b, outside), policy)[0], policy)
    print(json.dumps(figures, indent=2, ensure_ascii=False) if as_json else statistics.as_table(figures))


@app.command(epilog="Example: maskx data show --images photos --annotations instances.json --out sheet.png")
def show(
    images: Images,
    annotations: Annotations,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The PNG file to write.")],
    form: Format = "coco",
    masks: Masks = "all",
    masks_b: MasksB = None,
    outside: Outside = False,
    count: Annotated[int, typer.Option(min=1, max=200, help="Number of images.")] = 12,
    cell: Annotated[int, typer.Option(min=64, max=2000, help="Side of the square for each image, in pixels.")] = 320,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the choice of images.")] = 0,
) -> None:
    """Write a contact sheet of images with boxes and masks. Colours and lines tell classes of A and B apart."""
    from maskx_tf.data import splits, stats
    from maskx_tf.data.formats.readers import DataFiles
    from maskx_tf.tasks.pictures import contact_sheet, write_picture

    policy = splits.parse_text(masks)
    learned, every = _opened(DataFiles(images, annotations, form, masks_b, outside), policy)
    write_picture(out, contact_sheet(every, policy, stats.a_set(learned, policy), count, cell, seed))
    print(f"wrote {out}")


@app.command(epilog="Example: maskx data split E1_A20")
def split(
    policy: Annotated[
        str, typer.Argument(metavar="POLICY", help="A masks policy, as for --masks of maskx data check.")
    ],
    annotations: Annotated[
        Path | None, typer.Option("--annotations", metavar="FILE", help="A COCO file whose classes are split.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the classes of A and of B that a policy makes. The classes are COCO's eighty, or those of a file."""
    from maskx_tf import names
    from maskx_tf.data import splits
    from maskx_tf.data.formats import coco

    class_names = names.COCO if annotations is None else coco.read_class_names(annotations)
    chosen = splits.a_classes(splits.parse_text(policy), class_names)
    sets = {
        "a": [name for name in class_names if name in chosen],
        "b": [name for name in class_names if name not in chosen],
    }
    if as_json:
        print(json.dumps(sets, indent=2, ensure_ascii=False))
    else:
        print("\n\n".join(f"{key.upper()}, {len(of)} classes: {', '.join(of)}" for key, of in sets.items()))


@app.command(epilog="Example: maskx data convert --images photos --annotations drawn.json --to cvat --out drawn.xml")
def convert(
    images: Images,
    annotations: Annotations,
    out: Annotated[Path, typer.Option("--out", metavar="PATH", help="The file to write; for yolo, the new folder.")],
    form: Format = "coco",
    to: Annotated[
        str, typer.Option("--to", metavar="NAME", help="Format to write: coco, yolo, label_studio or cvat.")
    ] = "coco",
    masks: Masks = "all",
    names: Annotated[
        Path | None,
        typer.Option(
            "--names", metavar="FILE", help="YAML file of new class names, such as sofa: couch; null drops a class."
        ),
    ] = None,
    outside: Outside = False,
) -> None:
    """Write a data set of any format in another. Masks are written where they are known and the policy leaves them."""
    from maskx_tf.data import splits
    from maskx_tf.data.formats.join import read_names
    from maskx_tf.data.formats.readers import WRITERS, DataFiles, for_a_look

    if to not in WRITERS:
        raise BadInput(f"--to: expected one of {', '.join(WRITERS)}, found {to!r}")

    new_names: Renaming | None = None if names is None else read_names(names)
    dataset = splits.apply(
        for_a_look([DataFiles(images, annotations, form, outside=outside)], new_names), splits.parse_text(masks)
    )
    WRITERS[to](dataset, out, images)
    size = _size(dataset)
    print(f"wrote {out}: {size['images']} images, {size['instances']} instances, {size['with_masks']} with masks")
    if to == "yolo":
        print(f"YOLO reads the images from {out}/images: a folder or link that is not written here")


def _opened(source: DataFiles, policy: splits.Policy) -> tuple[Dataset, Dataset]:
    """A data set with the masks among which the policy chooses, and with all: those kept apart are for `oracle`."""
    from maskx_tf.data.formats.readers import check_policy, for_a_look, with_masks_b

    check_policy([source], policy)
    known = for_a_look([source._replace(masks_b=None)])
    every = with_masks_b(known, source)
    return every if policy == "oracle" else known, every


def _size(dataset: Dataset) -> dict[str, str | int]:
    instances = [one for image in dataset.images for one in image.instances]
    return {
        "name": dataset.name,
        "images": len(dataset.images),
        "classes": len(dataset.class_names),
        "instances": len(instances),
        "with_masks": sum(one.has_mask for one in instances),
        "with_keypoints": sum(one.keypoint_count > 0 for one in instances),
    }


def _as_text(size: dict[str, str | int], findings: list[Json]) -> str:
    keypoints = f", {size['with_keypoints']} with keypoints" if size["with_keypoints"] else ""
    lines = [
        f"{size['name']}: {size['images']} images, {size['instances']} instances of {size['classes']} classes, "
        f"{size['with_masks']} with masks{keypoints}"
    ]
    for finding in findings:
        word = "error" if finding["wrong"] else "warning"
        lines += ["", f"{word}: {finding['title']} ({finding['count']}): {finding['effect']}"]
        lines += [f"  {example['where']}: {example['what']}" for example in finding["examples"]]
        if finding["count"] > len(finding["examples"]):
            lines.append(f"  and {finding['count'] - len(finding['examples'])} more")
    return "\n".join(lines if findings else [*lines, "", "nothing was found wrong"])
