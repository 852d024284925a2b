"""Family fcis through the commands: what it can learn by heart, and its evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from maskx_tf import cli
from maskx_tf.masks import rle

SIDE, CANVAS, IMAGES = 128, 256, 8
COLOURS = ((200, 40, 40), (40, 180, 60), (60, 80, 220))


def shapes(folder: Path) -> None:
    """Eight images with two shapes each, ellipses, triangles and rectangles, six to eight cells of the maps wide."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    images, annotations = [], []
    for image in range(IMAGES):
        pixels = random.normal(120, 25, (SIDE, SIDE, 3))
        for place in range(2):
            label = int(random.integers(3))
            width, height = random.integers(44, 62, 2)
            left = int(random.integers(0, 64 - width + 1)) + 64 * place
            top = int(random.integers(0, SIDE - height + 1))
            u, v = (x - left) / width, (y - top) / height
            box = (u >= 0) & (u < 1) & (v >= 0) & (v < 1)
            inside = [
                (2 * u - 1) ** 2 + (2 * v - 1) ** 2 <= 1,
                box & (v >= np.abs(2 * u - 1)),
                box,
            ][label]
            pixels[inside] = COLOURS[label] + random.normal(0, 15, (int(inside.sum()), 3))
            rows, columns = np.nonzero(inside)
            corner = [int(columns.min()), int(rows.min())]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": label + 1,
                    "bbox": [*corner, int(columns.max()) + 1 - corner[0], int(rows.max()) + 1 - corner[1]],
                    "area": int(inside.sum()),
                    "iscrowd": 0,
                    "segmentation": rle.encode(inside),
                }
            )
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{image}.png")
        images.append({"id": image, "file_name": f"{image}.png", "width": SIDE, "height": SIDE})
    names = [{"id": number, "name": name} for number, name in enumerate(("ellipse", "triangle", "rectangle"), 1)]
    text = json.dumps({"images": images, "annotations": annotations, "categories": names})
    (folder / "shapes.json").write_text(text, encoding="utf-8")


def recipe(folder: Path, steps: int) -> Path:
    """A small FCIS on those images."""

    def source() -> list[dict[str, str]]:
        return [{"images": str(folder / "data"), "annotations": str(folder / "data" / "shapes.json")}]

    settings = {
        "model": {
            "family": "fcis",
            "input": {"canvas": [CANVAS, CANVAS], "short_side": CANVAS, "long_side": CANVAS},
            "backbone": {
                "name": "resnet_small",
                "neck": "dc5",
                "norm": "group",
                "frozen_stages": 0,
                "stride_in_1x1": True,
                "stem_pool": "ceil",
            },
            "anchors": {"sizes": [[64, 96, 128]], "rounding": "detectron"},
            "rpn": {
                "pre_nms_train": 300,
                "post_nms_train": 40,
                "pre_nms_test": 300,
                "post_nms_test": 40,
                "samples": 64,
                "min_size": 2,
            },
            "box": {"rois": 24, "delta_weights": [5, 5, 2, 2], "smooth_l1_beta": 1},
            "fcis": {"channels": 128, "rpn_channels": 64, "ohem": True},
            "detections": {"score": 0.001, "nms_iou": 0.3, "limit": 10, "paste": "replicate"},
        },
        "data": {"train": source(), "val": source(), "max_instances": 4, "flip": False, "workers": 1},
        "train": {
            "steps": steps,
            "batch": 4,
            "rate": 0.02,
            "warm_up": {"steps": min(50, steps)},
            "schedule": "cosine",
            "weight_decay": 0,
            "clip_norm": 5.0,
            "log_every": max(steps // 10, 1),
            "checkpoint_every": steps,
        },
        "evaluate": {"score": 0.001, "batch": 4},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def evaluated(folder: Path, steps: int) -> dict[str, dict[str, float]]:
    """The figures of a run, trained and evaluated by the commands."""
    shapes(folder / "data")
    assert cli.run(["train", str(recipe(folder, steps)), "--out", str(folder / "run")]) == 0
    assert cli.run(["eval", str(folder / "run"), "--out", str(folder / "eval")]) == 0
    return json.loads((folder / "eval" / "metrics.json").read_text(encoding="utf-8"))["groups"]


@pytest.mark.slow
def test_a_run_is_evaluated_by_the_commands(tmp_path: Path) -> None:
    groups = evaluated(tmp_path, 2)
    assert set(groups) == {"box", "mask"}
    assert groups["mask"]["all"]["APr50_every"] is not None


@pytest.mark.slow
def test_eight_images_by_heart(tmp_path: Path) -> None:
    groups = evaluated(tmp_path, 600)
    assert groups["box"]["all"]["AP"] > 0.9
    assert groups["mask"]["all"]["AP"] > 0.8
