"""The keypoint branch in real steps of the optimizer, and what it can learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maskx_tf import cli
from maskx_tf.checkpoints import io
from maskx_tf.config import Config, TrainConfig, load
from maskx_tf.errors import BadInput
from maskx_tf.evaluation.metrics import Metrics
from maskx_tf.synthetic import generate
from maskx_tf.synthetic.parameters import Recipe
from maskx_tf.tasks import train
from maskx_tf.tasks.progress import SILENT
from maskx_tf.training import fit
from tests.training import runs

KEYPOINT = "model.keypoint={use: true, convs: 1, channels: 16}"


POINTS = {"keypoint": {"use": True, "names": ["tip"]}}


def test_keypoint_stage_needs_no_masks() -> None:
    config = Config(model=POINTS, train={"stage": "keypoint", "weights": "detector"})
    train._require_masks(config, known=False)
    with pytest.raises(BadInput, match=r"data\.train: expected masks of some class"):
        train._require_masks(config.model_copy(update={"train": TrainConfig()}), known=False)


@pytest.mark.parametrize(
    ("stage", "known", "best"),
    [
        ("keypoint", {"box": 0.1, "mask": 0.2, "keypoint": 0.3}, 0.3),
        ("all", {"box": 0.1, "mask": 0.2, "keypoint": 0.3}, 0.2),
        ("all", {"box": 0.1, "keypoint": 0.3}, 0.1),
        ("all", {"keypoint": 0.3}, 0.3),
        ("all", {}, None),
    ],
)
def test_the_figure_that_says_which_checkpoint_is_best(
    stage: str, known: dict[str, float], best: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics(1, "detected", {kind: {"all": {"AP": value}} for kind, value in known.items()}, {}, {})
    monkeypatch.setattr(train.evaluation_data, "open_data", lambda *_: None)
    monkeypatch.setattr(train.evaluate, "predictor_of", lambda *_: None)
    monkeypatch.setattr(train.evaluate, "score", lambda *_: metrics)
    config = Config(model=POINTS, train={"stage": stage, "weights": "detector"})
    figures, found = train.Watcher(config, frozenset(), SILENT).evaluate(None)
    assert found == best
    assert len(figures) == len(known)


@pytest.mark.slow
def test_keypoint_stage_changes_the_keypoint_branch_alone(tmp_path: Path) -> None:
    """By the command, on a detector that another run trained; the data say what the keypoints are."""
    data = tmp_path / "data"
    generate.generate(Recipe(images=20, size=64, classes=24, a=17), data, workers=1, keypoints=True)
    recipe, detector, points = runs.recipe(tmp_path, data), tmp_path / "detector", tmp_path / "points"
    few = ["model.family=faster_rcnn", "train.steps=2", "train.batch=2"]
    assert cli.run(["train", str(recipe), *few, "--out", str(detector)]) == 0
    start = [f"train.weights={detector}", "train.stage=keypoint", "train.keypoint_weight=2", KEYPOINT]
    assert cli.run(["train", str(recipe), *few, *start, "--out", str(points)]) == 0
    config = load(points / "config.yaml")
    assert len(config.model.keypoint.names) == 4
    assert len(config.model.keypoint.skeleton) > 0
    before = {variable.path: variable.numpy() for variable in io.open_model(detector).model.weights}
    after = {variable.path: variable.numpy() for variable in io.open_model(points).model.weights}
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name], err_msg=name)
    fresh = {variable.path: variable.numpy() for variable in fit.compiled(config).weights}
    added = set(after) - set(before)
    assert {name.split("/")[0] for name in added} == {"keypoint_head"}
    assert all(not np.array_equal(fresh[name], after[name]) for name in added)
    line = (points / "log.csv").read_text().splitlines()
    values = dict(zip(line[0].split(","), line[1].split(","), strict=True))
    assert float(values["loss"]) == pytest.approx(2 * float(values["loss_keypoint"]), rel=1e-3)


@pytest.mark.slow
def test_eight_images_are_learned_by_heart(tmp_path: Path) -> None:
    """8 scenes on a canvas of 128, 4 images a step, 1500 steps: keypoints and boxes > .9, masks of A > .8."""
    overrides = [
        "model.family=mask_rcnn",
        "model.backbone.fpn_channels=64",
        "model.keypoint={use: true, convs: 4, channels: 64}",
        "train.log_every=100",
    ]
    figures = runs.learned_by_heart(tmp_path, *overrides, steps=1500, rate=0.02, keypoints=True)
    assert figures["keypoint/all/AP"] > 0.9
    assert figures["box/all/AP"] > 0.9
    assert figures.get("mask/A/AP", figures.get("mask/all/AP")) > 0.8
