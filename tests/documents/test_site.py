"""The documents as a site."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DECISIONS = "design.md"  # there is nothing to run in it


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_page_opens_with_an_example(page: Path) -> None:
    beginning = page.read_text(encoding="utf-8").partition("\n## ")[0]
    assert ("\n```" in beginning) == (page.name != DECISIONS)


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
    for page in (tmp_path / "site").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert 'src="http' not in text, f"{page} loads something from elsewhere"
