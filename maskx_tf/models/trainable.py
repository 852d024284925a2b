"""What makes a family learn under Keras' own `compile` and `fit`, the same on one device, on several, and in parts.

Every loss is a total and a count. Each device works out its totals, the counts of all devices are added up, and only
then is anything divided: so neither the number of devices nor the order of images among them changes a result.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from maskx_tf.losses import Loss

Batch = dict[str, tf.Tensor]


class Learning(NamedTuple):
    """How a model learns, beside its optimizer.

    Attributes:
        seed: of the sampling in the targets.
        accumulate: parts in which a device works through its images, one after the other, to spare memory; each part
            is divided by its own counts, and the parts are averaged.
        clip_norm: the largest norm of the whole gradient of all devices, or None.
        normaliser: "global" or "device": see the configuration.
        warm_up: losses whose weight rises from 0 to 1, and over how many steps.
    """

    seed: int = 0
    accumulate: int = 1
    clip_norm: float | None = None
    normaliser: str = "global"
    warm_up: tuple[tuple[str, int], ...] = ()


class Trainable(keras.Model):
    """A model whose losses, and only they, are up to its family.

    Attributes:
        learning: may be replaced until `compile`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_jit = False  # crop_and_resize is not for XLA; Keras would choose it on a GPU
        self.learning = Learning()
        self._means: dict[str, keras.metrics.Metric] = {}

    def loss_names(self) -> tuple[str, ...]:
        """The losses of a batch."""
        raise NotImplementedError

    def batch_losses(self, batch: Batch, seeds: tf.Tensor) -> dict[str, Loss]:
        """Every loss of a batch of the input pipeline.

        Args:
            batch: as docs/pipeline.md lists it.
            seeds: int32 [B, 2], one for each image.
        """
        raise NotImplementedError

    def compile(self, *args: Any, **kwargs: Any) -> None:
        super().compile(*args, **kwargs)
        names = ("loss", *self.loss_names(), "gradient_norm")
        self._means = {name: keras.metrics.Mean(name=name) for name in names}

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The running means that a step gives back; `reset_metrics` starts them anew."""
        return list(self._means.values())

    def train_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """One update; a gradient that is not finite becomes NaN throughout, which `training.optimizer.SGD` skips."""
        context = tf.distribute.get_replica_context()
        variables = self.trainable_variables
        gradients, values = self._gradients(batch, variables, context)
        gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        scale = self.optimizer.scale_loss(tf.constant(1.0))
        norm = tf.linalg.global_norm(gradients) / scale
        factor = tf.where(tf.math.is_finite(norm), 1.0, float("nan"))
        if self.learning.clip_norm is not None:
            factor *= tf.minimum(1.0, self.learning.clip_norm / tf.maximum(norm, 1e-12))
        # The optimizer adds up over devices what is a sum already.
        factor /= context.num_replicas_in_sync
        self.optimizer.apply_gradients(
            (gradient * factor, variable) for gradient, variable in zip(gradients, variables, strict=True)
        )
        return self._told({**values, "gradient_norm": norm})

    def test_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """The losses alone."""
        context = tf.distribute.get_replica_context()
        _, shares = self._shares(batch, context, 0)
        return self._told(self._summed(shares, context))

    def _gradients(
        self, batch: Batch, variables: list[Any], context: Any
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """This device's gradients, scaled as the optimizer wants them, and the losses over all devices."""
        count = self.learning.accumulate
        pieces = {key: tf.split(value, count) for key, value in batch.items()} if count > 1 else {}
        totals: list[tf.Tensor] = []
        values: list[dict[str, tf.Tensor]] = []
        for index in range(count):
            # A part begins when the one before is through, or all would be in memory at once.
            with tf.control_dependencies(totals):
                part = {key: tf.identity(value[index]) for key, value in pieces.items()} if count > 1 else batch
                with tf.GradientTape() as tape:
                    loss, shares = self._shares(part, context, index)
                    scaled = self.optimizer.scale_loss(loss / count)
                inner = [variable.value for variable in variables]  # Keras' own have no zeros for what is unconnected
                found = tape.gradient(scaled, inner, unconnected_gradients=tf.UnconnectedGradients.ZERO)
                # Rows that were gathered come as slices; sums, norms and decay want them whole.
                dense = [tf.convert_to_tensor(gradient) for gradient in found]
                totals = [old + new for old, new in zip(totals, dense, strict=True)] if totals else dense
            values.append(self._summed(shares, context))
        return totals, {name: tf.add_n([one[name] for one in values]) / count for name in values[0]}

    def _shares(self, part: Batch, context: Any, index: int) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """What this device has of the loss, and of each loss: their sums over devices are the losses."""
        count = tf.shape(next(iter(part.values())))[0]
        device = tf.cast(context.replica_id_in_sync_group, tf.int32)
        first = (device * self.learning.accumulate + index) * count
        losses = self.batch_losses(part, self.seeds(self.optimizer.iterations, first, count))
        counts = tf.stack([loss.count for loss in losses.values()])
        if self.learning.normaliser == "global":
            counts = context.all_reduce(tf.distribute.ReduceOp.SUM, counts)
        else:
            counts *= context.num_replicas_in_sync
        totals = tf.stack([loss.total for loss in losses.values()])
        shares = tf.math.divide_no_nan(totals, counts)
        return tf.reduce_sum(shares * self._weights(losses)), dict(
            zip(losses, tf.unstack(shares, num=len(losses)), strict=True)
        )

    def _weights(self, names: Iterable[str]) -> tf.Tensor:
        """The weight of each loss at this step."""
        step, over = tf.cast(self.optimizer.iterations, tf.float32), dict(self.learning.warm_up)
        return tf.stack([tf.minimum(step / over[name], 1.0) if name in over else tf.ones([]) for name in names])

    def seeds(self, step: tf.Tensor, first: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        """A seed for each image, int32 [B, 2], made of the step and of its place in the batch of all devices."""
        seed = tf.constant([self.learning.seed % 2**31, self.learning.seed // 2**31])
        of_step = tf.random.experimental.stateless_fold_in(seed, tf.cast(step, tf.int32))

        def of_place(place: tf.Tensor) -> tf.Tensor:
            return tf.random.experimental.stateless_fold_in(of_step, place)

        return tf.map_fn(of_place, first + tf.range(count))

    def _summed(self, shares: dict[str, tf.Tensor], context: Any) -> dict[str, tf.Tensor]:
        values = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.stack(list(shares.values())))
        return {
            "loss": tf.reduce_sum(values * self._weights(shares)),
            **dict(zip(shares, tf.unstack(values, num=len(shares)), strict=True)),
        }

    def _told(self, values: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The running means with these values, which are the same on every device."""
        for name, value in values.items():
            self._means[name].update_state(value)
        means = {name: self._means[name].result() for name in values}
        if isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
            # Keras takes the mean over a first dimension there, and fails where there is none.
            return {name: value[None] for name, value in means.items()}
        return means

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Builds the optimizer; the layers stand. Keras' own way fails under MultiWorkerMirroredStrategy."""
        del iterator, data_batch
        if self.optimizer is not None and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)
