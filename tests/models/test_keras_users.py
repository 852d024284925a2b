"""What a program that uses Keras' own methods can rely on: `fit`, `evaluate`, `predict`, and clear refusals."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from maskx_tf import losses as loss_ops
from maskx_tf.config import Config, load
from maskx_tf.models.build import build
from maskx_tf.models.rcnn import RCNN
from maskx_tf.training import dry, start
from tests.training import runs

CLASSES = tuple(f"class {number}" for number in range(24))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("keras")
    config = load(runs.recipe(folder, folder))
    return config.model_copy(update={"model": config.model.model_copy(update={"class_names": CLASSES})})


@pytest.fixture(scope="module")
def batch(config: Config) -> dict[str, np.ndarray]:
    return dry.made_up(config, 2)


def fresh(config: Config) -> RCNN:
    keras.utils.set_random_seed(0)
    return build(config.model)


def mean_losses(model: RCNN, batch: dict[str, np.ndarray]) -> dict[str, float]:
    seeds = model.seeds(tf.constant(0), tf.constant(0), tf.constant(len(batch["images"])))
    return {name: float(loss_ops.mean(loss)) for name, loss in model.batch_losses(batch, seeds).items()}


@pytest.mark.parametrize("stage", ["all", "detector", "mask"])
def test_loss_is_nan_where_features_are(stage: str, config: Config, batch: dict[str, np.ndarray]) -> None:
    """Also on a level from which no anchor was sampled and no region pooled."""
    model = fresh(config)
    model.learn(start.parts_of(stage, model))
    assert np.isfinite(list(mean_losses(model, batch).values())).all()
    model.neck.outputs[-1].bias.assign(np.full(32, np.nan))  # P5, and P6 made of it
    assert np.isnan(sum(mean_losses(model, batch).values()))


def test_loss_is_nan_where_masks_are(config: Config, batch: dict[str, np.ndarray]) -> None:
    """Also in a batch without a single mask to learn from."""
    model = fresh(config)
    last = [weight for weight in model.mask.head.weights if "kernel" in weight.path][-1]
    last.assign(np.full(last.shape, np.nan))
    assert np.isnan(mean_losses(model, {**batch, "gt_has_mask": 0 * batch["gt_has_mask"]})["loss_mask"])


@pytest.mark.parametrize("size", [(64, 80), (48, 64)])
def test_canvas_that_is_no_multiple_is_refused(size: tuple[int, int], config: Config) -> None:
    model = fresh(config)
    height, width = size
    images, sizes = tf.zeros([1, height, width, 3]), tf.constant([[height, width]], tf.float32)
    with pytest.raises(ValueError, match=f"multiples of 32, found {height} x {width}"):
        model({"images": images, "image_sizes": sizes})
    with pytest.raises(ValueError, match="known when the graph is traced, found"):
        tf.function(model.features).get_concrete_function(
            tf.TensorSpec([None, None, None, 3], tf.float32), tf.TensorSpec([None, 2], tf.float32)
        )
