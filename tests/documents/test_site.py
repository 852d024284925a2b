"""The documents as a site."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MIKE = "from mike.driver import main; main()"


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_page_opens_with_an_example(page: Path) -> None:
    beginning = page.read_text(encoding="utf-8").partition("\n## ")[0]
    assert "\n```" in beginning


@pytest.mark.slow
def test_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    settings = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    reference = (tmp_path / "site/api/index.html").read_text(encoding="utf-8")
    assert "one or more: arrays" in reference, "docstrings are missing"
    commands = (tmp_path / "site/commands/index.html").read_text(encoding="utf-8")
    assert "maskx vocabulary reorder" in commands
    quickstart = (tmp_path / "site/quickstart/index.html").read_text(encoding="utf-8")
    assert "](" not in quickstart
    walks = (tmp_path / "site/design/index.html").read_text(encoding="utf-8")
    assert 'href="../ARCHITECTURE/"' in walks
    assert (tmp_path / "site/ARCHITECTURE/index.html").exists()
    for page in (tmp_path / "site").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert 'src="http' not in text, f"{page} loads something from elsewhere"


@pytest.mark.slow
def test_versions_of_the_site_are_kept_next_to_each_other(tmp_path: Path) -> None:
    """As CONTRIBUTING.md says, in a clone, of which nothing is pushed."""
    pytest.importorskip("mike", reason="the extra docs is not installed")
    clone = tmp_path / "clone"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run(["git", "clone", "--quiet", "--no-local", str(ROOT), str(clone)], check=True)
    settings = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(clone)}
    settings |= {
        f"GIT_{role}_{what}": "a@example.com" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    for version in ("0.1", "0.2"):
        command = [sys.executable, "-c", MIKE, "deploy", "--update-aliases", version, "latest"]
        ended = subprocess.run(command, cwd=clone, env=settings, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
    files = subprocess.run(
        [*git, "-C", str(clone), "ls-tree", "-r", "--name-only", "gh-pages"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert {"versions.json", "0.1/index.html", "0.2/index.html", "latest"} <= set(files)
