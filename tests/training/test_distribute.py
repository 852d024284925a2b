"""One device, two devices, and two machines give equal results."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskx_tf.checkpoints import io
from maskx_tf.errors import BadInput
from maskx_tf.training import distribute, states
from tests.training import runs

SCRIPT = "tests/training/replicas.py"
SHARES = "tests/training/shares.py"


def hosts(count: int) -> list[str]:
    """Addresses on this machine that are free."""
    servers = [socket.socket() for _ in range(count)]
    for server in servers:
        server.bind(("127.0.0.1", 0))
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return [f"127.0.0.1:{port}" for port in ports]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replicas")
    # Slowly: the last bits of a float decide on which side of a kink of ReLU a sum falls, and ten large steps show it.
    return runs.recipe(folder, runs.scenes(folder / "data"), rate=0.002)


@pytest.fixture(scope="module")
def local(recipe: Path) -> Path:
    """one.npz and mirrored.npz after ten steps with clipping."""
    out = recipe.parent / "out"
    runs.finished(runs.python(SCRIPT, str(recipe), str(out), "local"))
    return out


def assert_same(first: Path, second: Path) -> None:
    ours, theirs = np.load(first), np.load(second)
    assert set(ours.files) == set(theirs.files)
    assert ours["log gradient_norm"].min() > 1.0  # clip_norm of the recipe: it has something to do
    for name in ours.files:
        scale = max(np.abs(ours[name]).max(), 1e-3)
        # The shifts of norms begin at 0 and stay near .01, where the last bits of a gradient are a larger share.
        near = 1e-4 if name.endswith("/beta") else 1e-5
        np.testing.assert_allclose(ours[name] / scale, theirs[name] / scale, atol=near, rtol=1e-5, err_msg=name)


@pytest.mark.slow
def test_two_devices_do_what_one_does(local: Path) -> None:
    assert_same(local / "one.npz", local / "mirrored.npz")


@pytest.fixture(scope="module")
def shares(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What uneven batches gave on one device and on two, by strategy and optimizer."""
    out = tmp_path_factory.mktemp("shares") / "shares.json"
    runs.finished(runs.python(SHARES, str(out)))
    return json.loads(out.read_text())


@pytest.mark.parametrize("optimizer", ["ours", "adamw", "scaled"])
def test_uneven_shares_do_what_one_device_does(optimizer: str, shares: dict[str, Any]) -> None:
    """4, 3 and 1 images on two devices: each image keeps its seed, and clipping its limit."""
    assert_same_learning(shares["mirrored"][optimizer], shares["one"][optimizer])


def assert_same_learning(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    for part in ("logs", "tested"):
        for mine, other in zip(ours[part], theirs[part], strict=True):
            assert mine == pytest.approx(other, rel=1e-5)
    for mine, other in zip(ours["weights"], theirs["weights"], strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["ours", "adamw", "scaled"])
def test_image_that_breaks_the_loss_of_one_device_changes_nothing_on_any(
    optimizer: str, shares: dict[str, Any]
) -> None:
    for strategy in ("one", "mirrored"):
        found = shares[strategy][optimizer]
        assert found["broken"]
        assert found["moved"] == (["step_counter", "dynamic_scale"] if optimizer == "scaled" else [])


def work(*arguments: str) -> None:
    """Runs a script in two processes, each a worker."""
    cluster = {"worker": hosts(2)}
    started = [
        runs.python(
            *(argument.format(index=index) for argument in arguments),
            TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}),
        )
        for index in range(2)
    ]
    for process in started:
        runs.finished(process)


@pytest.mark.slow
def test_two_workers_do_what_one_device_does(recipe: Path, local: Path) -> None:
    work(SCRIPT, str(recipe), str(local), "worker")
    assert_same(local / "one.npz", local / "workers1.npz")
    assert_same(local / "workers1.npz", local / "workers0.npz")


@pytest.mark.slow
def test_uneven_shares_of_two_workers(tmp_path: Path, shares: dict[str, Any]) -> None:
    work(SHARES, str(tmp_path / "{index}.json"), "worker")
    for index in range(2):
        found = json.loads((tmp_path / f"{index}.json").read_text())["workers"]
        for optimizer, ours in found.items():
            assert_same_learning(ours, shares["one"][optimizer])
            assert ours["broken"]
            assert ours["moved"] == shares["one"][optimizer]["moved"]


def start_workers(count: int, *arguments: str) -> list[subprocess.Popen[str]]:
    """`maskx train` in several processes, each a worker of one run."""
    workers = ",".join(hosts(count))
    command = ["-m", "maskx_tf", "train", *arguments, "--workers", workers, "--worker-index"]
    return [runs.python(*command, str(index)) for index in range(count)]


@pytest.mark.slow
def test_killed_worker_of_four(recipe: Path, tmp_path: Path) -> None:
    """One is killed, the others are ended as a scheduler does; all go on and do what one process does."""
    out, alone = tmp_path / "four", tmp_path / "one"
    settings = [str(recipe), "train.steps=6", "train.checkpoint_every=2", "train.deterministic=true"]
    runs.finished(runs.python("-m", "maskx_tf", "train", *settings, "--out", str(alone)))
    started = start_workers(4, *settings, "--out", str(out))
    while not states.all_of(out) and started[0].poll() is None:
        time.sleep(0.05)
    started[2].kill()
    for process in started:
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
    assert not any(process.returncode == 0 for process in started)
    assert 0 < states.all_of(out)[-1].step < 6
    for process in start_workers(4, *settings, "--out", str(out), "--resume"):
        runs.finished(process, seconds=600)
    first, second = (
        {variable.path: variable.numpy() for variable in io.open_model(run).model.weights} for run in (alone, out)
    )
    for name, value in first.items():  # four parts are added up in another order, and kinks of ReLU enlarge that
        scale = max(np.abs(value).max(), 1e-3)
        np.testing.assert_allclose(value / scale, second[name] / scale, atol=1e-3, err_msg=name)


@pytest.mark.slow
def test_signal_to_one_worker_ends_both(recipe: Path, tmp_path: Path) -> None:
    """By the command; and --resume goes on with both."""
    out, steps = tmp_path / "run", "train.steps=400"

    def start(*overrides: str) -> list[subprocess.Popen[str]]:
        return start_workers(2, str(recipe), *overrides, "--out", str(out))

    started = start(steps)
    while not list(out.glob("checkpoints/step-*")) and started[0].poll() is None:
        time.sleep(0.2)
    started[1].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [130, 130], said[0][-2000:] + said[1][-2000:]
    step = states.all_of(out)[-1].step
    assert step % 2 == 0  # train.log_every
    for process in start(steps, f"train.steps={step + 2}", "--resume"):
        runs.finished(process)
    assert states.all_of(out)[-1].step == step + 2
    assert (out / "model" / "model.json").exists()


def test_cluster_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", "")
    assert distribute.cluster_size() == 1
    distribute.set_cluster("a:1, b:2", 1)
    assert json.loads(os.environ["TF_CONFIG"]) == {
        "cluster": {"worker": ["a:1", "b:2"]},
        "task": {"type": "worker", "index": 1},
    }
    assert distribute.cluster_size() == 2


@pytest.mark.parametrize(
    ("workers", "index", "message"),
    [("a,b:2", 0, "--workers: expected host:port"), ("a:1,b:2", 2, "--worker-index: expected 0 to 1, found 2")],
)
def test_wrong_cluster_is_one_line(workers: str, index: int, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", "")
    with pytest.raises(BadInput, match=message):
        distribute.set_cluster(workers, index)


def test_wrong_environment_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", "{nonsense")
    with pytest.raises(BadInput, match="TF_CONFIG: expected JSON"):
        distribute.cluster_size()
    monkeypatch.delenv("TF_CONFIG")
    with pytest.raises(BadInput, match="expected TF_CONFIG or --workers, found neither"):
        distribute.choose("multi_worker")
    distribute.set_cluster("a:1,b:2", 0)
    with pytest.raises(BadInput, match="expected multi_worker or auto, because several workers are named, found one"):
        distribute.choose("one")
