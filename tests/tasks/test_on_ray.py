"""Jobs on a Ray cluster: the same rows, also when a node dies in the middle."""

from __future__ import annotations

import itertools
import json
import weakref
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from maskx_tf import cli
from maskx_tf.errors import BadInput
from maskx_tf.files import Unwritable
from maskx_tf.tasks.batch import items, merge, on_ray, plan
from maskx_tf.tasks.batch.plan import BatchJob
from maskx_tf.tasks.batch.run import run
from tests.tasks.test_batch import refused
from tests.tasks.test_batch_survival import jobs, photos
from tests.training.runs import finished, python


@pytest.mark.slow
def test_a_node_that_dies_costs_no_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    images, size = 400, 50
    photos(tmp_path / "photos", images, 4)
    here, there = jobs(tmp_path, ("here", "there"), size)
    printed = finished(python("-m", "tests.tasks.on_two_nodes", str(there)), seconds=1200)
    said = json.loads(printed.splitlines()[-1])
    assert (said["done"], said["images"]) == (images // size, images)
    assert 0 < sum(not name.startswith(".") and name.endswith(".parquet") for name in said["when_killed"]) < 8
    run(here)
    for job in (here, there):
        assert merge.merge(job, job.with_suffix(".parquet"))[::2] == (images, 4)
    assert here.with_suffix(".parquet").read_bytes() == there.with_suffix(".parquet").read_bytes()
    assert sorted(path.name for path in (there / "rows").iterdir()) == sorted(
        path.name for path in (here / "rows").iterdir()
    )
    assert cli.run(["batch", "run", str(there), "--engine", "ray"]) == 0  # nothing is left to do, so no cluster starts
    assert capsys.readouterr().out == "0 shards with 0 images done, 8 were done before\n"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999"])
def test_a_cluster_that_is_not_there_is_one_line(address: str) -> None:
    with pytest.raises(BadInput, match=f"--address {address}: expected a Ray cluster: "):
        on_ray._check_address(address)
    on_ray._check_address("auto")


def test_options_of_a_cluster_need_the_engine(capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected --engine ray with them" in refused(capsys, "batch", "run", "job", "--gpus", "1")


def two_shards(folder: Path) -> BatchJob:
    """A job of two images, whose model nobody opens."""
    for name in ("model/config.yaml", "model/model.json", "model/weights.npz", "photos/0.png", "photos/1.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    return plan.write(folder / "job", folder / "model", items.find([str(folder / "photos")], "image"), size=1)


def test_an_actor_that_the_system_ends_for_its_memory_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a cluster: an answer is a number, and the second one is the error."""
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    job, numbers, hired = two_shards(tmp_path), itertools.count(), []

    class Kind:
        @staticmethod
        def remote(*arguments: object) -> SimpleNamespace:
            hired.append(arguments)
            method = SimpleNamespace(remote=lambda *_: next(numbers))
            return SimpleNamespace(start=method, run=method)

    def get(answer: int) -> on_ray.ShardAnswer:
        if answer == 1:
            raise ray.exceptions.OutOfMemoryError("the memory of the node was full")
        return True, None

    monkeypatch.setattr(ray, "wait", lambda answers, num_returns: ([answers[0]], []))
    monkeypatch.setattr(ray, "get", get)
    pool = on_ray._Pool(Kind, (job, None), 1)
    assert list(pool.finish([0, 1])) == [(1, (True, None)), (0, (True, None))]
    assert len(hired) == 2
    Path(job.model, "weights.npz").write_text("trained further")
    numbers, hired = itertools.count(), []
    with pytest.raises(BadInput, match="found a changed one"):
        list(on_ray._Pool(Kind, (job, None), 1).finish([0, 1]))
    assert len(hired) == 2


@pytest.mark.parametrize(
    ("failing", "problem", "words"),
    [
        (0, BadInput("a.tar: damaged"), "job: 1 shards done, 1 not: 0; the first: a.tar: damaged$"),
        (0, Unwritable("rows: cannot be written"), "^rows: cannot be written$"),
        (on_ray.STARTING, BadInput("model.json: expected JSON"), "^model.json: expected JSON$"),
    ],
)
def test_a_problem_of_one_shard_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int, problem: BadInput, words: str
) -> None:
    """Without a cluster: an answer is the number of its shard."""
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    tried = []

    def get(number: int) -> on_ray.ShardAnswer:
        tried.append(number)
        return (False, problem) if number == failing else (True, None)

    class Actor:
        start = run = SimpleNamespace(remote=lambda number=on_ray.STARTING: number)

    hired: list[weakref.ref[Actor]] = []

    def hire(*_: object) -> Actor:
        assert not any(one() for one in hired)  # Ray keeps the place of an actor while somebody holds it
        actor = Actor()
        hired.append(weakref.ref(actor))
        return actor

    kind = SimpleNamespace(remote=hire)
    monkeypatch.setattr(on_ray, "_cluster", lambda _: nullcontext((kind, 1)))
    monkeypatch.setattr(on_ray, "work_of", lambda _: None)
    monkeypatch.setattr(ray, "wait", lambda answers, num_returns: ([answers[0]], []))
    monkeypatch.setattr(ray, "get", get)
    with pytest.raises(BadInput, match=words):
        on_ray.run_on_ray(two_shards(tmp_path).folder, (0, 1), on_ray.RayOptions())
    assert tried == ([on_ray.STARTING, 0, 1, 0, 0, 0, 0] if failing == 0 else [on_ray.STARTING] * 5)


def test_without_an_address_no_cluster_of_others_is_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    asked = []

    def init(address: str | None, **_: object) -> None:
        asked.append(address)
        raise ConnectionError("none there")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(BadInput, match="--address local: expected a Ray cluster: none there"):
        on_ray.run_on_ray(two_shards(tmp_path).folder, (0, 1), on_ray.RayOptions())
    assert asked == ["local"]
