"""One image in Python, SavedModel, gRPC, REST and LiteRT: equal detections."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.checkpoints import io as checkpoints
from maskx_tf.config import Config
from maskx_tf.export import device, litert, saved_model
from maskx_tf.export.source import open_source
from maskx_tf.prediction.images import ImagePredictor
from maskx_tf.serving.client import Client
from maskx_tf.serving.client.answers import of_image
from maskx_tf.structures import Detections
from tests import oracle
from tests.export.exported import CATEGORY_IDS, SIZES, encoded, exported, keypoint_folder, model_folder, picture
from tests.models.small_fcis import fcis_config, fcis_model
from tests.models.torchvision_models import _imported
from tests.oracle import matched_pairs
from tests.serving.running import running

pytestmark = pytest.mark.slow
pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert (the extra litert) is missing")


def small(scratch: Path) -> tuple[Path, Path, list[np.ndarray]]:
    return model_folder(), exported(), [picture(*size, seed) for seed, size in enumerate(SIZES)]


def keypoints(scratch: Path) -> tuple[Path, Path, list[np.ndarray]]:
    path = saved_model.write(open_source(keypoint_folder()), scratch / "pets").path
    return keypoint_folder(), path, [picture(*size, seed) for seed, size in enumerate(SIZES)]


def fcis(scratch: Path) -> tuple[Path, Path, list[np.ndarray]]:
    folder, settings = scratch / "model", fcis_config()
    checkpoints.save(fcis_model(settings), Config(model=settings), folder, category_ids=CATEGORY_IDS)
    path = saved_model.write(open_source(folder), scratch / "pets").path
    return folder, path, [picture(*size, seed) for seed, size in enumerate(SIZES)]


def resnet(scratch: Path) -> tuple[Path, Path, list[np.ndarray]]:
    imported = _imported()
    folder = scratch / "model"
    checkpoints.save(imported.model, imported.config, folder)
    path = saved_model.write(open_source(folder), scratch / "pets").path
    return folder, path, [oracle.outputs()[f"{image}/image_uint8"] for image in "ab"]


def assert_same(found: Detections, expected: Detections, ids: np.ndarray, *, pixels: float, way: str) -> None:
    classes = np.asarray(found.classes)
    ours, theirs = matched_pairs(found.boxes, expected.boxes, classes, ids[expected.classes - 1])
    assert len(found.boxes) == len(expected.boxes), way
    assert len(ours) >= 0.99 * len(expected.boxes), way
    np.testing.assert_allclose(found.boxes[ours], expected.boxes[theirs], atol=pixels, err_msg=way)
    np.testing.assert_allclose(found.scores[ours], expected.scores[theirs], atol=1e-3, err_msg=way)
    levels = np.abs(np.round(255 * found.masks[ours]) - np.round(255 * expected.masks[theirs]))
    # Of a hundred masks of random weights a few hang on the last digit of a proposal.
    assert (levels <= 1).mean() >= 0.99, way
    assert (found.keypoints is None) == (expected.keypoints is None), way
    if expected.keypoints is not None:
        np.testing.assert_array_equal(found.keypoints[ours].any(axis=(1, 2)), expected.classes[theirs] > 1, way)
        np.testing.assert_allclose(
            found.keypoint_scores[ours], expected.keypoint_scores[theirs], atol=0.02, err_msg=way
        )
        away = np.abs(found.keypoints[ours] - expected.keypoints[theirs]).max(axis=-1)
        # Peaks of random weights that nearly tie may change places.
        assert (away <= pixels + 0.05).mean() >= 0.97, way


@pytest.mark.parametrize("made", [small, keypoints, fcis, pytest.param(resnet, marks=oracle.needs_oracle)])
def test_every_way_finds_the_same(made, tmp_path) -> None:
    folder, version, pictures = made(tmp_path)
    source = open_source(folder)
    ids = np.array(source.category_ids)
    predictor = ImagePredictor(source.model, source.config.model)
    ask = tf.saved_model.load(str(version)).signatures["serving_default"]
    runner = None
    if made is not fcis:  # whose votes LiteRT cannot compute
        litert.write(open_source(folder, portable=True), tmp_path / "lite", precision="float32", parts=False)
        runner = device.Runner(tmp_path / "lite")
    with running(version.parent) as place, Client(place.grpc) as grpc, Client(place.rest) as rest:
        for pixels in pictures:
            expected, file = predictor(pixels), encoded(pixels)
            outputs = {name: value.numpy() for name, value in ask(image_bytes=tf.constant([file])).items()}
            answers = {
                "SavedModel": of_image(outputs, 0).detections,
                "gRPC": grpc.detect(file).detections,
                "gRPC, pixels": grpc.detect(pixels).detections,
                "REST": rest.detect(file).detections,
            }
            for way, found in answers.items():
                assert_same(found, expected, ids, pixels=1e-2, way=way)
            if runner is None:
                continue
            found = runner(pixels)
            assert_same(found._replace(classes=ids[found.classes - 1]), expected, ids, pixels=0.5, way="LiteRT")
        together = grpc.detect_files([encoded(pixels) for pixels in pictures])
        for pixels, answer in zip(pictures, together, strict=True):
            assert_same(answer.detections, predictor(pixels), ids, pixels=1e-2, way="a batch of several sizes")
