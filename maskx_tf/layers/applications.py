"""Backbones of keras.applications, whose ImageNet weights Keras can download: MobileNetV2 and ResNet."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

from maskx_tf.layers.parts import Layer, dtype_policy


class Network(NamedTuple):
    """A network of keras.applications and the layers whose outputs have strides 4, 8, 16 and 32."""

    make: Callable[..., keras.Model]
    taps: tuple[str, str, str, str]


NETWORKS = {
    # The expansions that open each resolution's last block: wide, and before the next stride.
    "mobilenet_v2": Network(
        keras.applications.MobileNetV2,
        ("block_3_expand_relu", "block_6_expand_relu", "block_13_expand_relu", "out_relu"),
    ),
    "keras_resnet50": Network(
        keras.applications.ResNet50,
        ("conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"),
    ),
    "keras_resnet101": Network(
        keras.applications.ResNet101,
        ("conv2_block3_out", "conv3_block4_out", "conv4_block23_out", "conv5_block3_out"),
    ),
}


class Application(Layer):
    """A network of keras.applications as a backbone.

    Args:
        name_of_network: a name in `NETWORKS`.
        frozen_norm: batch norm keeps its statistics and scales.
        frozen_stages: how many stages do not learn; 1 is what lies before stride 4, 2 what comes up to stride 4's
            map, and so on.
    """

    def __init__(
        self, name_of_network: str, *, frozen_norm: bool = True, frozen_stages: int = 0, **kwargs: object
    ) -> None:
        super().__init__(**kwargs)
        self.name_of_network = name_of_network
        self.frozen_norm = frozen_norm
        self.frozen_stages = frozen_stages
        make, taps = NETWORKS[name_of_network]
        with dtype_policy(self.dtype_policy):
            whole = make(weights=None, include_top=False, input_shape=(None, None, 3))
            self.network = keras.Model(whole.inputs, [whole.get_layer(tap).output for tap in taps], name="network")
        self._fix_norms()
        self._freeze(taps)

    @property
    def trainable(self) -> bool:
        """Whether the layer learns; its frozen norms never do, whatever is set."""
        return keras.layers.Layer.trainable.fget(self)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        keras.layers.Layer.trainable.fset(self, value)
        self._fix_norms()

    def _fix_norms(self) -> None:
        if getattr(self, "frozen_norm", False) and hasattr(self, "network"):
            for layer in self.network.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.trainable = False

    def _freeze(self, taps: tuple[str, ...]) -> None:
        """Freezes the layers up to the end of the last frozen stage, in the order of the network."""
        if self.frozen_stages == 0:
            return
        names = [layer.name for layer in self.network.layers]
        # The stem ends halfway to the first tap's stride: at the first layer of stride 4 there is.
        last = taps[self.frozen_stages - 2] if self.frozen_stages > 1 else self._stem_end(names)
        for layer in self.network.layers[: names.index(last) + 1]:
            layer.trainable = False

    def _stem_end(self, names: list[str]) -> str:
        return "pool1_pool" if "pool1_pool" in names else "expanded_conv_project_BN"

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels a cell of each map."""
        return (4, 8, 16, 32)

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each map."""
        return tuple(output.shape[-1] for output in self.network.outputs)

    def build(self, *_: object) -> None:
        """Nothing to make: the network was built with its layers."""

    def load_imagenet(self, weights: str) -> None:
        """Takes ImageNet weights, headless: "imagenet" for Keras' own download, or the path of a file for it."""
        make, _ = NETWORKS[self.name_of_network]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`input_shape` is undefined")  # any size is what we want
            whole = make(weights=weights, include_top=False, input_shape=(None, None, 3))
        sources = {layer.name: layer for layer in whole.layers}
        for layer in self.network.layers:
            if layer.weights:  # input layers, which have none, are numbered again in each network
                layer.set_weights(sources[layer.name].get_weights())

    def call(self, images: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        """Four maps, float [B, H / stride, W / stride, C], of normalised images [B, H, W, 3]."""
        return self.network(images, training=training)
