"""Every recipe takes a step, on a small canvas and with few proposals, but otherwise unchanged.

One with a small network does so by default; those of full width take half a minute each.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from maskx_tf import cli
from maskx_tf.config import load
from tests.training import runs

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SMALL = CONFIGS / "synthetic_keypoint.yaml"
LARGE = sorted(set(CONFIGS.glob("*.yaml")) - {SMALL})
REDUCED = [
    "model.input.canvas=[128, 128]",
    "model.input.short_side=128",
    "model.input.long_side=128",
    "model.rpn.pre_nms_train=100",
    "model.rpn.post_nms_train=50",
    "model.rpn.pre_nms_test=100",
    "model.rpn.post_nms_test=50",
    "model.box.rois=16",
    "train.batch=1",
]


def arguments(recipe: Path) -> list[str]:
    """A dry run of a recipe."""
    reduced = list(REDUCED)
    if load(recipe).model.backbone.name.startswith("resne"):  # random weights between norms that do nothing explode
        reduced.append("model.backbone.norm=group")
    return ["train", str(recipe), "--dry-run", "--json", *reduced]


def assert_learned(output: str) -> None:
    """What a dry run prints."""
    found = json.loads(output[output.index("{") :])
    assert all(math.isfinite(value) for value in found["losses"].values())
    assert set(found["losses"]) >= {"loss", "gradient_norm"}
    assert 0 < found["trained"] <= found["parameters"]


def test_small_recipe_takes_a_step(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    runs.train_eagerly(monkeypatch)
    assert cli.run(arguments(SMALL)) == 0
    assert_learned(capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [pytest.param(path, id=path.stem) for path in LARGE])
def test_recipe_takes_a_step(recipe: Path) -> None:
    # Each in a new process, because TensorFlow does not free the memory of a model: sixty at full width would fill it.
    assert_learned(runs.finished(runs.python("-m", "maskx_tf", *arguments(recipe))))
