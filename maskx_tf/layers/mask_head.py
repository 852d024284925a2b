"""Mask heads: masks of pooled regions, by convolutions or by full connections (Mask R-CNN, figure 4, table 2e)."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from maskx_tf.layers.mask_parts import MaskPredictor, MaskTrunk, MLPBranch, apply_filters, output_index


@keras.saving.register_keras_serializable(package="maskx_tf")
class FCNMaskHead(keras.layers.Layer):
    """Trunk and predictor, and optionally the MLP branch: the head of Mask R-CNN.

    Args:
        trunk: pooled features to maps.
        predictor: the large map and classes to logits.
        branches: layers whose logits are added, each made of both maps.
    """

    def __init__(
        self,
        trunk: MaskTrunk,
        predictor: MaskPredictor,
        branches: tuple[MLPBranch, ...] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.trunk = trunk
        self.predictor = predictor
        self.branches = tuple(branches)

    def build(self, input_shape: Any) -> None:
        self.side = _build_trunk(self.trunk, self.branches, input_shape)
        _build_once(self.predictor, (None, None, self.side, self.side, self.trunk.channels))

    def call(self, pooled: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        """Logits float32 [B, N, M, M] of pooled features, for the class, 1..K, of each region: int32 [B, N]."""
        maps = self.trunk(pooled)
        return tf.add_n([self.predictor(maps[1], classes), *(branch(maps) for branch in self.branches)])

    def all_outputs(self, pooled: tf.Tensor) -> tf.Tensor:
        """Logits float32 [B, N, M, M, outputs], without branches: for the softmax among classes."""
        return self.predictor.all_outputs(self.trunk(pooled)[1])

    def get_config(self) -> dict[str, Any]:
        parts = {"trunk": self.trunk, "predictor": self.predictor, "branches": self.branches}
        return {
            **super().get_config(),
            **{key: keras.saving.serialize_keras_object(part) for key, part in parts.items()},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(**_with_parts(config, ("trunk", "predictor", "branches")))


@keras.saving.register_keras_serializable(package="maskx_tf")
class TransferredMaskHead(keras.layers.Layer):
    """Trunk and optionally the MLP branch; the filters come from outside: the head of Mask^X R-CNN.

    Args:
        trunk: pooled features to maps.
        branches: layers whose logits are added, each made of both maps.
    """

    def __init__(self, trunk: MaskTrunk, branches: tuple[MLPBranch, ...] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.trunk = trunk
        self.branches = tuple(branches)

    def build(self, input_shape: Any) -> None:
        self.side = _build_trunk(self.trunk, self.branches, input_shape)

    def call(self, pooled: tf.Tensor, filters: tf.Tensor) -> tf.Tensor:
        """Logits float32 [B, N, M, M] of pooled features and a filter for each region, float32 [B, N, C]."""
        maps = self.trunk(pooled)
        return tf.add_n([apply_filters(maps[1], filters), *(branch(maps) for branch in self.branches)])

    def get_config(self) -> dict[str, Any]:
        parts = {"trunk": self.trunk, "branches": self.branches}
        return {
            **super().get_config(),
            **{key: keras.saving.serialize_keras_object(part) for key, part in parts.items()},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(**_with_parts(config, ("trunk", "branches")))


def _build_trunk(trunk: MaskTrunk, branches: tuple[MLPBranch, ...], input_shape: Any) -> int:
    """Builds the parts for pooled features [B, N, size, size, C]; the side of the masks."""
    size = int(input_shape[-2])
    _build_once(trunk, input_shape)
    # Without convolutions the small map is the pooled region itself.
    channels = trunk.channels if trunk.convs else input_shape[-1]
    maps = [(None, None, size, size, channels), (None, None, 2 * size, 2 * size, trunk.channels)]
    for branch in branches:
        _build_once(branch, maps)
    return 2 * size


def _build_once(part: keras.layers.Layer, shape: Any) -> None:
    """Builds a part that came from outside, unless Keras did so already when it read the part's configuration."""
    if not part.built:
        part.build(shape)


def _with_parts(config: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The configuration with its parts made, not built: the head does that, and names their weights after itself."""
    return {
        key: keras.saving.deserialize_keras_object(_unbuilt(value)) if key in names else value
        for key, value in config.items()
    }


def _unbuilt(serialised: Any) -> Any:
    """What Keras serialised, without the shapes for which it would build layers at once."""
    if isinstance(serialised, dict):
        return {key: _unbuilt(value) for key, value in serialised.items() if key != "build_config"}
    return [_unbuilt(value) for value in serialised] if isinstance(serialised, list) else serialised


@keras.saving.register_keras_serializable(package="maskx_tf")
class MLPMaskHead(keras.layers.Layer):
    """Masks from fully connected layers alone, the paper's weaker alternative (Mask R-CNN, table 2e).

    Args:
        outputs: K, or 1 for a class-agnostic mask.
        side: M.
        width: of the hidden layers.
        layers: how many hidden layers.
    """

    def __init__(self, outputs: int, *, side: int = 28, width: int = 1024, layers: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.outputs = outputs
        self.side = side
        self.width = width
        self.layers = layers
        options = {"kernel_initializer": keras.initializers.HeNormal(), "dtype": self.dtype_policy}
        self.dense = [
            keras.layers.Dense(width, activation="relu", name=f"fc{index + 1}", **options) for index in range(layers)
        ]

    def build(self, input_shape: Any) -> None:
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

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "outputs": self.outputs,
            "side": self.side,
            "width": self.width,
            "layers": self.layers,
        }
