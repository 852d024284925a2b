"""A network in the place of those of keras.applications, which take most of a second to make."""

from __future__ import annotations

import keras

from maskx_tf.layers.applications import Network


def _make(*, weights: None, include_top: bool, input_shape: tuple[int | None, ...]) -> keras.Model:
    """Five convolutions of stride 2 and few channels; batch norms after all but the first."""
    assert (weights, include_top) == (None, False)
    inputs = keras.Input(input_shape)
    outputs = keras.layers.Conv2D(2, 3, strides=2, padding="same", name="stem")(inputs)
    for level in range(2, 6):
        outputs = keras.layers.Conv2D(level, 3, strides=2, padding="same", name=f"level{level}")(outputs)
        outputs = keras.layers.BatchNormalization(name=f"level{level}_bn")(outputs)
    return keras.Model(inputs, outputs)


SMALL_NETWORK = Network(_make, ("level2_bn", "level3_bn", "level4_bn", "level5_bn"))
