"""A run that was written before models became a trunk with branches: it loads, predicts and resumes as before.

The fixture holds a checkpoint of step 2 with its run's configuration, what the model of that time answered about two
images, and the weights that it had after step 4.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf import cli
from maskx_tf.checkpoints import io, npz
from maskx_tf.models.inference import Predictor
from tests.training import runs

FIXTURE = Path(__file__).parents[1] / "fixtures" / "before_branches.tar.xz"


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """The arrays of the fixture, whose files lie in the current folder."""
    monkeypatch.chdir(tmp_path)
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    with np.load("answers.npz") as answers:
        return dict(answers)


def test_model_gives_the_same_answers(old: dict[str, np.ndarray]) -> None:
    model = io.open_model("run/checkpoints/step-00000002").model
    predictor = Predictor(model, (64, 64))
    images, sizes = tf.constant(old["images"], tf.float32), tf.constant(old["image_sizes"])
    found = predictor.detect(images, sizes)
    for name, value in found._asdict().items():
        if value is None:  # keypoints, which came later
            continue
        np.testing.assert_allclose(value, old[f"answer/{name}"], atol=1e-3, err_msg=name)
    given = predictor.segment(images, sizes, found.boxes)
    np.testing.assert_array_equal(given.classes, old["segment/classes"])
    np.testing.assert_allclose(given.masks, old["segment/masks"], atol=1e-3)


def test_run_goes_on_as_it_did(old: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    runs.train_eagerly(monkeypatch)
    runs.scenes(Path("data"))
    settings = ["train.stage=mask", "train.weights=start", "train.steps=4", "train.checkpoint_every=2", "train.keep=5"]
    settings += ["train.log_every=1", "train.batch=4"]
    assert cli.run(["train", "recipe.yaml", *settings, "--out", "run", "--resume"]) == 0
    with npz.reading(Path("run/checkpoints/step-00000004/weights.npz")) as archive:
        compared = 0
        for name, value in archive.items():
            if f"step4/{name}" in old:
                # Targets whose share of a mask is just .5 have since been rounded the other way.
                np.testing.assert_allclose(value, old[f"step4/{name}"], atol=1e-4, err_msg=name)
                compared += 1
    assert compared == 8
