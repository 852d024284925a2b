"""A hook of mkdocs: adds the page of the commands, which typer makes of their help."""

from __future__ import annotations

import subprocess
import sys

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds commands.md to the pages of the site."""
    command = [sys.executable, "-m", "typer", "maskx_tf.cli", "utils", "docs", "--name", "maskx", "--title", "Commands"]
    made = subprocess.run(command, check=True, capture_output=True, text=True)
    files.append(File.generated(config, "commands.md", content=made.stdout))
    return files
