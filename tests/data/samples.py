"""Small valid data sets of every format, written to a folder."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from maskx_tf.data.annotators import label_studio as annotators
from maskx_tf.data.formats.readers import DataFiles
from maskx_tf.data.formats.visual_genome import OVERRIDES
from maskx_tf.names import COCO

WIDTH, HEIGHT = 48, 36
POLYGON = [4.0, 4.0, 20.0, 5.0, 18.0, 20.0, 6.0, 18.0]
POLYGON_BOX = [4.0, 4.0, 16.0, 16.0]  # as x, y, width, height


def picture(path: Path, width: int = WIDTH, height: int = HEIGHT, **options: Any) -> Path:
    """A picture with something in every pixel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(len(path.name)).randint(0, 256, [height, width, 3]).astype(np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def ids_png(path: Path, ids: np.ndarray) -> Path:
    """A map of ids, 8 bits if they fit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids.astype(np.uint8 if ids.max() < 256 else np.uint16)).save(path)
    return path


def blob(x1: int, y1: int, x2: int, y2: int, value: int = 1) -> np.ndarray:
    """A map with an ellipse of this value that touches the four sides of its box."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    inside = ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 <= 1.02
    return inside.astype(np.int32) * value


def runs(mask: np.ndarray) -> list[int]:
    """Uncompressed run lengths, by a slow loop."""
    counts, value = [0], 0
    for pixel in (mask > 0).T.reshape(-1):
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def write_json(path: Path, data: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def coco_data() -> dict[str, Any]:
    """Two images, every form of mask and of its absence, a crowd, and category ids with gaps."""
    rle = {"size": [HEIGHT, WIDTH], "counts": runs(blob(22, 3, 40, 30))}
    annotations: list[dict[str, Any]] = [
        {"bbox": POLYGON_BOX, "category_id": 18, "segmentation": [POLYGON]},
        {"bbox": [22, 3, 18, 27], "category_id": 18, "segmentation": rle},
        {"bbox": [5, 20, 10, 10], "category_id": 18, "segmentation": None},
        {"bbox": [1, 1, 9, 9], "category_id": 7, "segmentation": []},
        {"bbox": [30.5, 20.25, 9, 9], "category_id": 7},
        {"bbox": [22, 3, 18, 27], "category_id": 7, "segmentation": rle, "iscrowd": 1},
    ]
    heads = ({"id": 100 + i, "image_id": 1 + i % 2, "iscrowd": 0, "area": 9.0} for i in range(len(annotations)))
    return {
        "images": [
            {"id": 1, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT},
            {"id": 2, "file_name": "deep/b.png", "width": WIDTH, "height": HEIGHT},
        ],
        "annotations": [head | one for head, one in zip(heads, annotations, strict=True)],
        "categories": [{"id": 18, "name": "dog"}, {"id": 7, "name": "traffic light"}],
    }


def coco(folder: Path) -> DataFiles:
    picture(folder / "images" / "a.jpg")
    picture(folder / "images" / "deep" / "b.png")
    return DataFiles(folder / "images", write_json(folder / "instances.json", coco_data()))


def coco_keypoints_data() -> dict[str, Any]:
    """Persons with four keypoints, hidden and absent ones, a ball without, a crowd, and an image without keypoints."""
    mask = {"size": [HEIGHT, WIDTH], "counts": runs(blob(22, 3, 40, 30))}
    annotations: list[dict[str, Any]] = [
        {"bbox": [22, 3, 18, 27], "keypoints": [30, 4, 2, 24, 15, 2, 39, 16, 1, 0, 0, 0], "segmentation": mask},
        {"bbox": [2, 4, 16.5, 20], "keypoints": [7.25, 5, 2, 3, 12, 1, 18, 12, 2, 9, 23, 2], "area": 251.5},
        {"bbox": [5, 20, 10, 10], "keypoints": [0] * 12, "num_keypoints": 0},
        {"bbox": [1, 1, 9, 9], "category_id": 7, "keypoints": []},
        {"bbox": [1, 1, 40, 30], "iscrowd": 1, "segmentation": mask, "num_keypoints": 0, "keypoints": [0] * 12},
        {"bbox": [30, 20, 9, 9]},
    ]
    usual = ({"id": 200 + i, "image_id": 1 + i % 2, "category_id": 1, "iscrowd": 0} for i in range(len(annotations)))
    return {
        "images": [
            {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for number, name in enumerate(("a.jpg", "deep/b.png", "c.png"), 1)
        ],
        "annotations": [head | one for head, one in zip(usual, annotations, strict=True)],
        "categories": [
            {"id": 7, "name": "ball"},
            {
                "id": 1,
                "name": "person",
                "keypoints": ["head", "left_hand", "right_hand", "foot"],
                "skeleton": [[1, 2], [1, 3], [1, 4]],
            },
        ],
    }


def coco_keypoints(folder: Path) -> DataFiles:
    for image in coco_keypoints_data()["images"]:
        picture(folder / "images" / image["file_name"])
    return DataFiles(folder / "images", write_json(folder / "keypoints.json", coco_keypoints_data()))


def voc(folder: Path) -> DataFiles:
    """One image with masks, of which the third object has none; and one without."""
    objects = {
        "2007_1": [("dog", (3, 3, 20, 20)), ("person", (25, 5, 45, 30)), ("dog", (5, 25, 12, 33))],
        "2007_2": [("tvmonitor", (2, 2, 30, 30))],
    }
    for stem, found in objects.items():
        picture(folder / "JPEGImages" / f"{stem}.jpg")
        boxes = "".join(
            f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
            f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for name, (x1, y1, x2, y2) in found
        )
        xml = (
            f"<annotation><filename>{stem}.jpg</filename><size><width>{WIDTH}</width><height>{HEIGHT}</height>"
            f"<depth>3</depth></size>{boxes}</annotation>"
        )
        (folder / "Annotations").mkdir(exist_ok=True)
        (folder / "Annotations" / f"{stem}.xml").write_text(xml, encoding="utf-8")
    first, second = blob(3, 3, 20, 20), blob(25, 5, 45, 30)
    ids = first + 2 * second
    ids[0, 0] = 255
    ids_png(folder / "SegmentationObject" / "2007_1.png", ids)
    ids_png(folder / "SegmentationClass" / "2007_1.png", 12 * first + 15 * second)
    return DataFiles(folder / "JPEGImages", folder / "Annotations", "voc")


def sbd(folder: Path) -> DataFiles:
    """Two images of SBD, with two objects and with one, and a list that names them."""
    objects = {"2008_1": (blob(3, 3, 20, 20) + 2 * blob(25, 5, 45, 30), [12, 15]), "2008_2": (blob(2, 2, 30, 30), 20)}
    (folder / "inst").mkdir(parents=True)
    for stem, (ids, categories) in objects.items():
        picture(folder / "img" / f"{stem}.jpg")
        truth = {"Segmentation": ids.astype(np.uint8), "Categories": np.array(categories, np.uint8)}
        savemat(folder / "inst" / f"{stem}.mat", {"GTinst": truth}, do_compression=True)
    (folder / "train.txt").write_text("2008_1\n2008_2\n", encoding="utf-8")
    return DataFiles(folder / "img", folder / "inst", "sbd")


def visual_genome(folder: Path) -> DataFiles:
    """Six images: two in minival, one in COCO's training, three outside; every COCO class and three others."""
    overridden = [OVERRIDES.get(name, name.replace(" ", "_") + ".n.01") for name in COCO]
    synsets = [*overridden, "tree.n.01", "sky.n.01", "sky.n.01", "zebra_crossing.n.01"]
    objects = []
    for image in range(1, 7):
        found = [
            {
                "object_id": 1000 * image + i,
                "x": i % 30,
                "y": i % 20,
                "w": 10,
                "h": 9,
                "names": ["x"],
                "synsets": [synset],
            }
            for i, synset in enumerate(synsets)
        ]
        found.append(
            {"object_id": 1000 * image + 900, "x": 1, "y": 1, "w": 9, "h": 9, "synsets": ["dog.n.01", "cat.n.01"]}
        )
        found.append({"object_id": 1000 * image + 901, "x": 1, "y": 1, "w": 9, "h": 9, "synsets": []})
        objects.append({"image_id": image, "objects": found})
    images = []
    for image, coco_id in enumerate([501, 502, 77, None, None, None], 1):
        name = f"VG_100K{'_2' * (image % 2)}/{image}.jpg"
        picture(folder / "images" / name)
        url = f"https://example.org/some/where/{name}"
        images.append({"image_id": image, "url": url, "width": WIDTH, "height": HEIGHT, "coco_id": coco_id})
    write_json(folder / "json" / "objects.json", objects)
    write_json(folder / "json" / "image_data.json", images)
    minival = {"images": [{"id": 501}, {"id": 502}], "annotations": [], "categories": []}
    write_json(folder / "json" / "instances_minival2014.json", minival)
    return DataFiles(folder / "images", folder / "json", "visual_genome_val")


def cityscapes(folder: Path) -> DataFiles:
    """Two cars, a group of persons, and a road."""
    name = "ulm/ulm_000000_000019"
    picture(folder / "leftImg8bit" / f"{name}_leftImg8bit.png")
    ids = np.full([HEIGHT, WIDTH], 7)
    for value, box in {
        26000: (2, 2, 15, 15),
        26001: (18, 3, 40, 16),
        24: (4, 20, 30, 34),
        29000: (34, 20, 44, 30),
    }.items():
        ids = np.where(blob(*box) > 0, value, ids)
    ids_png(folder / "gtFine" / f"{name}_gtFine_instanceIds.png", ids)
    return DataFiles(folder / "leftImg8bit", folder / "gtFine", "cityscapes")


def open_images(folder: Path) -> DataFiles:
    """Three boxes, of which one is a group and one has a mask; stored at another size than the image."""
    picture(folder / "images" / "0a1b.jpg")
    folder.joinpath("class-descriptions-boxable.csv").write_text("/m/1,Dog\n/m/2,Traffic light\n", encoding="utf-8")
    rows = [
        "ImageID,DataFiles,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside",
        "0a1b,xclick,/m/1,1,0.125,0.500,0.250,0.750,0,0,0,0,0",
        "0a1b,xclick,/m/1,1,0.500,0.900,0.100,0.900,0,0,0,0,0",
        "0a1b,xclick,/m/2,1,0.000,1.000,0.000,1.000,0,0,1,0,0",
    ]
    boxes = folder / "train-annotations-bbox.csv"
    boxes.write_text("\n".join(rows), encoding="utf-8")
    rows = [
        "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks",
        "0a1b_m1_x.png,0a1b,/m/1,x,0.125,0.500,0.250,0.750,0.9,",
    ]
    folder.joinpath("train-annotations-object-segmentation.csv").write_text("\n".join(rows), encoding="utf-8")
    mask = blob(6, 9, 24, 27)
    (folder / "masks").mkdir()
    Image.fromarray((mask > 0).repeat(2, 0).repeat(2, 1)).save(folder / "masks" / "0a1b_m1_x.png")
    return DataFiles(folder / "images", boxes, "open_images")


def labelme(folder: Path) -> DataFiles:
    """A polygon, an object of two parts, a rectangle, a circle, a painted mask, a line; and an embedded image."""
    picture(folder / "images" / "a.jpg")
    stream = io.BytesIO()
    Image.fromarray(blob(8, 5, 20, 15)[5:15, 8:20] > 0).save(stream, "PNG")
    painted = base64.b64encode(stream.getvalue()).decode()
    pairs = list(zip(POLYGON[::2], POLYGON[1::2], strict=True))
    shapes = [
        {"label": "dog", "points": pairs, "shape_type": "polygon", "group_id": None},
        {"label": "dog", "points": [[30, 3], [36, 3], [33, 9]], "shape_type": "polygon", "group_id": 1},
        {"label": "dog", "points": [[38, 3], [45, 3], [42, 9]], "shape_type": "polygon", "group_id": 1},
        {"label": "cat", "points": [[20, 30], [10, 22]], "shape_type": "rectangle"},
        {"label": "ball", "points": [[35, 22], [43, 22]], "shape_type": "circle"},
        {"label": "cat", "points": [[8, 5], [19, 14]], "shape_type": "mask", "mask": painted},
        {"label": "cat", "points": [[1, 1], [5, 5]], "shape_type": "line"},
    ]
    base = {"version": "5.4", "flags": {}, "imageData": None, "imageWidth": WIDTH, "imageHeight": HEIGHT}
    write_json(folder / "drawn" / "a.json", base | {"imagePath": "..\\images\\a.jpg", "shapes": shapes})
    data = base64.b64encode((folder / "images" / "a.jpg").read_bytes()).decode()
    inside = base | {"imagePath": "gone.jpg", "imageData": data, "shapes": shapes[:1]}
    write_json(folder / "drawn" / "b.json", inside | {"imageWidth": None})
    return DataFiles(folder / "images", folder / "drawn", "labelme")


def via(folder: Path) -> DataFiles:
    """Every shape of VIA, a class by text and one by check boxes."""
    picture(folder / "images" / "a.jpg")
    polygon = {"name": "polygon", "all_points_x": POLYGON[::2], "all_points_y": POLYGON[1::2]}
    regions = [
        {"shape_attributes": polygon, "region_attributes": {"class": "dog", "note": "x"}},
        {
            "shape_attributes": {"name": "rect", "x": 20, "y": 3, "width": 9, "height": 8},
            "region_attributes": {"class": {"cat": True, "dog": False}},
        },
        {"shape_attributes": {"name": "circle", "cx": 30, "cy": 20, "r": 6}, "region_attributes": {"class": "ball"}},
        {
            "shape_attributes": {"name": "ellipse", "cx": 12, "cy": 27, "rx": 8, "ry": 4, "theta": 0.3},
            "region_attributes": {"class": "ball"},
        },
        {"shape_attributes": {"name": "point", "cx": 12, "cy": 27}, "region_attributes": {"class": "ball"}},
    ]
    entry = {"filename": "a.jpg", "size": 1234, "regions": regions, "file_attributes": {}}
    return DataFiles(folder / "images", write_json(folder / "via.json", {"a.jpg1234": entry}), "via")


def masks(folder: Path) -> DataFiles:
    """A map with two objects, two overlapping objects in files of their own, and an image without any."""
    for name in ("a.jpg", "deep/b.png", "c.jpg"):
        picture(folder / "images" / name)
    ids_png(folder / "masks" / "dog" / "a.png", blob(3, 3, 15, 15) + 2 * blob(20, 3, 40, 20))
    ids_png(folder / "masks" / "traffic light" / "deep" / "b" / "left.png", blob(3, 3, 20, 20, 255))
    ids_png(folder / "masks" / "traffic light" / "deep" / "b" / "right.png", blob(10, 10, 30, 30, 255))
    return DataFiles(folder / "images", folder / "masks", "masks")


def yolo(folder: Path) -> DataFiles:
    """A polygon, a box, and an image without a text file."""
    for name in ("a.jpg", "deep/b.png", "c.jpg"):
        picture(folder / "images" / name)
    shares = [f"{number / side:.6f}" for number, side in zip(POLYGON, [WIDTH, HEIGHT] * len(POLYGON), strict=False)]
    for name, text in (("a.txt", f"1 {' '.join(shares)}\n0 0.5 0.5 0.25 0.5\n"), ("deep/b.txt", "0 0.5 0.5 1 1\n")):
        (folder / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "labels" / name).write_text(text)
    (folder / "data.yaml").write_text("path: .\ntrain: images\nnames:\n  0: cat\n  1: dog\n")
    return DataFiles(folder / "images", folder / "data.yaml", "yolo")


def label_studio(folder: Path) -> DataFiles:
    """A polygon, a turned rectangle, an ellipse, a brush in runs and in values, and a task that nobody did."""
    for name in ("a.jpg", "b.jpg"):
        picture(folder / "images" / name)
    points = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in zip(POLYGON[::2], POLYGON[1::2], strict=True)]
    brush = annotators.packed(blob(3, 3, 12, 9) > 0)
    values: list[dict[str, Any]] = [
        {"points": points, "closed": True, "polygonlabels": ["dog"]},
        {"x": 25, "y": 25, "width": 25, "height": 25, "rotation": 10, "rectanglelabels": ["cat"]},
        {"x": 50, "y": 50, "radiusX": 10, "radiusY": 20, "ellipselabels": ["ball"]},
        {"format": "rle", "rle": brush, "brushlabels": ["cat"]},
        {"x": 50, "y": 50, "width": 1, "keypointlabels": ["cat"]},
    ]
    size = {"original_width": WIDTH, "original_height": HEIGHT}
    results = [size | {"type": list(value)[-1], "value": value} for value in values]
    tasks = [
        {"id": 1, "data": {"image": "/data/local-files/?d=project/a.jpg"}, "annotations": [{"result": results}]},
        {"id": 2, "data": {"image": "b.jpg"}, "annotations": [{"result": results, "was_cancelled": True}]},
    ]
    return DataFiles(folder / "images", write_json(folder / "tasks.json", tasks), "label_studio")


def cvat(folder: Path) -> DataFiles:
    """A polygon, an object of two parts, a box, an ellipse, a mask and a line."""
    picture(folder / "images" / "a.jpg")

    def points(numbers: list[float]) -> str:
        return ";".join(f"{x},{y}" for x, y in zip(numbers[::2], numbers[1::2], strict=True))

    text = f"""<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<image id="0" name="a.jpg" width="{WIDTH}" height="{HEIGHT}">
<polygon label="dog" points="{points(POLYGON)}" group_id="0"></polygon>
<polygon label="dog" points="{points([30, 3, 36, 3, 33, 9])}" group_id="1"></polygon>
<polygon label="dog" points="{points([38, 3, 45, 3, 42, 9])}" group_id="1"></polygon>
<box label="cat" xtl="10" ytl="22.5" xbr="20" ybr="30"></box>
<ellipse label="ball" cx="35" cy="22" rx="8" ry="6"></ellipse>
<mask label="cat" rle="1, 2, 5" left="8" top="5" width="4" height="2"></mask>
<polyline label="cat" points="1,1;5,5"></polyline>
</image></annotations>"""
    (folder / "cvat.xml").write_text(text)
    return DataFiles(folder / "images", folder / "cvat.xml", "cvat")


SAMPLES: dict[str, Callable[[Path], DataFiles]] = {
    "coco": coco,
    "voc": voc,
    "sbd": sbd,
    "visual_genome": visual_genome,
    "cityscapes": cityscapes,
    "open_images": open_images,
    "labelme": labelme,
    "via": via,
    "masks": masks,
    "yolo": yolo,
    "label_studio": label_studio,
    "cvat": cvat,
}
