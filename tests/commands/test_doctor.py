"""`maskx doctor`: what it reports as installed and as missing, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import maskx_tf
from maskx_tf import cli
from maskx_tf.commands import doctor
from maskx_tf.commands.doctor import machine

NO_GPU = 'print(\'{"devices": [{"name": "CPU:0"}], "cuda_build": false, "backend": "tensorflow"}\')'


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real probe imports TensorFlow, which takes seconds; the slow test does it once."""
    monkeypatch.setattr(machine, "PROBE", NO_GPU)


def _requires(monkeypatch: pytest.MonkeyPatch, *requirements: str) -> None:
    monkeypatch.setattr(machine.metadata, "requires", lambda _: list(requirements))


def test_a_complete_installation_has_no_problems(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["doctor"]) == 0
    text = capsys.readouterr().out
    for word in (
        "Python 3.",
        "tensorflow ",
        "extra dev:",
        "extra litert:",
        "devices  CPU:0",
        "cores ",
        "memory ",
        " GiB",
        "disk     free here ",
        "browser ",
    ):
        assert word in text


def test_json_holds_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["tensorflow"]["devices"] == [{"name": "CPU:0"}]
    assert report["cores"] >= 1
    by_name = {package["name"]: package for package in report["packages"]}
    assert by_name["pytest"]["extra"] == "dev"
    assert by_name["pytest"]["installed"] == pytest.__version__


def _installed(monkeypatch: pytest.MonkeyPatch, editable: bool) -> None:
    """Lets the package seem to be installed from a clone or from a wheel."""
    origin = json.dumps({"url": "file:///x", "dir_info": {"editable": True}}) if editable else None
    egg, ours = SimpleNamespace(read_text=lambda _: None), SimpleNamespace(read_text=lambda _: origin)
    monkeypatch.setattr(machine.metadata, "distributions", lambda name: [egg, ours])


def test_what_is_missing_or_does_not_fit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _installed(monkeypatch, editable=True)
    litert, docs = 'no-such-package>=2; extra == "litert"', 'pytest[dev]>=1.0; extra == "docs"'
    _requires(monkeypatch, "pytest<1,>=0.5", litert, "types-none; extra == 'dev'", docs)
    assert cli.run(["doctor"]) == 2
    text, error = capsys.readouterr()
    assert error.startswith("maskx: error: this machine is not ready: install what the package needs: in the clone, ")
    assert f"pytest                  {pytest.__version__:14}<1,>=0.5  <- does not fit" in text
    assert "no-such-package         -             >=2  <- missing" in text
    assert f"extra docs:\n  pytest                  {pytest.__version__:14}>=1.0\n" in text
    command = "in the clone, pip install -c constraints.txt -e '.[litert]'"
    assert f"- for extra litert (running LiteRT models): {command}" in text
    assert "- for extra dev " in text


def test_advice_for_a_wheel_needs_no_clone(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _installed(monkeypatch, editable=False)
    litert = "no-such-package>=2", "none-either<3,>=1", "pytest"
    extras = (f"{name}; extra == 'litert'" for name in litert)
    _requires(
        monkeypatch, "pytest<1,>=0.5", "missing-too", *extras, "types-none; extra == 'dev'", "none; extra == 'docs'"
    )
    assert cli.run(["doctor"]) == 2
    text = capsys.readouterr().out
    assert "- install what the package needs: pip install 'pytest<1,>=0.5' 'missing-too'" in text
    assert "for extra litert (running LiteRT models): pip install 'no-such-package>=2' 'none-either<3,>=1'" in text
    assert not any(word in text for word in ("clone", "constraints", "extra dev", "extra docs"))


def test_modules_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a wheel that lacks a folder. What lacks an extra's package is not broken."""
    monkeypatch.setattr(maskx_tf, "__path__", [str(tmp_path)])
    for name, line in (
        ("lacks_a_room", "import maskx_tf.no_such_room"),
        ("lacks_an_extra", "import no_such_package"),
        ("lacks_a_library", "raise ImportError('libGL.so.1: cannot open', name='cv2')"),
        ("is_sound", ""),
        ("__main__", "raise SystemExit(2)"),
    ):
        (tmp_path / f"{name}.py").write_text(line)
    assert machine.broken_modules() == {
        "maskx_tf.lacks_a_library": "libGL.so.1: cannot open",
        "maskx_tf.lacks_a_room": "No module named 'maskx_tf.no_such_room'",
    }
    broken = NO_GPU.replace('"cuda_build"', '"broken": {"maskx_tf.a": "No x", "maskx_tf.b": "No x"}, "cuda_build"')
    monkeypatch.setattr(machine, "PROBE", broken)
    (needed,) = doctor.examine()["needed"]
    assert needed == "install the package again: 2 of its modules cannot be imported, first maskx_tf.a: No x"


def test_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(_: str) -> list[str]:
        raise machine.metadata.PackageNotFoundError

    monkeypatch.setattr(machine.metadata, "requires", requires)
    monkeypatch.setattr(machine.metadata, "distributions", lambda name: [])
    assert "install the package: in the clone, pip install -c constraints.txt -e ." in doctor.examine()["needed"]


@pytest.mark.parametrize(
    ("probe", "needed"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "use a processor with AVX"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "TensorFlow was ended by SIGSEGV"),
        ("raise ImportError('no such library')", "repair TensorFlow, which says: ImportError: no such library"),
        ("import sys; sys.exit(3)", "repair TensorFlow, which says: TensorFlow did not start"),
        (NO_GPU.replace('"tensorflow"', '"jax"'), "set KERAS_BACKEND=tensorflow; it is jax now"),
    ],
)
def test_tensorflow_that_does_not_start(
    probe: str, needed: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "PROBE", probe)
    assert cli.run(["doctor", "--json"]) == 2
    printed, error = capsys.readouterr()
    report = json.loads(printed)
    assert any(needed in one for one in report["needed"])
    assert needed in error
    assert f"Nothing works before this is done:\n- {report['needed'][0]}" in doctor.describe(report)


def test_a_missing_optional_package_changes_no_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _requires(monkeypatch, "pytest", 'no-such-package>=2; extra == "litert"')
    monkeypatch.setattr(doctor, "LEAST_DISK", 2**80)
    monkeypatch.setattr(machine, "_can_write", lambda: False)
    monkeypatch.setattr(machine, "BROWSERS", ("no-such-browser",))
    assert cli.run(["doctor"]) == 0
    text, error = capsys.readouterr()
    assert error == ""
    for advice in (
        "- for extra litert (",
        "- Pillow cannot write on pictures",
        "- with so little disk, lower train.keep",
    ):
        assert advice in text
    assert "browser  none, which only tests of pages miss" in text


def test_memory_and_cores_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/meminfo": "MemTotal:  8388608 kB\nMemFree: 1 kB\nMemAvailable:  4194304 kB",
        "/sys/fs/cgroup/memory.max": "2147483648",
        "/sys/fs/cgroup/memory.current": "1073741824",
        "/sys/fs/cgroup/cpu.max": "100000 100000",
    }
    monkeypatch.setattr(machine, "_read", lambda path: files.get(path, ""))
    report = doctor.examine()
    assert (report["memory_bytes"], report["memory_free_bytes"], report["cores"]) == (2**31, 2**30, 1)
    assert any("lower model.input.canvas" in advice for advice in report["advice"])
    files |= {"/sys/fs/cgroup/memory.max": "max", "/sys/fs/cgroup/cpu.max": "max 100000"}
    report = doctor.examine()
    assert (report["memory_bytes"], report["memory_free_bytes"]) == (2**33, 2**32)
    files.clear()  # a system without /proc
    assert "memory   unknown" in doctor.describe(doctor.examine())


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [
        ("2.21.0", ">=2.21,<2.22", True),
        ("2.22.0", "<2.22, >=2.21", False),
        ("2.20.9", ">=2.21", False),
        ("2.21.0+nv25", ">=2.21", True),
        ("10.0", ">=9.1", True),
        ("6", ">=6.0.0", True),
        ("1.2", "", True),
    ],
)
def test_versions_are_compared_as_numbers(version: str, wanted: str, fits: bool) -> None:
    assert machine.satisfies(version, wanted) == fits


@pytest.mark.slow
def test_tensorflow_answers_the_real_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    report = doctor.examine()
    assert report["broken_modules"] == {}
    answer = report["tensorflow"]
    assert answer["backend"] == "tensorflow"
    assert answer["devices"][0]["name"] == "CPU:0"
