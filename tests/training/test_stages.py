"""Stages of training in one command: the four alternating steps of Faster R-CNN, which end with shared features."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf import cli
from maskx_tf.checkpoints import io
from maskx_tf.config import Config
from maskx_tf.structures import Proposals
from maskx_tf.training import start
from tests.models import small
from tests.training import runs

FOUR = "train.stages=[rpn, regions, rpn_head, heads]"


def test_regions_come_from_the_proposer() -> None:
    """Where a model has another's proposals, its own network's play no part in the losses of its heads."""
    settings = small.config(backbone={"name": "resnet_small", "frozen_stages": 0}, family="faster_rcnn")
    model, other = small.small_model(settings), small.small_model(settings, seed=1)
    model.learn(start.parts_of("regions", model))
    assert model.learning_parts == {"features", "box"}

    def loss() -> dict[str, float]:
        return {name: float(one.total) for name, one in model.losses_of(*small.loss_inputs()).items()}

    own = loss()
    assert set(own) == {"loss_class", "loss_box"}

    def propose(images: np.ndarray, sizes: np.ndarray) -> Proposals:
        return other.rpn.train.choose(other.rpn.outputs(other.features(images, sizes)), sizes)

    model.proposer = propose
    given = loss()
    assert given != own
    model.rpn.head.objectness.bias.assign_add(np.linspace(-5, 5, model.rpn.head.objectness.filters))
    model.rpn.head.deltas.bias.assign_add(np.ones(model.rpn.head.deltas.filters))
    assert loss() == given
    other.rpn.head.deltas.bias.assign_add(np.ones(other.rpn.head.deltas.filters))
    assert loss() != given


def test_a_proposer_is_made_of_what_xla_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = small.config(backbone={"name": "resnet_small", "frozen_stages": 0}, family="faster_rcnn")
    io.save(small.small_model(settings), Config(model=settings), tmp_path / "model")
    train = {"stage": "regions", "proposals": str(tmp_path / "model"), "jit": True}
    model = start.make(Config(model=settings, train=train))
    monkeypatch.setattr(tf.image, "combined_non_max_suppression", None)  # which XLA does not have
    assert model.proposer is not None
    assert model.proposer(*small.loss_inputs()[:2]).valid.numpy().any()


def test_a_table_is_that_of_the_configuration(tmp_path: Path) -> None:
    """Weights that a run starts from bring theirs, of the same classes and size, in vain."""
    tables = [np.full([len(small.CLASSES), 5], value, np.float32) for value in (1, 2)]
    configs = []
    for number, table in enumerate(tables):
        np.save(tmp_path / f"{number}.npy", table)
        transfer = {"input": "embedding", "embedding": str(tmp_path / f"{number}.npy")}
        configs.append(small.config(backbone={"name": "resnet_small", "frozen_stages": 0}, transfer=transfer))
    io.save(small.small_model(configs[0]), Config(model=configs[0]), tmp_path / "model")
    said: list[str] = []
    model = start.make(Config(model=configs[1], train={"weights": str(tmp_path / "model")}), said.append)
    np.testing.assert_array_equal(model.table, tables[1])
    assert said == [f"started from {tmp_path / 'model'}"]


@pytest.mark.slow
def test_four_steps_share_features_in_the_end(tmp_path: Path) -> None:
    """Which weights each step changes; and `--resume` makes no finished step again."""
    recipe, out = runs.recipe(tmp_path, runs.scenes(tmp_path / "data")), tmp_path / "run"
    train = ["train", str(recipe), FOUR, "train.steps=2", "train.weight_decay=0", "--out", str(out)]
    assert cli.run(train) == 0
    folders = [out / "stages" / name for name in ("1_rpn", "2_regions", "3_rpn_head")]
    first, second, third, last = (
        {variable.path: variable.numpy() for variable in io.open_model(folder).model.weights}
        for folder in (*folders, out)
    )

    def changed(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
        return {name.split("/")[0] for name in before if not np.array_equal(before[name], after[name])}

    heads = {"box_head", "box_predictor", "mask_head", "transfer"}
    assert changed(first, second) == {"backbone", "fpn", "rpn", *heads}  # the second begins as the first did
    assert changed(second, third) == {"rpn"}
    assert changed(third, last) == heads
    assert cli.run(train) == 2  # a run is in the way
    made = [(folder / "summary.json").stat().st_mtime_ns for folder in folders]
    assert cli.run([*train, "--resume"]) == 0
    assert made == [(folder / "summary.json").stat().st_mtime_ns for folder in folders]


@pytest.mark.slow
def test_killed_stage_goes_on(tmp_path: Path) -> None:
    """A run that is killed in its second stage ends with the weights of one that is not, and repeats no stage."""
    recipe = runs.recipe(tmp_path, runs.scenes(tmp_path / "data"))
    settings = ["train.stages=[rpn, regions]", "train.steps=4", "train.checkpoint_every=1", "train.deterministic=true"]

    def start(out: Path) -> subprocess.Popen[str]:
        killer = f"train.callbacks=[{{name: tests.training.runs.KilledOnce, arguments: {{run: {out}}}}}]"
        return runs.python("-m", "maskx_tf", "train", str(recipe), *settings, killer, "--out", str(out), "--resume")

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start(killed)
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    first = (killed / "stages" / "1_rpn" / "summary.json").stat().st_mtime_ns
    runs.finished(start(killed))
    assert first == (killed / "stages" / "1_rpn" / "summary.json").stat().st_mtime_ns
    whole.with_suffix(".killed").touch()
    runs.finished(start(whole))
    ours, theirs = (
        {variable.path: variable.numpy() for variable in io.open_model(out).model.weights} for out in (killed, whole)
    )
    for name, value in theirs.items():
        np.testing.assert_array_equal(value, ours[name], err_msg=name)
