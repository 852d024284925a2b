"""Every recipe takes a step: on a small canvas, with few proposals, and everything else as it stands there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskx_tf.config import load
from tests.training import runs

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
RECIPES = sorted(CONFIGS.glob("*.yaml"))
DEFAULT = {"synthetic_keypoint"}  # a small network; those of full width take half a minute each
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


@pytest.mark.parametrize(
    "recipe",
    [pytest.param(path, marks=() if path.stem in DEFAULT else pytest.mark.slow, id=path.stem) for path in RECIPES],
)
def test_recipe_takes_a_step(recipe: Path) -> None:
    reduced = list(REDUCED)
    if load(recipe).model.backbone.name.startswith("resne"):  # random weights between norms that do nothing explode
        reduced.append("model.backbone.norm=group")
    # In a process of its own: TensorFlow keeps so much of sixty models of full width that they fill the memory.
    output = runs.finished(runs.python("-m", "maskx_tf", "train", str(recipe), "--dry-run", "--json", *reduced))
    found = json.loads(output[output.index("{") :])
    assert all(value == value for value in found["losses"].values())
    assert set(found["losses"]) >= {"loss", "gradient_norm"}
    assert 0 < found["trained"] <= found["parameters"]
