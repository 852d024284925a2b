"""The wheel holds every file of the package that git tracks, and `pip install .` installs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
METADATA = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")
pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no clone, so git cannot name the tracked files")


def tracked(*folders: str) -> set[str]:
    command = ["git", "ls-files", "-z", *folders]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()}


def packaged() -> set[str]:
    """The tracked files by their places in the wheel, where recipes are part of the package."""
    return tracked("maskx_tf") | {f"maskx_tf/recipes/{name.removeprefix('configs/')}" for name in tracked("configs")}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tracked files alone: setuptools would pick up leftovers of earlier builds, and leave some."""
    folder = tmp_path_factory.mktemp("clone")
    for name in (*METADATA, *packaged()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def pip(clone: Path, *arguments: str) -> None:
    # Without a network: the environment of the tests has the build's tools.
    command = [sys.executable, "-m", "pip", *arguments, "--no-deps", "--no-build-isolation", "--quiet", "."]
    ended = subprocess.run(
        command, cwd=clone, capture_output=True, text=True, check=False, env={**os.environ, "PIP_NO_INPUT": "1"}
    )
    assert ended.returncode == 0, ended.stderr


def test_wheel_holds_the_tracked_files(clone: Path, tmp_path: Path) -> None:
    pip(clone, "wheel", "--wheel-dir", str(tmp_path))
    (wheel,) = tmp_path.glob("maskx_tf-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    assert {name for name in held if ".dist-info/" not in name} == packaged()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in held)


def test_pip_installs_the_tracked_files(clone: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip(clone, "install", "--no-compile", "--target", str(site))
    installed = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert {name for name in installed if name.startswith("maskx_tf/")} == packaged()
    assert "bin/maskx" in installed
