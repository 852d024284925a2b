"""Family fcis outside of Python: a SavedModel answers as the model does, masks of the vote included."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf import cli
from maskx_tf.checkpoints import io as checkpoints
from maskx_tf.config import Config
from maskx_tf.export import device
from maskx_tf.masks.paste import paste
from maskx_tf.masks.rle import bitmap_of
from maskx_tf.prediction.images import ImagePredictor
from maskx_tf.prediction.segmenter import Segmenter
from maskx_tf.serving.client import answers
from tests.export.exported import CATEGORY_IDS, SIZES, detections, encoded, folder, picture
from tests.models.small import assert_same_detections, predict_eagerly
from tests.models.small_fcis import fcis_config, fcis_model

PICTURES = [picture(*size, seed) for seed, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def fcis_folder() -> str:
    path = folder() / "fcis"
    checkpoints.save(fcis_model(fcis_config()), Config(model=fcis_config()), path, category_ids=CATEGORY_IDS)
    return str(path)


@pytest.mark.slow
def test_a_saved_model_gives_the_masks_of_the_vote(fcis_folder, monkeypatch) -> None:
    predict_eagerly(monkeypatch)
    out = folder() / "fcis-saved"
    settings = ["export.signatures=[serving_default, segment_boxes]", "export.warmup=0"]
    assert cli.run(["export", "saved-model", fcis_folder, "--out", str(out), *settings]) == 0
    signatures = tf.saved_model.load(str(out / "1")).signatures
    outputs = signatures["serving_default"](image_bytes=tf.constant([encoded(pixels) for pixels in PICTURES]))
    loaded = checkpoints.load(fcis_folder)
    predictor, segmenter = ImagePredictor(loaded[0], loaded[1].model), Segmenter(out / "1")
    for index, pixels in enumerate(PICTURES):
        expected = predictor(pixels)
        assert len(expected.boxes) > 0
        assert_same_detections(detections(outputs, index), expected, pixels=1e-2, tolerance=1.01 / 255)
        answer = answers.of_image({name: value.numpy() for name, value in outputs.items()}, index)
        assert answer.paste == "replicate"
        drawn = paste(expected.masks, expected.boxes, *pixels.shape[:2], mode="replicate")
        assert (answer.pasted() == drawn).mean() > 0.999
        (row,) = segmenter([("x", encoded(pixels))])
        assert (np.array([bitmap_of(mask) for mask in row.masks]) == drawn).mean() > 0.999
    boxes = tf.constant([[[0.1, 0.1, 0.7, 0.6]]])
    given = signatures["segment_boxes"](image_bytes=tf.constant([encoded(PICTURES[0])]), boxes=boxes)
    assert given["detection_masks"].shape == (1, 1, 6, 6)
    np.testing.assert_allclose(given["detection_boxes"], boxes, atol=1e-6)


def test_litert_says_why_not(fcis_folder, capsys) -> None:
    assert cli.run(["export", "litert", fcis_folder, "--out", str(folder() / "fcis-lite")]) == 2
    message = capsys.readouterr().err
    assert "voted for in windows as large as their boxes" in message
    assert message.count("\n") == 1


@pytest.mark.slow
def test_rfcn_in_litert() -> None:
    """R-FCN has no vote: its graph converts, and finds what the model finds."""
    pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert (the extra litert) is missing")
    settings = fcis_config(fcis={"scores": "average", "passes": 1, "size": 3})
    path, out = folder() / "rfcn", folder() / "rfcn-lite"
    checkpoints.save(fcis_model(settings), Config(model=settings), path, category_ids=CATEGORY_IDS)
    assert cli.run(["export", "litert", str(path), "--out", str(out)]) == 0
    expected = ImagePredictor(checkpoints.load(path)[0], settings)(PICTURES[0])
    found = device.Runner(out)(PICTURES[0])
    assert len(found.boxes) > 0
    assert_same_detections(found, expected, pixels=0.1, tolerance=1e-2)
