"""The size that an image gets on its canvas, with torchvision's own figures."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.ops import images as image_ops


@pytest.mark.parametrize("wrap", [lambda function: function, tf.function], ids=["eager", "graph"])
@pytest.mark.parametrize(
    ("size", "short_side", "long_side", "torchvision", "exact"),
    [
        # The third column is what GeneralizedRCNNTransform of torchvision 0.28 and torch 2.13 made of such images.
        ((120, 390), 100, 100, (30, 99), (30, 100)),
        ((390, 120), 100, 100, (99, 30), (100, 30)),
        ((120, 390), 100, 1333, (100, 325), (100, 325)),
        ((480, 640), 800, 1333, (800, 1066), (800, 1066)),
        ((427, 640), 800, 1333, (800, 1199), (800, 1199)),
        ((335, 544), 800, 1333, (799, 1299), (800, 1299)),
        ((658, 297), 800, 1333, (1332, 601), (1333, 601)),
        ((398, 624), 800, 1333, (799, 1254), (800, 1254)),
        ((337, 501), 800, 1333, (799, 1189), (800, 1189)),
    ],
)
def test_roundings(size, short_side, long_side, torchvision, exact, wrap) -> None:
    image = np.zeros([*size, 3], np.uint8)
    for rounding, expected in (("torchvision", torchvision), ("exact", exact)):

        def letterbox(pixels: tf.Tensor, rounding: str = rounding) -> tuple[tf.Tensor, tf.Tensor]:
            sides = {"short_side": short_side, "long_side": long_side}
            return image_ops.letterbox(pixels, canvas=(1344, 1344), rounding=rounding, **sides)

        _, found = wrap(letterbox)(image)
        np.testing.assert_array_equal(found, expected)
