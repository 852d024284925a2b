"""Spreads a run over devices and machines."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from maskx_tf.errors import BadInput

# A worker's number, how many workers there are, and how many devices this one has -> its batches, a piece a device.
Batches = Callable[[int, int, int], tf.data.Dataset]


def set_cluster(workers: str, index: int) -> None:
    """Sets TF_CONFIG to the workers of a run, before TensorFlow reads it.

    Args:
        workers: host:port of each, with commas between them; the first is the chief.
        index: the index of this process.

    Raises:
        BadInput: the list or the number is wrong.
    """
    hosts = [host.strip() for host in workers.split(",")]
    for host in hosts:
        name, _, port = host.rpartition(":")
        if not name or not port.isdigit():
            raise BadInput(f"--workers: expected host:port,host:port, found {workers!r}")
    if not 0 <= index < len(hosts):
        raise BadInput(f"--worker-index: expected 0 to {len(hosts) - 1}, found {index}")
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}})


def cluster_size() -> int:
    """How many workers TF_CONFIG names; 1 without it.

    Raises:
        BadInput: it is no such text.
    """
    text = os.environ.get("TF_CONFIG", "").strip()
    if not text:
        return 1
    try:
        cluster = json.loads(text)["cluster"]
        return len(cluster.get("worker", [])) + len(cluster.get("chief", []))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadInput(f"TF_CONFIG: expected JSON with cluster and task, found {text[:80]}") from None


def choose(name: str) -> tf.distribute.Strategy:
    """The strategy of a configuration: see `train.strategy`.

    Raises:
        BadInput: it needs what is not there.
    """
    if name in ("one", "mirrored") and cluster_size() > 1:
        raise BadInput(
            f"train.strategy: expected multi_worker or auto, because several workers are named, found {name}"
        )
    if name == "multi_worker" or (name == "auto" and cluster_size() > 1):
        if not os.environ.get("TF_CONFIG"):
            raise BadInput("train.strategy: multi_worker: expected TF_CONFIG or --workers, found neither")
        return tf.distribute.MultiWorkerMirroredStrategy()  # before TensorFlow is asked for its devices
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if name == "mirrored" or (name == "auto" and len(devices) > 1):
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the run folder."""
    resolver = strategy.cluster_resolver
    return (
        resolver is None or resolver.task_type == "chief" or (resolver.task_type == "worker" and not _number(strategy))
    )


class Agreement:
    """Whether any worker wants to stop: workers that stop at different steps would wait for each other for ever.

    Args:
        strategy: the strategy of the run.
        every: the steps between two questions, where there are several workers.
    """

    def __init__(self, strategy: tf.distribute.Strategy, every: int) -> None:
        self.several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        self.devices = strategy.num_replicas_in_sync
        self.every = every if self.several else 1

        @tf.function(autograph=False)
        def total(value: tf.Tensor) -> tf.Tensor:
            def summed(value: tf.Tensor) -> tf.Tensor:
                here = tf.identity(value)  # on this device: what comes from outside is on none
                return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, here)

            return strategy.experimental_local_results(strategy.run(summed, args=(value,)))[0]

        self._total = total

    def __call__(self, step: int, wish: bool) -> bool:
        """Whether to stop after this step; every worker has to ask at every step."""
        if not self.several or step % self.every:
            return wish and not self.several
        return float(self._total(tf.constant(float(wish)))) > 0.0

    def begin(self, step: int) -> None:
        """Makes sure that all workers go on from the same step.

        Raises:
            BadInput: they do not: they see different run folders.
        """
        if self.several:
            moments = self._total(tf.constant([step, step * step], tf.float64)).numpy() / self.devices
            if abs(moments[1] - moments[0] ** 2) > 0.5:
                raise BadInput(
                    f"expected all workers to see one run folder; this one continues from step {step}, others do not"
                )


def spread(batches: Batches, strategy: tf.distribute.Strategy) -> Any:
    """The batches, for `fit`: every device gets its piece of each, in the order in which one device would see it."""
    workers = cluster_size() if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) else 1
    devices = strategy.num_replicas_in_sync // workers
    if strategy.num_replicas_in_sync == 1:
        return batches(0, 1, 1)
    return strategy.distribute_datasets_from_function(
        lambda context: batches(_number(strategy) if workers > 1 else 0, workers, devices)
    )


def _number(strategy: tf.distribute.Strategy) -> int:
    """This worker's number among all, chief first, as the strategy numbers its replicas."""
    resolver = strategy.cluster_resolver
    spec = resolver.cluster_spec().as_dict()
    before = len(spec.get("chief", [])) if resolver.task_type == "worker" else 0
    return before + int(resolver.task_id)
