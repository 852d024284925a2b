"""The transfer function T: mask weights from what the detector knows of a class (Mask^X R-CNN, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from maskx_tf.layers.parts import Layer, Shape

INITS = ("reference", "small")
ACTIVATIONS = ("relu", "leaky_relu")
LEAK = 0.1
SMALL = 0.01


class Transfer(Layer):
    """Fully connected layers from embeddings to filters, the same for every class.

    Args:
        filters: channels of the mask features that a filter is multiplied with; also the hidden width.
        layers: 1, 2 or 3.
        activation: "relu" or "leaky_relu" (slope .1), between the layers.
        init: "reference", Gaussian with variance 2 / fan-out in every layer; "small" (ours), .01 in the first, for
            embeddings of unit size, of which classes without masks have a part that training never sees.
        unit_rms: the lengths of the embedding's parts, for example (1024, 4096); each is scaled to a root mean square
            of one (ours). Empty: as it is.
    """

    def __init__(
        self,
        filters: int = 256,
        *,
        layers: int = 2,
        activation: str = "leaky_relu",
        init: str = "reference",
        unit_rms: Sequence[int] = (),
        **kwargs: object,
    ) -> None:
        # In float32 under every policy: it is small, runs once, and makes the weights of everything after it.
        super().__init__(**{**kwargs, "dtype": "float32"})
        if init not in INITS:
            raise ValueError(f"init is {init!r}, expected one of {', '.join(INITS)}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation is {activation!r}, expected one of {', '.join(ACTIVATIONS)}")
        self.filters = filters
        self.layers = layers
        self.activation = activation
        self.init = init
        self.unit_rms = tuple(unit_rms)
        self.dense = [
            keras.layers.Dense(
                filters, kernel_initializer=self._initializer(first=index == 0), name=f"fc{index + 1}", dtype="float32"
            )
            for index in range(layers)
        ]

    def _initializer(self, first: bool) -> keras.initializers.Initializer:
        if first and self.init == "small":
            return keras.initializers.RandomNormal(stddev=SMALL)
        return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")

    def build(self, input_shape: Shape) -> None:
        size = input_shape[-1]
        if self.unit_rms and sum(self.unit_rms) != size:
            raise ValueError(f"the parts {self.unit_rms} add up to {sum(self.unit_rms)}, expected {size}")
        for dense in self.dense:
            dense.build((None, size))
            size = self.filters

    def call(self, embeddings: tf.Tensor) -> tf.Tensor:
        """Filters float32 [K, filters], without bias, of embeddings float32 [K, size]."""
        outputs = embeddings
        if self.unit_rms:
            parts = tf.split(outputs, self.unit_rms, axis=-1)
            outputs = tf.concat([_unit_rms(part) for part in parts], axis=-1)
        for index, dense in enumerate(self.dense):
            if index > 0:
                outputs = tf.nn.relu(outputs) if self.activation == "relu" else tf.nn.leaky_relu(outputs, LEAK)
            outputs = dense(outputs)
        return outputs


def _unit_rms(part: tf.Tensor) -> tf.Tensor:
    return part * tf.math.rsqrt(tf.reduce_mean(tf.square(part), axis=-1, keepdims=True) + 1e-12)
