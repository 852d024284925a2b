"""Pictures and results of predictions: each whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskx_tf.config import Config, ModelConfig
from maskx_tf.errors import BadInput
from maskx_tf.structures import Detections
from maskx_tf.tasks.models import Model
from maskx_tf.tasks.predict import Prediction, predict, predict_files
from tests import disk
from tests.models.small import config, small_model


@pytest.fixture(scope="module")
def model() -> Model:
    settings = config(backbone={"name": "resnet_small", "frozen_stages": 0})
    return Model(small_model(settings), Config(model=settings), {})


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, [40, 60, 3], np.uint8)).save(path)
    return path


@disk.each_error
def test_predictions_that_fail_leave_nothing_half_written(
    model: Model, photo: Path, tmp_path: Path, error: BaseException
) -> None:
    out, results = tmp_path / "out", tmp_path / "results.json"

    def write() -> None:
        predict_files(model, [photo], pictures=out, results=results, score=0.0)

    expected = BadInput if isinstance(error, OSError) else KeyboardInterrupt
    steps = 0
    for _ in disk.each_step(write, error, expected):
        steps += 1
        names = [name for name in disk.names_in(tmp_path) if name != "photo.png"]
        assert names in ([], ["out"], ["out", "out/photo.png"], ["out", "out/photo.png", "results.json"])
        if "out/photo.png" in names:
            Image.open(out / "photo.png").load()
        if "results.json" in names:
            json.loads(results.read_text())
    assert steps >= 8


def test_a_disk_that_is_full_for_a_picture_is_one_line(model: Model, photo: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"photo\.png: cannot be written: File too large$"), disk.no_room_beyond(1000):
        predict_files(model, [photo], pictures=tmp_path / "out", results=None)
    assert disk.names_in(tmp_path) == ["photo.png"]


def test_results_that_cannot_be_written_are_refused_before_the_model_is_opened(photo: Path) -> None:
    with pytest.raises(BadInput, match=r"photo\.png/a\.json: cannot be written: Not a directory$"):
        predict_files("nowhere", [photo], pictures=None, results=photo / "a.json")


def test_members_of_an_ensemble_share_classes(model: Model, photo: Path) -> None:
    config = model.config.with_classes(("cat", "dog", "cow"))
    with pytest.raises(BadInput, match=r"expected the model.class_names of mask_x_rcnn for an ensemble, found others"):
        predict(model, photo, ensemble=[Model(model.network, config, {})])
    (alone,), (both,) = predict(model, photo, score=0.0), predict(model, photo, score=0.0, ensemble=[model])
    np.testing.assert_allclose(alone.detections.boxes, both.detections.boxes, atol=1e-2)
    np.testing.assert_allclose(alone.detections.masks, both.detections.masks, atol=1e-3)


@pytest.mark.parametrize("count", [0, 2])
def test_supervision_gets_masks_names_and_corners(count: int) -> None:
    """On an image that is no square; the expected corners are those of the painted mask itself."""
    supervision = pytest.importorskip("supervision")
    boxes = np.array([[10, 5, 40, 15], [50, 20, 58, 38]], np.float32)[:count]
    found = Detections(
        boxes=boxes,
        scores=np.array([0.9, 0.5], np.float32)[:count],
        classes=np.array([2, 1])[:count],
        valid=np.ones(count, bool),
        masks=np.ones([count, 28, 28], np.float32),
    )
    settings = ModelConfig(family="mask_rcnn", class_names=("cat", "dog"))
    prediction = Prediction(np.zeros([40, 60, 3], np.uint8), (40, 60), found, Model(None, Config(model=settings), {}))
    converted = prediction.as_supervision()
    assert isinstance(converted, supervision.Detections)
    assert len(converted) == count
    np.testing.assert_array_equal(converted.xyxy, boxes)
    assert converted.mask.shape == (count, 40, 60)
    for mask, (left, top, right, bottom) in zip(converted.mask, boxes, strict=True):
        rows, columns = np.nonzero(mask)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (left, top, right, bottom)
    assert converted.data["class_name"].tolist() == ["dog", "cat"][:count]
    assert converted.class_id.tolist() == [1, 0][:count]
    assert converted.confidence.tolist() == pytest.approx([0.9, 0.5][:count])
