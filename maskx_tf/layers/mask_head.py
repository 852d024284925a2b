"""Mask heads: masks of pooled regions, by convolutions or by full connections (Mask R-CNN, figure 4, table 2e)."""

from __future__ import annotations

import keras
import tensorflow as tf

from maskx_tf.layers.mask_parts import MaskPredictor, MLPBranch, apply_filters, output_index
from maskx_tf.layers.mask_trunks import Trunk
from maskx_tf.layers.parts import Layer, Shape, build_once


class FCNMaskHead(Layer):
    """Trunk and predictor, and optionally the MLP branch: the head of Mask R-CNN.

    Args:
        trunk: pooled features to maps, as `MaskTrunk` does; `PixelTrunk` reads a pair of features and pixels.
        predictor: the large map and classes to logits.
        branches: layers whose logits are added, each made of both maps.
    """

    def __init__(
        self,
        trunk: Trunk,
        predictor: MaskPredictor,
        branches: tuple[MLPBranch, ...] = (),
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)
        self.trunk = trunk
        self.predictor = predictor
        self.branches = tuple(branches)

    def build(self, input_shape: Shape) -> None:
        self.side = _build_trunk(self.trunk, self.branches, input_shape)
        build_once(self.predictor, (None, None, self.side, self.side, self.trunk.channels))

    def call(self, pooled: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        """Logits float32 [B, N, M, M] of pooled features, for the class, 1..K, of each region: int32 [B, N]."""
        maps = self.trunk(pooled)
        return tf.add_n([self.predictor(maps[1], classes), *(branch(maps) for branch in self.branches)])

    def all_outputs(self, pooled: tf.Tensor) -> tf.Tensor:
        """Logits float32 [B, N, M, M, outputs], without branches: for the softmax among classes."""
        return self.predictor.all_outputs(self.trunk(pooled)[1])


class TransferredMaskHead(Layer):
    """Trunk and optionally the MLP branch; the filters come from outside: the head of Mask^X R-CNN.

    Args:
        trunk: pooled features to maps, as `MaskTrunk` does; `PixelTrunk` reads a pair of features and pixels.
        branches: layers whose logits are added, each made of both maps.
    """

    def __init__(self, trunk: Trunk, branches: tuple[MLPBranch, ...] = (), **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.trunk = trunk
        self.branches = tuple(branches)

    def build(self, input_shape: Shape) -> None:
        self.side = _build_trunk(self.trunk, self.branches, input_shape)

    def call(self, pooled: tf.Tensor, filters: tf.Tensor) -> tf.Tensor:
        """Logits float32 [B, N, M, M] of pooled features and a filter for each region, float32 [B, N, C]."""
        maps = self.trunk(pooled)
        return tf.add_n([apply_filters(maps[1], filters), *(branch(maps) for branch in self.branches)])


def _build_trunk(trunk: Trunk, branches: tuple[MLPBranch, ...], input_shape: Shape) -> int:
    """Builds the parts for what the trunk reads; the side of the masks."""
    build_once(trunk, input_shape)
    maps = trunk.compute_output_shape(input_shape)
    for branch in branches:
        build_once(branch, maps)
    return int(maps[1][-2])


class MLPMaskHead(Layer):
    """Masks from fully connected layers alone, the paper's weaker alternative (Mask R-CNN, table 2e).

    Args:
        outputs: K, or 1 for a class-agnostic mask.
        side: M.
        width: the width of the hidden layers.
        layers: how many hidden layers.
    """

    def __init__(self, outputs: int, *, side: int = 28, width: int = 1024, layers: int = 2, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.outputs = outputs
        self.side = side
        self.width = width
        self.layers = layers
        options = {"kernel_initializer": keras.initializers.HeNormal(), "dtype": self.dtype_policy}
        self.dense = [
            keras.layers.Dense(width, activation="relu", name=f"fc{index + 1}", **options) for index in range(layers)
        ]

    def build(self, input_shape: Shape) -> None:
        size = input_shape[-3] * input_shape[-2] * input_shape[-1]
        for dense in self.dense:
            dense.build((None, size))
            size = self.width
        self.rows = self.add_weight(
            name="rows",
            shape=(self.outputs, self.side**2, size),
            initializer=keras.initializers.RandomNormal(stddev=0.001),
        )
        self.bias = self.add_weight(name="bias", shape=(self.outputs, self.side**2), initializer="zeros")

    def call(self, pooled: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        """Logits float32 [B, N, M, M] of pooled features, for the class, 1..K, of each region: int32 [B, N]."""
        count, size = pooled.shape[1], pooled.shape[2] * pooled.shape[3] * pooled.shape[4]
        hidden = tf.reshape(pooled, [-1, size])
        for dense in self.dense:
            hidden = dense(hidden)

        def one(region: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            features, output = region
            rows = tf.cast(self.rows[output], features.dtype)
            return tf.linalg.matvec(rows, features) + tf.cast(self.bias[output], features.dtype)

        # Region by region: the rows of one output alone are 3 MB.
        shape = tf.TensorSpec([self.side**2], hidden.dtype)
        logits = tf.map_fn(
            one, (hidden, tf.reshape(output_index(classes, self.outputs), [-1])), fn_output_signature=shape
        )
        return tf.cast(tf.reshape(logits, [-1, count, self.side, self.side]), tf.float32)
