"""Versions that appear and disappear while requests are answered."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from maskx_tf.errors import BadInput
from maskx_tf.protocol import messages
from maskx_tf.serving.server import versions as module
from maskx_tf.serving.server.batching import Parameters
from maskx_tf.serving.server.service import Limits, Service
from maskx_tf.serving.server.versions import Versions, require_versions
from maskx_tf.serving.status import ServingError
from tests.serving.toys import write_toy, x


@pytest.fixture
def served(tmp_path):
    write_toy(tmp_path, 1)
    versions = Versions(tmp_path, "toy", keep=1, settled=0.0)
    versions.check()
    service = Service(versions, Parameters(), Limits())
    yield tmp_path, versions, service
    versions.close()
    service.batcher.close()


def wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def ask(service: Service, value: float = 0.0, number: int | None = None) -> tuple[int, float]:
    version, outputs = service.predict("grpc", ("toy", number), "", x(value), ())
    return version, float(outputs["y"][0, 0])


def test_the_newest_is_served(served) -> None:
    folder, versions, service = served
    assert ask(service) == (1, 1.0)
    write_toy(folder, 3)
    (folder / "4").mkdir()  # is being copied
    (folder / "notes").mkdir()
    versions.check()
    assert ask(service) == (3, 3.0)
    assert versions.states() == {1: (messages.END, ""), 3: (messages.AVAILABLE, "")}
    with pytest.raises(ServingError, match="NOT_FOUND: no version 1 of 'toy', expected 3"):
        ask(service, number=1)
    with pytest.raises(ServingError, match="NOT_FOUND: no model of the name 'cat', expected 'toy'"):
        service.predict("grpc", ("cat", None), "", x(0), ())
    shutil.rmtree(folder / "3")  # back to the one before
    versions.check()
    assert ask(service) == (1, 1.0)
    shutil.rmtree(folder / "1")  # the disk is gone, what is in memory is not
    versions.check()
    assert ask(service) == (1, 1.0)


def test_two_versions_side_by_side(served) -> None:
    folder, _, _ = served
    for number in (2, 3):
        write_toy(folder, number)
    versions = Versions(folder, "toy", keep=2, settled=0.0)
    versions.check()
    service = Service(versions, Parameters(), Limits())
    assert [ask(service, number=number)[0] for number in (None, 2, 3)] == [3, 2, 3]
    service.batcher.close()


def test_a_version_that_cannot_be_loaded_changes_nothing(served, caplog) -> None:
    folder, versions, service = served
    (folder / "2").mkdir()
    (folder / "2" / "saved_model.pb").write_bytes(b"no model")
    for _ in range(2):  # and is not tried again and again
        versions.check()
    assert ask(service) == (1, 1.0)
    state, problem = versions.states()[2]
    assert state == messages.END
    assert problem
    assert sum("cannot be loaded" in record.message for record in caplog.records) == 1
    shutil.rmtree(folder / "2")
    write_toy(folder, 2)
    versions.check()
    assert ask(service) == (2, 2.0)


def test_a_version_that_failed_is_tried_again_when_a_file_in_it_changed(served) -> None:
    folder, versions, service = served
    write_toy(folder, 2)
    good = (folder / "2" / "saved_model.pb").read_bytes()
    (folder / "2" / "saved_model.pb").write_bytes(good[: len(good) // 2])
    (folder / "2" / "variables" / "variables.index").rename(folder / "index")
    versions.check()
    assert versions.states()[2][0] == messages.END
    before = (folder / "2").stat().st_mtime_ns
    (folder / "2" / "saved_model.pb").write_bytes(good)
    versions.check()  # variables are missing still
    assert ask(service) == (1, 1.0)
    (folder / "index").rename(folder / "2" / "variables" / "variables.index")
    assert (folder / "2").stat().st_mtime_ns == before
    versions.check()
    assert ask(service) == (2, 2.0)


def test_a_version_is_loaded_when_it_is_complete(served, monkeypatch) -> None:
    folder, versions, service = served
    versions.settled = 5.0
    source = write_toy(folder / "elsewhere", 2)
    for file in sorted(source.rglob("*"), reverse=True):  # saved_model.pb is not the last
        target = folder / "2" / file.relative_to(source)
        if file.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target)  # which keeps the time of writing
            os.utime(target, (0, 0))
            versions.check()
            assert 2 not in versions.states()
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 4.0)
    versions.check()
    assert ask(service) == (1, 1.0)
    monkeypatch.setattr(time, "time", lambda: now() + 6.0)
    versions.check()
    assert ask(service) == (2, 2.0)


def test_a_wrong_clock_does_not_delay_a_version(served, monkeypatch) -> None:
    folder, versions, service = served
    versions.settled = 5.0
    write_toy(folder, 2)
    monkeypatch.setattr(time, "time", lambda: 0.0)  # the disk's clock is half a century ahead
    versions.check()
    assert ask(service) == (1, 1.0)
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + 6.0)
    versions.check()
    assert ask(service) == (2, 2.0)


def test_a_version_that_changes_while_it_is_loaded_is_not_served(served, monkeypatch) -> None:
    folder, versions, service = served
    path = write_toy(folder, 2)
    load = module.Version

    def slowly(number, path):
        version = load(number, path)
        (path / "more").touch()
        return version

    monkeypatch.setattr(module, "Version", slowly)
    versions.check()
    assert versions.states()[2] == (messages.START, "")
    monkeypatch.setattr(module, "Version", load)
    versions.check()
    assert ask(service) == (2, 2.0)
    assert (path / "more").exists()


def test_the_newest_version_that_loads_is_served_first(tmp_path) -> None:
    write_toy(tmp_path, 1)
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "saved_model.pb").write_bytes(b"no model")
    versions = Versions(tmp_path, "toy", keep=1, settled=0.0)
    versions.open()
    assert [number for number, (state, _) in versions.states().items() if state == messages.AVAILABLE] == [1]
    shutil.rmtree(tmp_path / "1")
    with pytest.raises(BadInput, match="2: cannot be loaded: "):
        Versions(tmp_path, "toy", keep=1, settled=0.0).open()


def test_a_link_to_nothing_does_not_delay_a_version(served) -> None:
    folder, versions, service = served
    (write_toy(folder, 2) / "assets" / "notes.txt").symlink_to(folder / "none")
    versions.check()
    assert ask(service) == (2, 2.0)
    weights = write_toy(folder, 3) / "variables" / "variables.index"
    weights.rename(folder / "index")
    weights.symlink_to(folder / "none")
    versions.check()
    assert versions.states()[3][0] == messages.END  # and says why
    (folder / "index").rename(folder / "none")
    versions.check()
    assert ask(service) == (3, 3.0)


def test_a_version_that_may_not_be_looked_at_is_named_once(served, monkeypatch, caplog) -> None:
    folder, versions, service = served
    write_toy(folder, 2)
    monkeypatch.setattr(module, "_look", lambda path: None)
    for _ in range(2):
        versions.check()
    assert ask(service) == (1, 1.0)
    assert [record.getMessage() for record in caplog.records] == [f"{folder / '2'}: is not loaded yet: {module.UNSEEN}"]
    monkeypatch.undo()
    versions.check()
    assert ask(service) == (2, 2.0)


def test_a_version_that_goes_before_it_is_loaded_has_ended(served, monkeypatch) -> None:
    folder, versions, _ = served
    write_toy(folder, 2)
    monkeypatch.setattr(module, "_look", lambda path: None)
    versions.check()
    assert versions.states()[2][0] == messages.START
    shutil.rmtree(folder / "2")
    versions.check()
    assert versions.states()[2][0] == messages.END


def test_numbers_beyond_int64_are_ignored(served, caplog) -> None:
    folder, versions, service = served
    for name in ("9223372036854775808", "9" * 200):
        shutil.copytree(folder / "1", folder / name)
    for _ in range(2):
        versions.check()
    assert ask(service) == (1, 1.0)
    assert set(versions.states()) == {1}
    said = [record.getMessage() for record in caplog.records if "ignored" in record.getMessage()]
    assert sorted(line.rpartition("/")[2][:20] for line in said) == ["9223372036854775808:", "9" * 20]


def test_reloads_under_load_lose_nothing(served) -> None:
    folder, versions, service = served
    answers: list[tuple[int, float]] = []
    errors: list[Exception] = []
    done = threading.Event()

    def go_on() -> None:
        while not done.is_set():
            try:
                answers.append(ask(service, 20))
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=go_on) for _ in range(4)]
    versions.watch(0.01)
    for thread in threads:
        thread.start()
    for number in (2, 3, 4):
        write_toy(folder, number)
        wait(lambda number=number: versions.states().get(number) == (messages.AVAILABLE, ""))
    wait(lambda: answers[-1][0] == 4)
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert {number for number, _ in answers} >= {1, 4}
    assert all(value == number + 20 for number, value in answers)


def test_an_old_version_stays_until_its_requests_are_answered(served) -> None:
    folder, versions, service = served
    write_toy(folder, 2)
    with versions.using("toy", 1) as version:
        thread = threading.Thread(target=versions.check)
        thread.start()
        wait(lambda: versions.states()[1][0] == messages.UNLOADING)
        assert ask(service) == (2, 2.0)
        assert versions.states()[1][0] == messages.UNLOADING
        np.testing.assert_array_equal(version.run("serving_default", x(0))["y"], [[1.0]])
    thread.join(30)
    assert versions.states()[1][0] == messages.END


def test_folders_without_versions(tmp_path) -> None:
    path = write_toy(tmp_path, 1)
    require_versions(tmp_path)
    with pytest.raises(BadInput, match="is one version"):
        require_versions(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="found none"):
        require_versions(tmp_path / "empty")
    with pytest.raises(BadInput, match="expected a folder of versions"):
        require_versions(tmp_path / "nowhere")
