"""Batches of requests, with a model of plain functions, and the file that sets their parameters."""

from __future__ import annotations

import threading
import time
import weakref

import numpy as np
import pytest

from maskx_tf.errors import BadInput
from maskx_tf.serving.server.batching import Batcher, Parameters, Task, read_parameters
from maskx_tf.serving.status import ServingError

FOREVER = float("inf")


class Model:
    """Doubles what it gets, once it is let; a negative number breaks the whole batch."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.batches: list[list[float]] = []

    def __call__(self, key, inputs):
        assert self.open.wait(30)
        values = inputs["x"]
        self.batches.append(values.ravel().tolist())
        if (values < 0).any():
            raise ServingError("INVALID_ARGUMENT", "negative")
        return {"y": 2 * values}


@pytest.fixture
def batcher_of():
    made = []

    def make(**parameters):
        model, rows = Model(), []
        batcher = Batcher(model, Parameters(**{"num_batch_threads": 1, **parameters}), rows.append)
        made.append((batcher, model))
        return batcher, model, rows

    yield make
    for batcher, model in made:
        model.open.set()
        batcher.close()


def task(*values: float, deadline: float = FOREVER, width: int = 1) -> Task:
    return Task({"x": np.tile(np.float32(values)[:, None], (1, width))}, deadline)


def answer(one: Task) -> list[float]:
    return one.result.result(30)["y"][:, 0].tolist()


def occupied(batcher, model, key="key"):
    """Keeps the only thread busy until the model is opened."""
    model.open.clear()
    first = task(0)
    batcher.submit(key, first)
    while batcher.waiting():
        time.sleep(0.001)
    return first


def test_requests_of_one_shape_go_together(batcher_of) -> None:
    batcher, model, rows = batcher_of(max_batch_size=4, together=True)
    occupied(batcher, model)
    tasks = [task(1), task(2, 3), task(4), task(5), task(6, width=2), task(7)]
    for number, one in enumerate(tasks):
        batcher.submit(("key", number // 100), one)  # equal keys, each an object of its own
    other = task(8)
    batcher.submit("other", other)
    model.open.set()
    assert [answer(one) for one in tasks] == [[2], [4, 6], [8], [10], [12], [14]]
    assert answer(other) == [16]
    assert model.batches == [[0], [1, 2, 3, 4], [5, 7], [6, 6], [8]]
    assert rows == [1, 4, 2, 1, 1]


def test_batches_are_padded_to_allowed_sizes(batcher_of) -> None:
    batcher, model, rows = batcher_of(max_batch_size=4, allowed_batch_sizes=(1, 4), together=True)
    one = task(1, 2, 3)
    batcher.submit("key", one)
    assert answer(one) == [2, 4, 6]
    assert model.batches == [[1, 2, 3, 1]]
    assert rows == [3]


def test_the_first_waits_for_others(batcher_of) -> None:
    batcher, model, _ = batcher_of(max_batch_size=2, batch_timeout_micros=30_000_000, together=True)
    first, second = task(1), task(2)
    batcher.submit("key", first)
    with pytest.raises(TimeoutError):
        first.result.result(0.05)
    batcher.submit("key", second)
    assert answer(first) + answer(second) == [2, 4]
    assert model.batches == [[1, 2]]
    batcher, model, _ = batcher_of(max_batch_size=2, batch_timeout_micros=1000, together=True)
    alone = task(3)
    batcher.submit("key", alone)
    assert answer(alone) == [6]


def test_without_batching_each_request_is_its_own(batcher_of) -> None:
    batcher, model, _ = batcher_of(max_enqueued_batches=2)
    occupied(batcher, model)
    tasks = [task(1, 2, 3), task(4)]
    for one in tasks:
        batcher.submit("key", one)
    with pytest.raises(ServingError, match="RESOURCE_EXHAUSTED: the queue is full"):
        batcher.submit("key", task(5))
    model.open.set()
    assert [answer(one) for one in tasks] == [[2, 4, 6], [8]]
    assert model.batches == [[0], [1, 2, 3], [4]]


def test_too_much_is_refused(batcher_of) -> None:
    batcher, model, _ = batcher_of(max_batch_size=2, max_enqueued_batches=2, together=True)
    with pytest.raises(ServingError, match="INVALID_ARGUMENT: a request of 3 rows, expected at most 2"):
        batcher.submit("key", task(1, 2, 3))
    occupied(batcher, model)
    tasks = [task(index) for index in range(4)]
    for one in tasks:
        batcher.submit("key", one)
    with pytest.raises(ServingError, match="RESOURCE_EXHAUSTED"):
        batcher.submit("key", task(9))
    model.open.set()
    assert [answer(one)[0] for one in tasks] == [0, 2, 4, 6]


def test_a_bad_request_does_not_affect_others(batcher_of) -> None:
    batcher, model, _ = batcher_of(max_batch_size=3, together=True)
    occupied(batcher, model)
    tasks = [task(1), task(-1), task(2)]
    for one in tasks:
        batcher.submit("key", one)
    model.open.set()
    assert answer(tasks[0]) + answer(tasks[2]) == [2, 4]
    with pytest.raises(ServingError, match="negative"):
        answer(tasks[1])


def test_tasks_of_disconnected_clients_are_not_run(batcher_of) -> None:
    batcher, model, _ = batcher_of()
    occupied(batcher, model)
    late, gone, here = task(1, deadline=time.monotonic() - 1), task(2), task(3)
    for one in (late, gone, here):
        batcher.submit("key", one)
    assert gone.result.cancel()
    model.open.set()
    assert answer(here) == [6]
    with pytest.raises(ServingError, match="DEADLINE_EXCEEDED"):
        answer(late)
    assert model.batches == [[0], [3]]


def test_an_idle_thread_holds_nothing(batcher_of) -> None:
    batcher, _, _ = batcher_of()
    key, one = threading.Event(), task(1)  # any object that a weak reference can have
    held = [weakref.ref(key), weakref.ref(one)]
    batcher.submit(key, one)
    assert answer(one) == [2]
    del key, one
    until = time.monotonic() + 5
    while any(reference() for reference in held) and time.monotonic() < until:
        time.sleep(0.001)
    assert [reference() for reference in held] == [None, None]


def test_closing_finishes_accepted_tasks(batcher_of) -> None:
    batcher, _, _ = batcher_of(max_batch_size=8, batch_timeout_micros=60_000_000, together=True)
    one = task(1)
    batcher.submit("key", one)
    batcher.close()
    assert answer(one) == [2]
    with pytest.raises(ServingError, match="UNAVAILABLE"):
        batcher.submit("key", task(2))


def test_file(tmp_path) -> None:
    file = tmp_path / "batching.txt"
    file.write_text("max_batch_size { value: 8 }\nbatch_timeout_micros { value: 5000 }\nallowed_batch_sizes: [4, 8]\n")
    assert read_parameters(file) == Parameters(8, 5000, 10, 2, (4, 8), together=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size: 8", "line 1"),
        ("max_batch_sizes { value: 8 }", "max_batch_sizes"),
        ("max_batch_size { value: 0 }", "max_batch_size is 0"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: [2, 4]", "ascending ones up to max_batch_size"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: [8, 4]", "ascending"),
        ("pad_variable_length_inputs: true", "image_bytes"),
    ],
)
def test_mistakes_in_the_file(tmp_path, text, message) -> None:
    file = tmp_path / "batching.txt"
    file.write_text(text)
    with pytest.raises(BadInput, match=message):
        read_parameters(file)
    with pytest.raises(BadInput, match="cannot be read"):
        read_parameters(tmp_path / "none.txt")
