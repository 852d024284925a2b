"""A convolution with its normalisation: one layer, because with fixed statistics the two are one linear map."""

from __future__ import annotations

import keras
import tensorflow as tf

from maskx_tf.layers.parts import Layer, LayerConfig, Shape

NORMS = ("none", "frozen_batch", "fixed_batch", "batch", "group")
GROUPS = 32
# How much of the moving statistics of norm "batch" a step keeps.
MOMENTUM = 0.9


class ConvNorm(Layer):
    """Convolution, normalisation or bias, and optionally ReLU.

    Batch norm with fixed statistics (frozen, or at inference) is folded into the kernel, so no pass over the features
    is spent on it. Padding is symmetric, k // 2 a side times the dilation, as in PyTorch and Caffe2; TensorFlow's
    SAME differs from it at stride 2.

    Args:
        filters: output channels.
        kernel_size: k.
        strides: pixels between outputs.
        dilation: pixels between the kernel's taps.
        groups: groups of channels that do not mix.
        norm: "none" (a bias), "frozen_batch", "fixed_batch" (statistics are fixed, scale and offset learn), "batch" or
            "group" (32 groups).
        epsilon: added to the variance.
        relu: whether ReLU follows.
        kernel_initializer: the initializer of the kernel.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        *,
        strides: int = 1,
        dilation: int = 1,
        groups: int = 1,
        norm: str = "none",
        epsilon: float = 1e-5,
        relu: bool = False,
        kernel_initializer: str | keras.initializers.Initializer = "he_normal",
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)
        if norm not in NORMS:
            raise ValueError(f"norm is {norm!r}, expected one of {', '.join(NORMS)}")
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.dilation = dilation
        self.groups = groups
        self.norm = norm
        self.epsilon = epsilon
        self.relu = relu
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.norm_layer = self._norm_layer()

    def _norm_layer(self) -> keras.layers.Layer:
        options: LayerConfig = {"epsilon": self.epsilon, "name": "norm", "dtype": self.dtype_policy}
        if self.norm == "group":
            return keras.layers.GroupNormalization(GROUPS, **options)
        if self.norm == "batch":
            return keras.layers.BatchNormalization(momentum=MOMENTUM, **options)
        return None

    def build(self, input_shape: Shape) -> None:
        shape = (self.kernel_size, self.kernel_size, input_shape[-1] // self.groups, self.filters)
        # Read in float32 even under a mixed policy: folding multiplies first and rounds once.
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=self.kernel_initializer, autocast=False)
        if self.norm == "none":
            self.bias = self._vector("bias", "zeros")
        elif self.norm_layer is not None:
            self.norm_layer.build((*input_shape[:-1], self.filters))
        else:
            # Setting `trainable` of an enclosing layer does not make weights learn that were created as not trainable.
            learns = self.norm == "fixed_batch"
            self.gamma = self._vector("gamma", "ones", trainable=learns)
            self.beta = self._vector("beta", "zeros", trainable=learns)
            self.mean = self._vector("mean", "zeros", trainable=False)
            self.variance = self._vector("variance", "ones", trainable=False)

    def _vector(self, name: str, initializer: str, trainable: bool = True) -> keras.Variable:
        return self.add_weight(
            name=name, shape=(self.filters,), initializer=initializer, trainable=trainable, autocast=False
        )

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if self.norm == "none":
            outputs = self._add(self._convolve(inputs, self.kernel), self.bias)
        elif self.norm == "group" or (self.norm == "batch" and training and self.trainable):
            outputs = self.norm_layer(self._convolve(inputs, self.kernel), training=training)
        else:
            gamma, beta, mean, variance = self._fixed_statistics()
            scale = gamma * tf.math.rsqrt(variance + self.epsilon)
            outputs = self._add(self._convolve(inputs, self.kernel * scale), beta - mean * scale)
        return tf.nn.relu(outputs) if self.relu else outputs

    def _fixed_statistics(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        if self.norm == "batch":
            norm = self.norm_layer
            return norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance
        return self.gamma, self.beta, self.mean, self.variance

    def _convolve(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        kernel = tf.cast(kernel, self.compute_dtype)
        reach = self.dilation * (self.kernel_size // 2)
        if self.strides == 1:
            return tf.nn.conv2d(inputs, kernel, 1, "SAME", dilations=self.dilation)
        if reach:
            inputs = tf.pad(inputs, [[0, 0], [reach, reach], [reach, reach], [0, 0]])
        return tf.nn.conv2d(inputs, kernel, self.strides, "VALID", dilations=self.dilation)

    def _add(self, outputs: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        return tf.nn.bias_add(outputs, tf.cast(bias, self.compute_dtype))
