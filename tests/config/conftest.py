from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests name files as a user does, relative to the folder where the command runs."""
    monkeypatch.chdir(tmp_path)
