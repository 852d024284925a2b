"""Stochastic gradient descent as the papers have it: coupled decay on weights alone, biases at twice the rate."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from maskx_tf.config.training import TrainConfig
from maskx_tf.files import Json
from maskx_tf.training.schedules import Schedule


@keras.saving.register_keras_serializable(package="maskx_tf")
class SGD(keras.optimizers.SGD):
    """Momentum over gradients rather than over updates, so that a drop of the rate takes effect at once.

    buffer = momentum * buffer + gradient + weight_decay * weight;  weight -= rate * buffer.

    Args:
        learning_rate: a number or a schedule.
        momentum: see above.
        weight_decay: the decay of kernels; biases, norms and other vectors have none.
        bias_rate_factor: the rate of biases, as a multiple.
        neck_rate_factor: the rate of the layers below `neck/`, FCIS' convolution before its maps, as a multiple.
        **kwargs: arguments of Keras' optimizers, such as use_ema.
    """

    def __init__(
        self,
        learning_rate: Any = 0.01,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        bias_rate_factor: float = 1.0,
        neck_rate_factor: float = 1.0,
        **kwargs: object,
    ) -> None:
        kwargs.setdefault("name", "SGD")
        super().__init__(learning_rate, momentum=momentum, **kwargs)
        self.decay = weight_decay
        self.bias_rate_factor = bias_rate_factor
        self.neck_rate_factor = neck_rate_factor

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates the buffers: one for each variable, even if momentum is 0."""
        if not self.built:
            super().build(variables)
            names = [variable.path for variable in variables]
            self._rates = [
                (self.bias_rate_factor if is_bias(name) else 1.0)
                * (self.neck_rate_factor if name.startswith("neck/") else 1.0)
                for name in names
            ]
            self._decays = [self.decay if is_kernel(variable) else 0.0 for variable in variables]
            if not self.momentum:
                self.momentums = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        index = self._get_variable_index(variable)
        buffer = self.momentums[index]
        moved = self.momentum * tf.convert_to_tensor(buffer) + gradient
        if self._decays[index]:
            moved += self._decays[index] * tf.convert_to_tensor(variable)
        self.assign(buffer, moved)
        self.assign_sub(variable, tf.cast(learning_rate, moved.dtype) * self._rates[index] * moved)

    def get_config(self) -> Json:
        config = {
            **super().get_config(),
            "weight_decay": self.decay,
            "bias_rate_factor": self.bias_rate_factor,
            "neck_rate_factor": self.neck_rate_factor,
        }
        return {key: value for key, value in config.items() if key != "nesterov"}


def is_bias(path: str) -> bool:
    """Whether a variable is a bias, by its name."""
    name = path.rsplit("/", 1)[-1]
    return name == "bias" or name.endswith("_bias")


def is_kernel(variable: keras.Variable) -> bool:
    """Whether a variable decays: kernels do; biases, and the scales and offsets of norms, do not."""
    return len(variable.shape) > 1 and not is_bias(variable.path)


def of(train: TrainConfig) -> SGD:
    """The optimizer of a configuration; Keras wraps it for float16 when the model is compiled."""
    return SGD(
        Schedule.of(train),
        momentum=train.momentum,
        weight_decay=train.weight_decay,
        bias_rate_factor=train.bias_rate_factor,
        neck_rate_factor=train.neck_rate_factor,
        use_ema=train.ema is not None,
        ema_momentum=train.ema if train.ema is not None else 0.99,
    )
