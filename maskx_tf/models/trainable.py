"""Training under Keras' own `compile` and `fit`, the same on one device, on several, and in parts.

Every loss is a total and a count. Each device computes its totals; the counts of all devices are added up before
anything is divided. So neither the number of devices nor the order of images among them changes a result.
"""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from maskx_tf.layers.parts import LayerConfig
from maskx_tf.losses import Loss, mean
from maskx_tf.models.dict_model import Batch, DictModel, batch_of, refuse
from maskx_tf.models.update import inner, update

# Keras' optimizers do these under a condition, which fails on several devices, with a message about graphs.
ON_ONE_DEVICE = ("gradient_accumulation_steps", "ema_overwrite_frequency")


class Learning(NamedTuple):
    """How a model learns, apart from its optimizer.

    Attributes:
        seed: the seed of the sampling in the targets.
        accumulate: parts in which a device works through its images, one after the other, to spare memory; each part
            is divided by its own counts, and the parts are averaged.
        clip_norm: the largest norm of the whole gradient of all devices, or None.
        normaliser: "global" or "device": see the configuration.
        warm_up: losses whose weight rises from 0 to 1, and over how many steps.
        jit: compile the losses and their gradients with XLA, for models built portable.
    """

    seed: int = 0
    accumulate: int = 1
    clip_norm: float | None = None
    normaliser: str = "global"
    warm_up: tuple[tuple[str, int], ...] = ()
    jit: bool = False


class DeviceShare(NamedTuple):
    """One device's share of a batch.

    Attributes:
        batch: its images.
        seeds: int32 [B, 2], one for each image.
        any_images: bool scalar. A device without any gets zeros, whose losses do not count, because TensorFlow's
            convolutions return wrong shapes for a batch of no images.
    """

    batch: Batch
    seeds: tf.Tensor
    any_images: tf.Tensor


class Trainable(DictModel):
    """A model that learns from the losses of its family.

    Attributes:
        learning: may be replaced until `compile`.
    """

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.learning = Learning()
        self._loss_weights: dict[str, float] = {}
        self._means: dict[str, keras.metrics.Metric] = {}

    def loss_names(self) -> tuple[str, ...]:
        """The losses of a batch."""
        raise NotImplementedError

    def batch_losses(self, batch: Batch, seeds: tf.Tensor) -> dict[str, Loss]:
        """Every loss of a batch of the input pipeline.

        Args:
            batch: a batch as in docs/pipeline.md.
            seeds: int32 [B, 2], one for each image.
        """
        raise NotImplementedError

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "rmsprop",
        loss: object = None,
        loss_weights: Mapping[str, float] | None = None,
        metrics: object = None,
        weighted_metrics: object = None,
        **kwargs: object,
    ) -> None:
        """Prepares for `fit` and `evaluate`.

        Args:
            optimizer: see Keras.
            loss: not supported, like metrics and weighted_metrics.
            loss_weights: the weight in `loss` of each of `loss_names()`, 1 if absent; their own values are reported
                without it.
            metrics: see loss.
            weighted_metrics: see loss.
            **kwargs: see Keras.

        Raises:
            ValueError: something is not supported, or there is no such loss.
        """
        refuse(loss=loss, metrics=metrics, weighted_metrics=weighted_metrics)
        names = self.loss_names()
        weights = checked_weights(loss_weights, names)
        super().compile(optimizer, loss_weights=weights or None, **kwargs)
        if self.optimizer is not None and self.distribute_strategy.num_replicas_in_sync > 1:
            for option in ON_ONE_DEVICE:
                if (value := getattr(inner(self.optimizer), option)) is not None:
                    raise ValueError(f"optimizer: expected no {option} on several devices, found {value}")
        self._loss_weights = weights
        self._means = {name: keras.metrics.Mean(name=name) for name in ("loss", *names, "gradient_norm")}

    def compile_from_config(self, config: LayerConfig) -> None:
        """Compiles as Keras' file of a whole model says; see `compile`."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The running means that a step returns; `reset_metrics` starts them again."""
        return list(self._means.values())

    def train_step(self, data: object) -> dict[str, tf.Tensor]:
        """Makes one update; none, on any device, if the loss or the norm of the gradient is not finite."""
        context = tf.distribute.get_replica_context()
        share = self._share_of(batch_of(data), context)
        variables = self.trainable_variables
        statistics = self._statistics()
        gradients, values = self._gradients(share, variables, context)
        gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        norm = tf.linalg.global_norm(gradients) / self.optimizer.scale_loss(tf.constant(1.0))
        if self.learning.clip_norm is not None:
            factor = tf.minimum(1.0, self.learning.clip_norm / tf.maximum(norm, 1e-12))
            gradients = [gradient * factor for gradient in gradients]
        finite = tf.math.is_finite(norm) & tf.math.is_finite(values["loss"])
        update(self.optimizer, variables, gradients, finite, statistics)
        return self._report({**values, "gradient_norm": norm})

    def test_step(self, data: object) -> dict[str, tf.Tensor]:
        """The losses alone; nothing changes."""
        context = tf.distribute.get_replica_context()
        statistics = self._statistics()
        _, losses = self._losses_of(self._share_of(batch_of(data), context), context)
        for variable, before in statistics:
            variable.assign(before)
        return self._report(self._summed(losses, context))

    def seeds(self, step: tf.Tensor, first: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        """A seed for each image, int32 [B, 2], made of the step and of its place in the batch of all devices."""
        seed = tf.constant([self.learning.seed % 2**31, self.learning.seed // 2**31])
        of_step = tf.random.experimental.stateless_fold_in(seed, tf.cast(step, tf.int32))
        of_place = functools.partial(tf.random.experimental.stateless_fold_in, of_step)
        return tf.map_fn(of_place, first + tf.range(count))

    def computed_losses(self, batch: Batch, seeds: tf.Tensor) -> dict[str, Loss]:
        """The losses of a batch, as `learning` says compiled with XLA or not: the same seeds draw other regions."""
        if not self.learning.jit:
            return self.batch_losses(batch, seeds)
        losses: dict[str, Loss] = tf.function(self.batch_losses, autograph=False, jit_compile=True)(batch, seeds)
        return losses

    def _share_of(self, batch: Batch, context: tf.distribute.ReplicaContext) -> DeviceShare:
        """This device's images with their seeds, whose places follow those of the devices before it."""
        step, count = self.optimizer.iterations, tf.shape(next(iter(batch.values())))[0]
        if context.num_replicas_in_sync == 1:
            return DeviceShare(batch, self.seeds(step, tf.constant(0), count), tf.constant(True))
        device = tf.cast(context.replica_id_in_sync_group, tf.int32)
        devices = tf.range(context.num_replicas_in_sync)
        counts = tf.where(devices == device, tf.cast(count, tf.float32), 0.0)  # floats, which any device can add up
        counts = context.all_reduce(tf.distribute.ReduceOp.SUM, counts)
        first = tf.cast(tf.reduce_sum(tf.where(devices < device, counts, 0.0)), tf.int32)
        missing = tf.where(count > 0, 0, self.learning.accumulate)
        padded = {
            key: tf.pad(value, [[0, missing]] + [[0, 0]] * (value.shape.rank - 1)) for key, value in batch.items()
        }
        return DeviceShare(padded, self.seeds(step, first, count + missing), count > 0)

    def _statistics(self) -> list[tuple[keras.Variable, tf.Tensor]]:
        """The moving statistics of batch norms, which a forward pass changes, and their values now."""
        variables = [variable for variable in self.non_trainable_variables if variable.name.startswith("moving_")]
        return [(variable, tf.identity(variable.value)) for variable in variables]

    def _gradients(
        self, share: DeviceShare, variables: list[keras.Variable], context: tf.distribute.ReplicaContext
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """This device's gradients, scaled as the optimizer wants them, and the losses over all devices."""
        count = self.learning.accumulate
        pieces = {key: tf.split(value, count) for key, value in share.batch.items()} if count > 1 else {}
        seeds = tf.split(share.seeds, count) if count > 1 else [share.seeds]
        totals: list[tf.Tensor] = []
        values: list[dict[str, tf.Tensor]] = []
        for index in range(count):
            # A part begins when the one before is through, or all would be in memory at once.
            with tf.control_dependencies(totals):
                part = {key: tf.identity(value[index]) for key, value in pieces.items()} if count > 1 else share.batch
                with tf.GradientTape() as tape:
                    loss, losses = self._losses_of(share._replace(batch=part, seeds=seeds[index]), context)
                    scaled = self.optimizer.scale_loss(loss / count)
                tensors = [variable.value for variable in variables]  # Keras' own have no zeros for what is unconnected
                found = tape.gradient(scaled, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO)
                # Rows that were gathered come as slices; sums, norms and decay want them whole.
                dense = [tf.convert_to_tensor(gradient) for gradient in found]
                totals = [old + new for old, new in zip(totals, dense, strict=True)] if totals else dense
            values.append(self._summed(losses, context))
        return totals, {name: tf.add_n([one[name] for one in values]) / count for name in values[0]}

    def _losses_of(
        self, share: DeviceShare, context: tf.distribute.ReplicaContext
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Returns this device's part of the weighted loss and of each loss; the sums over devices are the losses."""
        losses = self.computed_losses(share.batch, share.seeds)
        totals = tf.where(share.any_images, tf.stack([loss.total for loss in losses.values()]), 0.0)
        counts = tf.where(share.any_images, tf.stack([loss.count for loss in losses.values()]), 0.0)
        if self.learning.normaliser == "global":
            counts = context.all_reduce(tf.distribute.ReduceOp.SUM, counts)
        else:
            counts *= context.num_replicas_in_sync
        shares = mean(Loss(totals, counts))
        named = dict(zip(losses, tf.unstack(shares, num=len(losses)), strict=True))
        return tf.reduce_sum(shares * self._weights(losses)), named

    def _weights(self, names: Iterable[str]) -> tf.Tensor:
        """The weight of each loss at this step."""
        step, over = tf.cast(self.optimizer.iterations, tf.float32), dict(self.learning.warm_up)
        risen = {name: tf.minimum(step / steps, 1.0) for name, steps in over.items()}
        return tf.stack([self._loss_weights.get(name, 1.0) * risen.get(name, tf.ones([])) for name in names])

    def _summed(self, losses: dict[str, tf.Tensor], context: tf.distribute.ReplicaContext) -> dict[str, tf.Tensor]:
        """The weighted loss and each loss, over all devices."""
        values = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.stack(list(losses.values())))
        named = dict(zip(losses, tf.unstack(values, num=len(losses)), strict=True))
        return {"loss": tf.reduce_sum(values * self._weights(losses)), **named}

    def _report(self, values: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The running means with these values, which are the same on every device."""
        # Without this the means would count one step more at the end of a data set, whose last `get_next` fails.
        with tf.control_dependencies(list(values.values())):
            for name, value in values.items():
                self._means[name].update_state(value)
        means = {name: self._means[name].result() for name in values}
        if isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
            # Keras takes the mean over a first dimension there, and fails where there is none.
            return {name: value[None] for name, value in means.items()}
        return means

    def _maybe_symbolic_build(self, iterator: object = None, data_batch: object = None) -> None:
        """Builds the optimizer; layers are built already. Keras' own way fails under MultiWorkerMirroredStrategy."""
        del iterator, data_batch
        if self.optimizer is not None and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)


def checked_weights(weights: Mapping[str, float] | None, names: Sequence[str]) -> dict[str, float]:
    """Returns the loss weights of `compile`; raises ValueError unless they are numbers for known losses.

    Raises:
        ValueError: they are not.
    """
    if not isinstance(weights, Mapping | None):
        raise ValueError(f"loss_weights: expected a dict of loss name to weight, found {type(weights).__name__}")
    for name, weight in (weights or {}).items():
        if name not in names:
            raise ValueError(f"loss_weights: expected names out of {', '.join(names)}, found {name!r}")
        if not isinstance(weight, numbers.Real) or not math.isfinite(weight):
            raise ValueError(f"loss_weights: {name}: expected a finite number, found {weight!r}")
    return {name: float(weight) for name, weight in (weights or {}).items()}
