"""Updates the weights on all devices, or on none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf


def update(
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[keras.Variable],
    gradients: Sequence[tf.Tensor],
    finite: tf.Tensor,
    changed: Sequence[tuple[keras.Variable, tf.Tensor]],
) -> None:
    """Applies gradients if they are finite; otherwise weights, the optimizer's variables and averages all stay.

    `optimizer.iterations` counts the updates that were made. In a replica context, called on every device.

    Args:
        optimizer: any, built; a `LossScaleOptimizer` lowers its scale where gradients are not finite.
        variables: what the optimizer moves.
        gradients: the gradients of the variables, already summed over devices.
        finite: bool scalar, equal on all devices.
        changed: variables that the forward pass has changed, and their values before it, which come back.
    """
    scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    if scaled:  # it looks at the gradients, which may be finite where their norm is not
        gradients = [gradient * tf.where(finite, 1.0, float("nan")) for gradient in gradients]

    def on_all_devices(strategy: Any, finite: Any, gradients: Any, values: Any) -> None:
        def apply() -> None:
            strategy.extended.call_for_each_replica(optimizer.apply, args=(gradients, variables))

        def restore() -> None:
            strategy.extended.call_for_each_replica(assign, args=(values,))

        # The same on all devices. A condition in a replica context could not hold what an optimizer does there.
        is_finite = strategy.experimental_local_results(finite)[0]
        with _without_sums(inner(optimizer)):
            if scaled:
                apply()
            tf.cond(is_finite, lambda: None if scaled else apply(), restore)

    def assign(values: Sequence[tf.Tensor]) -> None:
        for (variable, _), value in zip(changed, values, strict=True):
            variable.assign(value)

    tf.distribute.get_replica_context().merge_call(
        on_all_devices, args=(finite, gradients, [value for _, value in changed])
    )


def inner(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer itself, without the wrapper that scales losses."""
    return getattr(optimizer, "inner_optimizer", optimizer)


@contextmanager
def _without_sums(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Within, the optimizer takes gradients as they are; by itself it would sum them over devices once more."""
    optimizer._all_reduce_sum_gradients = list
    try:
        yield
    finally:
        del optimizer._all_reduce_sum_gradients
