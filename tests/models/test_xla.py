"""One step of training compiled by XLA, against the same step without it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from maskx_tf.config import Config
from maskx_tf.training import dry
from maskx_tf.training.fit import compiled
from tests.models import small

# All regions are taken, because XLA would draw others than TensorFlow.
ALL = {"rois": 64, "positive_fraction": 0.5}
MODELS: dict[str, dict[str, Any]] = {
    "detector": {"family": "faster_rcnn"},
    "masks": {"family": "mask_rcnn"},
    "masks from boxes": {"mask": {**small.DEFAULTS["mask"], "box_losses": ("projection", "pairwise")}},
    "keypoints": {"family": "faster_rcnn", "keypoint": {"use": True, "names": ("head", "tail"), "classes": ("cat",)}},
}


def after_a_step(config: Config) -> tuple[dict[str, float], list[np.ndarray]]:
    """The losses of a step, and how it changed each weight."""
    model, batch = compiled(config), dry.made_up(config, 2)
    small.enliven(model, 0)
    before = [weight.numpy() for weight in model.trainable_variables]
    losses = model.train_on_batch(batch)
    changes = [weight.numpy() - old for weight, old in zip(model.trainable_variables, before, strict=True)]
    return losses, changes


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_a_step_of_training(kind: str) -> None:
    backbone = {"name": "resnet_small", "frozen_stages": 0}
    settings = small.config(**{"backbone": backbone, "box": ALL, **MODELS[kind]})
    train = {"batch": 2, "strategy": "one", "rate": 0.5, "warm_up": {"steps": 0}}
    both = [
        after_a_step(Config(model=settings, data={"max_instances": 4}, train={**train, "jit": jit}))
        for jit in (False, True)
    ]
    (expected, changes), (losses, compiled_changes) = both
    # A cell of a mask whose share is just .5 may round either way, which moves the mask's loss.
    assert losses == pytest.approx(expected, rel=1e-3)
    for one, other in zip(compiled_changes, changes, strict=True):
        assert np.linalg.norm(one - other) <= 0.02 * np.linalg.norm(other)
