"""Keypoints of the synthetic benchmark: near the ends of silhouettes, and hidden behind other objects."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from maskx_tf.cli import run
from maskx_tf.data.formats.readers import DataFiles, for_training
from maskx_tf.synthetic.generate import generate
from maskx_tf.synthetic.keypoints import HUNDREDTHS, OUTLINES, farthest
from maskx_tf.synthetic.painter import FINE, Pose, patch, turn
from maskx_tf.synthetic.parameters import Recipe
from maskx_tf.synthetic.recipe import classes
from maskx_tf.synthetic.scene import scene
from maskx_tf.synthetic.silhouettes import SILHOUETTES

SMALL = Recipe(images=20, size=64)
SIZE = 200


def test_every_silhouette_has_an_outline() -> None:
    assert OUTLINES.keys() == SILHOUETTES.keys()


@pytest.mark.parametrize("name", SILHOUETTES)
def test_outlines_lie_inside(name: str) -> None:
    u, v = np.array(OUTLINES[name](), np.int32).T
    assert SILHOUETTES[name](u, v).all()


@pytest.mark.parametrize("name", SILHOUETTES)
def test_keypoints_are_near_the_ends_of_the_painted_silhouette(name: str) -> None:
    generator = np.random.default_rng(3)
    for _ in range(20):
        pose = Pose(400, 410, int(generator.integers(100, 200)), *turn(generator), bool(generator.integers(2)))
        spot = patch(pose, SILHOUETTES[name], SIZE)
        canvas = np.zeros([FINE * SIZE, FINE * SIZE], bool)
        canvas[spot.rows, spot.columns] = spot.inside
        y, x = (places / FINE for places in np.nonzero(canvas))
        found = np.array(farthest(name, pose)) / HUNDREDTHS
        for place in found:
            assert np.hypot(x + 0.25 - place[0], y + 0.25 - place[1]).min() < 0.5  # it is painted
        inside = np.array([found[0, 1] - y.min(), x.max() - found[1, 0], y.max() - found[2, 1], found[3, 0] - x.min()])
        assert (inside > 0.5).all()
        assert (inside < 0.25 * pose.radius / 4).all()


def test_labels_say_what_can_be_seen() -> None:
    recipe = Recipe(size=96)
    every = classes(recipe)
    counts, wrong = np.zeros(3, int), 0
    for index in range(60):
        objects = scene(recipe, every, "train", index).objects
        grids = np.stack([one.mask for one in objects])
        for number, one in enumerate(objects):
            points = np.array(one.keypoints["keypoints"]).reshape(-1, 3)
            assert one.keypoints["num_keypoints"] == (points[:, 2] > 0).sum()
            for x, y, label in points:
                counts[int(label)] += 1
                if not label:
                    assert (x, y) == (0, 0)
                    continue
                assert -0.5 <= x <= 95.5
                assert -0.5 <= y <= 95.5
                # The pixels around it: those of this object, or of one that stands before it.
                near = grids[:, max(round(y) - 2, 0) : round(y) + 3, max(round(x) - 2, 0) : round(x) + 3].any(
                    axis=(1, 2)
                )
                wrong += not (near[number] if label == 2 else near[number + 1 :].any())
    assert wrong < 0.005 * counts.sum()  # where less than half of a pixel is left of a point of a star
    assert (counts > 15).all()
    assert counts[2] > counts[:2].sum()


def test_keypoints_change_nothing_else(tmp_path: Path) -> None:
    generate(SMALL, tmp_path / "without")
    generate(SMALL, tmp_path / "with", keypoints=True)
    for path in sorted((tmp_path / "without").rglob("*")):
        other = tmp_path / "with" / path.relative_to(tmp_path / "without")
        if path.suffix == ".png":
            assert path.read_bytes() == other.read_bytes()
        elif path.suffix == ".json":
            data = json.loads(other.read_text())
            for one in data["annotations"]:
                assert len(one.pop("keypoints")) == 12
                del one["num_keypoints"]
            for one in data["categories"]:
                del one["keypoints"], one["skeleton"]
            assert data == json.loads(path.read_text())
    assert "--keypoints" in (tmp_path / "with" / "README.md").read_text()


def test_command_writes_them_and_readers_read_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--images", "20", "--size", "64", "--keypoints"]
    assert run(["data", "synth", "--out", str(tmp_path / "bench"), *options]) == 0
    source = DataFiles(tmp_path / "bench" / "train", tmp_path / "bench" / "instances_train.json")
    dataset = for_training([source], "all")
    assert dataset.keypoints is not None
    assert dataset.keypoints.names == ("top", "right", "bottom", "left")
    assert dataset.keypoints.mirror == (0, 3, 2, 1)
    assert len(dataset.keypoints.skeleton) == 4
    capsys.readouterr()
    assert run(["data", "check", "--images", str(source.images), "--annotations", str(source.annotations)]) == 0
    assert "with keypoints\n" in capsys.readouterr().out
