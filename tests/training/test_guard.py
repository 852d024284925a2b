"""A kept batch gives the losses of the step that failed when it is computed again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf import files
from maskx_tf.checkpoints import io
from maskx_tf.config import Config
from maskx_tf.errors import BadInput
from maskx_tf.layers.applications import NETWORKS
from maskx_tf.training import dry, fit, guard
from tests.models import small
from tests.small_backbone import SMALL_NETWORK

BACKBONE = {"name": "mobilenet_v2", "norm": "frozen_batch", "frozen_stages": 0}
UPDATES, STEP = 4, 9  # of float16, which left out four steps


@pytest.fixture(autouse=True)
def _quick_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "mobilenet_v2", SMALL_NETWORK)


def replayed(config: Config, batch: dict[str, np.ndarray], folder: Path) -> None:
    """Keeps a batch, computes it again, and compares."""
    model = fit.compiled(config)
    small.enliven(model, 0)
    model.optimizer.iterations.assign(UPDATES)
    seeds = model.seeds(tf.constant(UPDATES), tf.constant(0), tf.constant(len(batch["image_ids"])))
    compute = tf.function(model.batch_losses, jit_compile=True) if config.train.jit else model.batch_losses
    losses = compute({name: tf.constant(value) for name, value in batch.items()}, seeds)
    expected = {name: float(loss.total) / max(float(loss.count), 1.0) for name, loss in losses.items()}
    kept = guard.keep(folder, model, config, STEP, batch, {"loss": float("nan")})
    found = guard.replay(kept)
    assert found["losses"] == pytest.approx(expected, rel=1e-5)
    assert all(value > 0.0 for value in expected.values())
    assert found["first"].startswith("nothing")
    assert ("without XLA" in found["first"]) == config.train.jit
    assert (found["step"], found["images"]) == (STEP, batch["image_ids"].tolist())


def regions() -> dict[str, np.ndarray]:
    """A batch of pooled regions."""
    generator = np.random.default_rng(0)
    boxes = np.array([[4.0, 6.0, 30.0, 38.0], [20.0, 10.0, 62.0, 50.0]], np.float32)
    return {
        "pooled": generator.normal(size=[2, 14, 14, 32]).astype(np.float16),
        "pixels": np.zeros([2, 0], np.uint8),
        "classes": np.array([1, 3], np.int32),
        "boxes": boxes,
        "truth_boxes": boxes,
        "image_sizes": np.full([2, 2], 64.0, np.float32),
        "masks": generator.integers(0, 256, [2, 98], np.uint8),
        "has_mask": np.array([1, 0], np.uint8),
        "image_ids": np.array([7, 8]),
    }


def test_pooled_regions_and_a_teacher(tmp_path: Path) -> None:
    settings = small.config(backbone=BACKBONE, mask={"box_losses": ("projection", "teacher")})
    replayed(Config(model=settings, train={"ema": 0.5}), regions(), tmp_path)


def test_proposals_of_another_model(tmp_path: Path) -> None:
    settings = small.config(backbone=BACKBONE, family="faster_rcnn")
    io.save(small.small_model(settings, seed=1), Config(model=settings), tmp_path / "model")
    train = {"stage": "regions", "proposals": str(tmp_path / "model")}
    config = Config(model=settings, data={"max_instances": 4}, train=train)
    replayed(config, dry.made_up(config, 1), tmp_path)


@pytest.mark.slow  # XLA compiles the losses twice
def test_losses_compiled_with_xla(tmp_path: Path) -> None:
    """The same seed draws other regions there."""
    settings = small.config(backbone=BACKBONE, family="faster_rcnn", box={"rois": 8})
    config = Config(model=settings, data={"max_instances": 4}, train={"jit": True})
    replayed(config, dry.made_up(config, 1), tmp_path)


def test_a_folder_of_earlier_commits(tmp_path: Path) -> None:
    """Its report has no number of updates, and a run with a teacher did not keep the averages."""
    settings = small.config(backbone=BACKBONE, mask={"box_losses": ("projection", "teacher")})
    config = Config(model=settings, train={"ema": 0.5})
    folder = guard.keep(tmp_path, fit.compiled(config), config, STEP, regions(), {"loss": float("nan")})
    facts = guard.read(folder)
    del facts["updates"]
    files.write_json(folder / guard.FAILURE, facts)
    assert guard.replay(folder)["updates"] == STEP - 1
    (folder / guard.AVERAGES).unlink()
    with pytest.raises(BadInput, match=r"averages\.npz: no such file$"):
        guard.replay(folder)
