"""The box head: features of a region, its class scores, and the box of one class (Fast R-CNN; FPN, section 4.2).

The output layer keeps one row of weights a class, because rows are what other parts read: the transfer function makes
mask weights of them, and where the classes are many, inference computes box deltas for the candidates alone.
"""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from maskx_tf.layers.parts import Layer, Shape
from maskx_tf.layers.resnet import Stage

# Up to this number of classes, box deltas of all classes cost less than gathering a row of weights per candidate.
FEW_CLASSES = 128


class FullyConnectedHead(Layer):
    """Fully connected layers with ReLU on the flattened features.

    Args:
        width: the width of each layer.
        layers: how many; 0 flattens alone.
    """

    def __init__(self, width: int = 1024, *, layers: int = 2, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.dense = [
            keras.layers.Dense(
                width,
                activation="relu",
                kernel_initializer=keras.initializers.VarianceScaling(1.0, "fan_in", "uniform"),
                name=f"fc{index + 1}",
                dtype=self.dtype_policy,
            )
            for index in range(layers)
        ]

    def build(self, input_shape: Shape) -> None:
        size = input_shape[-3] * input_shape[-2] * input_shape[-1]
        for dense in self.dense:
            dense.build((None, size))
            size = dense.units

    def call(self, pooled: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Float [B, N, width], without layers [B, N, size * size * C], of pooled features [B, N, size, size, C]."""
        del training
        count, size = pooled.shape[1], pooled.shape[2] * pooled.shape[3] * pooled.shape[4]
        outputs = tf.reshape(pooled, [-1, size])
        for dense in self.dense:
            outputs = dense(outputs)
        return tf.reshape(outputs, [-1, count, outputs.shape[-1]])

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:2], self.dense[-1].units if self.dense else math.prod(input_shape[2:]))


class Res5Head(Layer):
    """The fifth stage of a ResNet on each region, for models without a pyramid (Mask R-CNN, figure 4, left).

    Args:
        variant: see `ResNet`.
        stride_in_1x1: see `ResNet`.
        norm: see `ResNet`.
        epsilon: see `ResNet`.
    """

    def __init__(
        self,
        variant: str,
        *,
        stride_in_1x1: bool = False,
        norm: str = "frozen_batch",
        epsilon: float = 1e-5,
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)
        self.stage = Stage(
            5,
            variant=variant,
            strides=2,
            stride_in_1x1=stride_in_1x1,
            norm=norm,
            epsilon=epsilon,
            name="res5",
            dtype=self.dtype_policy,
        )

    def build(self, input_shape: Shape) -> None:
        self.stage.build((None, *input_shape[-3:]))

    def spatial(self, pooled: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Float [B, N, size / 2, size / 2, 2048] of pooled features [B, N, size, size, C]: what the mask head reads."""
        count = pooled.shape[1] or tf.shape(pooled)[1]
        outputs = self.stage(tf.reshape(pooled, [-1, *pooled.shape[2:]]), training=training)
        return tf.reshape(outputs, [-1, count, *outputs.shape[1:]])

    def call(self, pooled: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Float [B, N, 2048], the average over the region."""
        return tf.reduce_mean(self.spatial(pooled, training=training), axis=[2, 3])

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:2], self.stage.blocks[-1].filters)


class Res5Pool(Layer):
    """Input of a mask head without a pyramid: pooled regions after the res5 that the box head uses.

    Args:
        pool: a `RoiPooler`.
        head: the box head, which owns the weights.
    """

    def __init__(self, pool: keras.layers.Layer, head: Res5Head, **kwargs: object) -> None:
        super().__init__(autocast=False, **kwargs)
        self.pool = pool
        self.head = head

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels a cell of each level that is pooled from."""
        return self.pool.strides

    @property
    def size(self) -> int:
        """Bins along each side of the result."""
        return -(-self.pool.size // 2)

    def build(self, *_: object) -> None:
        """Nothing to make: the head builds itself."""

    def call(self, features: list[tf.Tensor], boxes: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Features float [B, N, size, size, 2048] of boxes float32 [B, N, 4]."""
        return self.head.spatial(self.pool(features, boxes), training=training)


class BoxPredictor(Layer):
    """Class scores and box deltas, one row of weights a class.

    Attributes:
        class_rows: float32 [K + 1, F], background first.
        box_rows: float32 [K, 4, F], dx, dy, dw, dh of each foreground class; one for all if class-agnostic.

    Args:
        classes: K.
        class_agnostic: one box for all classes.
    """

    def __init__(self, classes: int, *, class_agnostic: bool = False, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.classes = classes
        self.class_agnostic = class_agnostic

    def build(self, input_shape: Shape) -> None:
        features, boxes = input_shape[-1], 1 if self.class_agnostic else self.classes
        normal = keras.initializers.RandomNormal
        self.class_rows = self.add_weight(
            name="class_rows", shape=(self.classes + 1, features), initializer=normal(stddev=0.01)
        )
        self.class_bias = self.add_weight(name="class_bias", shape=(self.classes + 1,), initializer="zeros")
        self.box_rows = self.add_weight(name="box_rows", shape=(boxes, 4, features), initializer=normal(stddev=0.001))
        self.box_bias = self.add_weight(name="box_bias", shape=(boxes, 4), initializer="zeros")

    def call(self, features: tf.Tensor) -> tf.Tensor:
        """Class logits float32 [B, N, K + 1], background first, of features [B, N, F]."""
        flat = tf.reshape(features, [-1, features.shape[-1]])
        logits = tf.matmul(flat, tf.convert_to_tensor(self.class_rows), transpose_b=True) + self.class_bias
        return tf.cast(tf.reshape(logits, [-1, features.shape[1], self.classes + 1]), tf.float32)

    def deltas(self, features: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        """Box deltas of one class for each region; the cost does not depend on the number of classes.

        Args:
            features: float [B, N, F].
            classes: int32 [B, N], 1..K; background gets the deltas of class 1, which mean nothing.

        Returns:
            float32 [B, N, 4].
        """
        index = tf.zeros_like(classes) if self.class_agnostic else tf.maximum(classes - 1, 0)
        rows = tf.cast(tf.gather(self.box_rows, index), features.dtype)  # [B, N, 4, F]
        outputs = tf.linalg.matvec(rows, features)
        return tf.cast(outputs, tf.float32) + tf.gather(tf.cast(self.box_bias, tf.float32), index)

    def deltas_of_pairs(self, features: tf.Tensor, regions: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        """`deltas` of pairs of a region and a class, picked from those of all pairs where the classes are few.

        Args:
            features: float [B, N, F] of the regions.
            regions: int32 [B, C], indices into them.
            classes: int32 [B, C], 1..K.

        Returns:
            float32 [B, C, 4].
        """
        outputs = self.box_rows.shape[0]
        if outputs > FEW_CLASSES:
            return self.deltas(tf.gather(features, regions, batch_dims=1), classes)
        count, size = features.shape[1:]
        rows = tf.cast(tf.reshape(self.box_rows, [outputs * 4, size]), features.dtype)
        every = tf.cast(tf.matmul(tf.reshape(features, [-1, size]), rows, transpose_b=True), tf.float32)
        every += tf.cast(tf.reshape(self.box_bias, [-1]), tf.float32)
        index = regions * outputs + (0 if outputs == 1 else tf.maximum(classes - 1, 0))
        return tf.gather(tf.reshape(every, [-1, count * outputs, 4]), index, batch_dims=1)
