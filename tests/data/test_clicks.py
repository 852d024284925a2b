"""Labelled points in COCO's JSON: read, written, moved with their image, and one line for an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskx_tf.cli import run
from maskx_tf.config.data import DataConfig
from maskx_tf.data.formats import coco_write, readers
from maskx_tf.data.formats.readers import DataFiles, read
from maskx_tf.data.pipeline import batches as pipeline
from maskx_tf.data.pipeline import examples, tfrecords_write
from maskx_tf.errors import BadInput
from tests.data.batches import INPUT, PLAIN, take
from tests.data.samples import HEIGHT, WIDTH, coco, coco_data, write_json

WRONG = ["8 24", [8, 24, 1], [[8, 24]], [[8, 24, 2]], [["8", 24, 1]], [[8, float("nan"), 1]]]
POINTS = [[8, 24.5, 1], [14.0, 21, 0], [9, 23, True]]


def source_of(folder: Path, points: Any = POINTS) -> DataFiles:
    """The sample, whose third annotation, of the first image, has points."""
    source, data = coco(folder), coco_data()
    data["annotations"][2]["points"] = points
    write_json(source.annotations, data)
    return source


def test_what_is_written_is_what_was_read(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    dataset = read(source)
    clicks = {one.id: one.clicks for image in dataset.images for one in image.instances}
    np.testing.assert_array_equal(clicks.pop(102), [[8, 24.5, 1], [14, 21, 2], [9, 23, 1]])
    assert set(clicks.values()) == {None}
    coco_write.write(dataset, tmp_path / "again.json", source.images)
    again = json.loads((tmp_path / "again.json").read_text())["annotations"]
    assert [one.get("points") for one in again if one["id"] == 102] == [[[8, 24.5, 1], [14, 21, 0], [9, 23, 1]]]
    assert sum("points" in one for one in again) == 1


@pytest.mark.parametrize("points", WRONG)
def test_one_line_for_what_does_not_fit(tmp_path: Path, points: Any) -> None:
    with pytest.raises(BadInput, match=r"^instances.json: annotations\[2\] \(id 102\): points"):
        readers.for_training([source_of(tmp_path, points)], "all")


def test_pipeline_moves_them(tmp_path: Path) -> None:
    """Also through records; a mirror moves points and leaves their order."""
    dataset = readers.for_training([source_of(tmp_path)], "all")
    tfrecords_write.write(dataset, tmp_path / "records", per_shard=1)  # one of the shards has no points
    for source in (examples.from_dataset(dataset), tfrecords_write.open_written(dataset, tmp_path / "records")):
        (batch,) = take(pipeline.evaluation(source, PLAIN, INPUT, batch=2))
        row = batch["image_ids"].tolist().index(1)
        (place,) = np.flatnonzero(batch["gt_has_clicks"][row])
        scale = (batch["image_sizes"][row] / [HEIGHT, WIDTH])[::-1]
        found = batch["gt_clicks"][row, place]
        np.testing.assert_allclose(found[:, :2], np.array(POINTS)[:, :2] * scale, rtol=1e-5)
        np.testing.assert_array_equal(found[:, 2], [1, 2, 1])
    flip = PLAIN.model_copy(update={"flip": True})
    seen = set()
    for one in take(pipeline.training(examples.from_dataset(dataset), flip, INPUT, batch=2), 6):
        row = one["image_ids"].tolist().index(1)
        (place,) = np.flatnonzero(one["gt_has_clicks"][row])
        box, found = one["gt_boxes"][row, place], one["gt_clicks"][row, place]
        np.testing.assert_array_equal(found[:, 2], [1, 2, 1])
        seen.add(round(float((found[0, 0] - box[0]) / (box[2] - box[0])), 4))
    assert seen == {0.3, 0.7}


def test_training_says_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = coco(tmp_path)
    recipe = tmp_path / "recipe.yaml"
    entry = {"images": str(source.images), "annotations": str(source.annotations)}
    settings = {"data": {"train": [entry]}, "model": {"mask": {"box_losses": ["points"]}}}
    recipe.write_text(json.dumps(settings))
    assert run(["train", str(recipe), "--out", str(tmp_path / "run")]) == 2
    assert "expected annotations with points" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert DataConfig.model_validate(settings["data"]).train
