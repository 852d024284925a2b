"""Reads Visual Genome as the Mask^X paper does: boxes of 3000 synsets, of which COCO's eighty classes come first.

    objects.json            boxes with synsets; version 1.4
    image_data.json         size, address and COCO's id of each image
    instances_*.json        COCO's annotations of minival (instances_minival2014.json or instances_val2017.json)
    VG_100K, VG_100K_2      the images, in the folder `images`

`annotations` is the folder of these files. Images in COCO's minival are used for validation only, so that no model is
tested on images from which it learned. Of the images that COCO lacks, the last 5000 are for the test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from maskx_tf import files
from maskx_tf.data.dataset import Dataset, Id, ImageRecord, Instance
from maskx_tf.data.formats import coco
from maskx_tf.data.formats import records as fields
from maskx_tf.data.formats.records import MAX_ID, MAX_IMAGE_SIDE, Unfit
from maskx_tf.data.paths import first_file
from maskx_tf.data.problems import Report, noted, refuse
from maskx_tf.errors import BadInput, shorten
from maskx_tf.files import JsonView
from maskx_tf.names import COCO

VisualGenomePart = Literal["train", "val", "test"]
VOCABULARY = 3000
TESTED = 5000  # images that COCO lacks
MINIVAL = ("instances_minival2014.json", "instances_val2017.json")

# COCO's classes whose synset has another name than theirs.
OVERRIDES = {
    "cell phone": "cellular_telephone.n.01",
    "couch": "sofa.n.01",
    "dining table": "dinner_table.n.01",
    "donut": "doughnut.n.02",
    "fire hydrant": "water_faucet.n.01",
    "hair drier": "hand_blower.n.01",
    "handbag": "bag.n.04",
    "hot dog": "hotdog.n.01",
    "orange": "orange.n.01",
    "potted plant": "plant.n.01",
    "remote": "remote_control.n.01",
    "skis": "ski.n.01",
    "sports ball": "ball.n.01",
    "stop sign": "sign.n.02",
    "suitcase": "bag.n.06",
    "teddy bear": "teddy.n.01",
    "tv": "television.n.01",
    "wine glass": "wineglass.n.01",
}


class Vocabulary(NamedTuple):
    """The classes.

    Attributes:
        names: COCO's eighty by the names that COCO gives them, so that data sets can be joined by name; then synsets.
        labels: the class, 1..K, of each synset.
    """

    names: tuple[str, ...]
    labels: Mapping[str, int]


def read(images: Path, annotations: Path, report: Report = refuse, *, part: VisualGenomePart = "train") -> Dataset:
    """Reads one part of the data set; the vocabulary is that of all parts.

    Args:
        images: the folder with VG_100K and VG_100K_2.
        annotations: the folder of the JSON files.
        report: receives every problem.
        part: which images are read.
    """
    objects = _list(annotations / "objects.json")
    names = vocabulary(count(objects, report))
    kept = _images(images, annotations, part, report)
    found: dict[Id, list[Instance]] = {image: [] for image in kept}
    for index, entry in enumerate(objects):
        where = f"objects.json: [{index}]"
        with noted(report, where):
            if (image_id := fields.whole(fields.mapping(entry), "image_id", 0, MAX_ID)) in found:
                for number, one in enumerate(entry["objects"] if isinstance(entry.get("objects"), list) else ()):
                    with noted(report, f"{where}.objects[{number}]"):
                        found[image_id] += _instances(one, names.labels)
    records = tuple(image._replace(instances=tuple(found[image.id])) for image in kept.values())
    return Dataset(f"{annotations.name}, {part}", names.names, tuple(range(1, len(names.names) + 1)), records)


def count(objects: Sequence[Any], report: Report = refuse) -> Counter[str]:
    """Returns how many objects each synset has."""
    counts: Counter[str] = Counter()
    for index, entry in enumerate(objects):
        with noted(report, f"objects.json: [{index}]"):
            for number, one in fields.entries(fields.mapping(entry), "objects"):
                with noted(report, f"objects.json: [{index}].objects[{number}]"):
                    counts.update(_synsets(one))
    return counts


def vocabulary(counts: Mapping[str, int], size: int = VOCABULARY) -> Vocabulary:
    """COCO's classes and the most frequent synsets that are none of them.

    A synset is a COCO class if its name says so ("traffic_light.n.01"; of several, the most frequent), or by an
    override, be it frequent or not. Of equally frequent synsets, those first in the alphabet are taken.
    """
    ranked = sorted(counts, key=lambda synset: (-counts[synset], synset))
    by_name: dict[str, str] = {}
    for synset in ranked:
        by_name.setdefault(synset[:-5].replace("_", " "), synset)  # without .n.01
    aligned = {name: OVERRIDES.get(name) or by_name.get(name) for name in COCO}
    rest = sorted(set(ranked[:size]) - set(aligned.values()))
    names = (*COCO, *rest)
    labels = {synset: label for label, synset in enumerate((*aligned.values(), *rest), 1) if synset is not None}
    return Vocabulary(names, labels)


def _synsets(value: Any) -> list[str]:
    found = fields.mapping(value, "object").get("synsets")
    if not isinstance(found, list):
        raise fields.unfit("synsets", "a list", found)
    return [fields.as_text(synset, "synsets") for synset in found]


def _instances(value: Any, labels: Mapping[str, int]) -> list[Instance]:
    """The object, if it has one synset and that is in the vocabulary; `count` has reported those without any sense."""
    synsets = value.get("synsets") if isinstance(value, Mapping) else None
    synset = synsets[0] if isinstance(synsets, list) and len(synsets) == 1 else None
    if not isinstance(synset, str) or synset not in labels:
        return []
    x, y = fields.number(value, "x"), fields.number(value, "y")
    width, height = fields.number(value, "w", 0), fields.number(value, "h", 0)
    return [Instance((x, y, x + width, y + height), labels[synset], id=fields.identity(value, "object_id"))]


def _images(folder: Path, annotations: Path, part: VisualGenomePart, report: Report) -> dict[Id, ImageRecord]:
    minival = _minival(annotations)
    parts: dict[Id, VisualGenomePart] = {}
    records: dict[Id, ImageRecord] = {}
    outside: list[Id] = []  # ids of images that are not in COCO
    for index, entry in enumerate(_list(annotations / "image_data.json")):
        with noted(report, f"image_data.json: [{index}]"):
            record = _image(fields.mapping(entry), folder)
            if record.id in records:
                raise Unfit(f"image_id: expected a unique id, found {record.id} again", "duplicate")
            known = entry.get("coco_id")
            coco_id = None if known is None else fields.whole(entry, "coco_id", 0, MAX_ID)
            if coco_id is None:
                outside.append(record.id)
            records[record.id] = record
            parts[record.id] = "val" if coco_id in minival else "train"
    parts |= dict.fromkeys(outside[-TESTED:], "test")
    return {identity: record for identity, record in records.items() if parts[identity] == part}


def _image(entry: JsonView, folder: Path) -> ImageRecord:
    address = fields.text(entry, "url").partition("?")[0]
    steps = [step for step in address.split("/") if step not in ("", ".", "..")]
    if len(steps) < 2:
        raise fields.unfit("url", "an address that ends in a folder and a file", entry["url"])
    width, height = (fields.whole(entry, side, 1, MAX_IMAGE_SIDE) for side in ("width", "height"))
    return ImageRecord(fields.whole(entry, "image_id", 0, MAX_ID), folder.joinpath(*steps[-2:]), width, height)


def _minival(folder: Path) -> set[Id]:
    """COCO's ids of the images in minival."""
    path = first_file([folder / name for name in MINIVAL])
    if path is None:
        raise BadInput(
            f"{folder}: expected {' or '.join(MINIVAL)}, for COCO's minival is no training data; found neither"
        )
    found: set[Id] = set()
    for index, entry in enumerate(coco.read_lists(path)["images"]):
        with noted(refuse, f"{path.name}: images[{index}]"):
            found.add(fields.whole(fields.mapping(entry), "id", 0, MAX_ID))
    return found


def _list(path: Path) -> list[Any]:
    data = files.read_json(path)
    if not isinstance(data, list):
        raise BadInput(f"{path}: expected a list, found {shorten(data)}")
    return data
