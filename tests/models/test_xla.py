"""The losses of a portable model and their gradients, compiled by XLA, against the plain model's without it.

Those of masks do not compile yet: `ops.masks.mask_targets` calls CropAndResize, which XLA lacks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.config import Config
from maskx_tf.models.build import build
from maskx_tf.models.rcnn import RCNN
from maskx_tf.training import dry
from tests.models import small


def learned(model: RCNN, batch: dict[str, tf.Tensor], *, jit: bool) -> tuple[Any, Any]:
    """The losses, and their gradient towards each variable."""

    @tf.function(autograph=False, jit_compile=jit)
    def step(batch: dict[str, tf.Tensor]) -> Any:
        with tf.GradientTape() as tape:
            losses = model.batch_losses(batch, tf.constant([3, 5]))
            values = {name: tf.math.divide_no_nan(*loss) for name, loss in losses.items()}
            total = tf.add_n(list(values.values()))
        return values, tape.gradient(total, [variable.value for variable in model.trainable_variables])

    return step(batch)


@pytest.mark.slow
def test_a_step_of_training_compiles() -> None:
    """Every region is taken, for of some XLA draws others than TensorFlow does."""
    settings = small.config(
        family="faster_rcnn",
        backbone={"name": "resnet_small", "frozen_stages": 0},
        box={"rois": 64, "positive_fraction": 0.5},
    )
    plain, portable = small.small_model(settings), build(settings, portable=True)
    portable.set_weights(plain.get_weights())
    config = Config(model=settings, data={"max_instances": 4}, train={"batch": 2, "strategy": "one"})
    batch = {name: tf.constant(value) for name, value in dry.made_up(config, 2).items()}
    expected, gradients = learned(plain, batch, jit=False)
    losses, compiled = learned(portable, batch, jit=True)
    assert losses.keys() == expected.keys()
    for name, value in losses.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, err_msg=name)
    for variable, one, other in zip(plain.trainable_variables, compiled, gradients, strict=True):
        assert (one is None) == (other is None), variable.path
        if one is not None:
            one, other = tf.convert_to_tensor(one), tf.convert_to_tensor(other)
            scale = float(tf.reduce_max(tf.abs(other)))
            np.testing.assert_allclose(one, other, atol=1e-3 * scale + 1e-7, err_msg=variable.path)
