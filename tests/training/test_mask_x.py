"""Mask^X R-CNN in real steps of the optimizer, and what it can learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf import cli
from maskx_tf.checkpoints import io
from maskx_tf.config import Config, load
from maskx_tf.models.rcnn import RCNN
from maskx_tf.training import dry, fit
from tests.training import runs

MOBILENET = runs.ROOT.parent / "shared/data/weights/mobilenet_v2_imagenet_notop.weights.h5"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mask_x")
    return runs.recipe(folder, runs.scenes(folder / "data"))


def named(recipe: Path, *overrides: str) -> Config:
    config = load(recipe, overrides)
    names = tuple(f"class {number}" for number in range(24))
    return config.model_copy(update={"model": config.model.model_copy(update={"class_names": names})})


@pytest.fixture(scope="module")
def model(recipe: Path) -> RCNN:
    """Decay is switched off, which would shrink weights without a gradient."""
    model = fit.compiled(named(recipe, "train.weight_decay=0"))
    model.run_eagerly = True
    return model


def moved(model: RCNN, batch: dict[str, Any], steps: int = 2) -> dict[str, bool]:
    """Which weights some steps change."""
    before = {variable.path: variable.numpy() for variable in model.weights}
    data = tf.data.Dataset.from_tensors(batch).repeat()
    model.fit(data, steps_per_epoch=steps, verbose=0, shuffle=False)
    return {name: not np.array_equal(model_value.numpy(), before[name]) for name, model_value in _weights(model)}


def _weights(model: Any) -> list[tuple[str, Any]]:
    return [(variable.path, variable) for variable in model.weights]


def of_masks(name: str) -> bool:
    return name.startswith(("mask_head/", "transfer/"))


def test_boxes_alone_change_no_mask_weight(model: RCNN, recipe: Path) -> None:
    """Of images whose instances are all B's."""
    batch = dry.made_up(named(recipe), 2)
    # First, so that there is no momentum yet.
    without = moved(model, {**batch, "gt_has_mask": np.zeros_like(batch["gt_has_mask"])})
    assert not any(without[name] for name in without if of_masks(name))
    assert without["box_predictor/box_rows"]
    with_masks = moved(model, batch)
    assert all(with_masks[name] for name in with_masks if of_masks(name))


def test_mask_stage_changes_the_mask_branch_alone(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command, on a detector that another run trained, which has no mask branch."""
    runs.train_eagerly(monkeypatch)
    detector, masks = tmp_path / "detector", tmp_path / "masks"
    few = ["train.steps=2", "train.batch=2"]
    assert cli.run(["train", str(recipe), "model.family=faster_rcnn", *few, "--out", str(detector)]) == 0
    start = [f"train.weights={detector}", "train.stage=mask"]
    assert cli.run(["train", str(recipe), *start, *few, "--out", str(masks)]) == 0
    before = {name: value.numpy() for name, value in _weights(io.open_model(detector).model)}
    after = {name: value.numpy() for name, value in _weights(io.open_model(masks).model)}
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name], err_msg=name)
    fresh = {name: value.numpy() for name, value in _weights(fit.compiled(load(masks / "config.yaml")))}
    mask_names = [name for name in after if of_masks(name)]
    assert set(after) == set(before) | set(mask_names)
    assert all(not np.array_equal(fresh[name], after[name]) for name in mask_names)


def test_stopped_gradient_after_real_steps(model: RCNN, recipe: Path) -> None:
    largest = gradients_of_rows(model, recipe)
    assert all(value == 0.0 for value in largest)


@pytest.mark.slow
def test_gradient_that_is_not_stopped_after_real_steps(recipe: Path) -> None:
    largest = gradients_of_rows(fit.compiled(named(recipe, "model.transfer.stop_gradient=false")), recipe)
    assert all(value > 0.0 for value in largest)


def gradients_of_rows(model: RCNN, recipe: Path) -> list[float]:
    """The largest gradient of the mask loss towards each of the rows that T reads, after two steps."""
    batch = {name: tf.constant(value) for name, value in dry.made_up(named(recipe), 2).items()}
    model.fit(tf.data.Dataset.from_tensors(batch).repeat(), steps_per_epoch=2, verbose=0, shuffle=False)
    seeds = model.seeds(tf.constant(2), tf.constant(0), tf.constant(2))
    with tf.GradientTape() as tape:
        loss = model.batch_losses(batch, seeds)["loss_mask"].total
    rows = [model.box.predictor.class_rows.value, model.box.predictor.box_rows.value]
    gradients = tape.gradient(loss, rows, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return [float(tf.reduce_max(tf.abs(tf.convert_to_tensor(gradient)))) for gradient in gradients]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2"])
def test_eight_images_are_learned_by_heart(name: str, tmp_path: Path) -> None:
    """8 scenes on a canvas of 128, 4 images a step, 600 steps, the masks of A: boxes > .9, masks of A > .8.

    ResNet-50 with GroupNorm begins at random; MobileNetV2, whose norms need more steps than that to know their
    statistics, with its ImageNet weights and norms that stand still.
    """
    if name == "resnet50":
        backbone, rate = ["model.backbone={name: resnet50, norm: group, frozen_stages: 0}"], 0.01
    elif not MOBILENET.exists():
        pytest.skip("needs MobileNetV2's weights in ../shared/data/weights")
    else:
        pixels = "pixel_mean: [127.5, 127.5, 127.5], pixel_std: [127.5, 127.5, 127.5]"
        canvas = "canvas: [128, 128], short_side: 128, long_side: 128"
        backbone, rate = (
            [
                f"model.backbone={{name: mobilenet_v2, norm: frozen_batch, weights: {MOBILENET}}}",
                f"model.input={{{canvas}, {pixels}}}",
            ],
            0.02,
        )
    figures = runs.learned_by_heart(tmp_path, *backbone, steps=600, rate=rate)
    assert figures["box/all/AP"] > 0.9
    assert figures.get("mask/A/AP", figures.get("mask/all/AP")) > 0.8
