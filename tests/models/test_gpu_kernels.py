"""Every operation of a model's graphs runs on a GPU, as far as TensorFlow's list of kernels can say without one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import tensorflow as tf
from tensorflow.python.framework.kernels import get_registered_kernels_for_op
from tensorflow.python.ops import while_loop

from maskx_tf.config import Config
from maskx_tf.models.build import build
from maskx_tf.training import dry
from maskx_tf.training.fit import compiled
from tests.models import small


def nodes(function: Any) -> Iterator[Any]:
    graph = function.graph.as_graph_def()
    for nodes in (graph.node, *(one.node_def for one in graph.library.function)):
        yield from nodes


def has_kernel(node: Any) -> bool:
    def takes(constraint: Any) -> bool:
        value = node.attr[constraint.name]
        types = list(value.list.type) if value.HasField("list") else [value.type]
        return set(types) <= set(constraint.allowed_values.list.type)

    kernels = get_registered_kernels_for_op(node.op).kernel
    return any(one.device_type in ("GPU", "DEFAULT") and all(map(takes, one.constraint)) for one in kernels)


def without_kernel(function: Any) -> set[str]:
    """Operations without a GPU kernel; constant texts and shapes stay on the host."""
    return {node.op for node in nodes(function) if not has_kernel(node) and node.op != "Const"}


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [kind] if kind == "GPU" else [])


@pytest.mark.slow
def test_a_kernel_for_the_host_alone_is_noticed() -> None:
    model = build(small.config(family="faster_rcnn"))
    assert without_kernel(inference(model)) == {"CombinedNonMaxSuppression"}


def inference(model: Any) -> Any:
    specs = tf.TensorSpec([None, small.SIDE, small.SIDE, 3], tf.uint8), tf.TensorSpec([None, 2])
    infer = tf.function(lambda images, sizes: model.infer(images, sizes, model.prepare()), autograph=False)
    return infer.get_concrete_function(*specs)


def test_inference(on_a_gpu: None) -> None:
    assert without_kernel(inference(build(small.config()))) == set()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mask_x_rcnn", "faster_rcnn"])
def test_a_training_step(family: str, on_a_gpu: None) -> None:
    config = Config(model=small.config(family=family), data={"max_instances": 4}, train={"batch": 2, "strategy": "one"})
    model, batch = compiled(config), dry.made_up(config, 2)
    specs = {key: tf.TensorSpec([None, *value.shape[1:]], value.dtype) for key, value in batch.items()}
    step = tf.function(model.train_step, autograph=False).get_concrete_function(specs)
    assert without_kernel(step) == set()


@pytest.mark.slow
def test_few_loops_of_a_training_step(on_a_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round of a loop launches each of its kernels again. Two images with five levels of anchors each."""
    rounds = tf.Variable(0)
    original = while_loop.while_loop

    def counting(cond: Any, body: Any, loop_vars: Any, **arguments: Any) -> Any:
        def counted(*state: Any) -> Any:
            rounds.assign_add(1)
            return body(*state)

        return original(cond, counted, loop_vars, **arguments)

    monkeypatch.setattr(while_loop, "while_loop", counting)
    config = Config(model=small.config(), data={"max_instances": 4}, train={"batch": 2, "strategy": "one"})
    model, batch = compiled(config), dry.made_up(config, 2)
    model.train_on_batch(batch)
    levels, matching, draws = 2 * 5, 2, 2 * 5
    assert int(rounds) == levels + matching + draws
