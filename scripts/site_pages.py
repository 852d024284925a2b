"""A hook of mkdocs: adds the page of the commands, made from their help, and the documents of the repository's root."""

from __future__ import annotations

import posixpath
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT_PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")  # none with a scheme, none inside the page


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds commands.md and the documents of the root to the pages of the site."""
    command = [sys.executable, "-m", "typer", "maskx_tf.cli", "utils", "docs", "--name", "maskx", "--title", "Commands"]
    made = subprocess.run(command, check=True, capture_output=True, text=True)
    files.append(File.generated(config, "commands.md", content=made.stdout))
    for name in ROOT_PAGES:
        text = (Path(config.config_file_path).parent / name).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Turns links between files into links of the site; a link to a file that is no page becomes text."""
    here = page.file.src_uri
    folder = posixpath.dirname(here if here in ROOT_PAGES else f"docs/{here}")

    def link(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        path = posixpath.normpath(posixpath.join(folder, target))
        if path not in ROOT_PAGES and not path.startswith("docs/"):
            return text
        place = posixpath.relpath(path.removeprefix("docs/"), posixpath.dirname(here) or ".")
        return f"[{text}]({place}{anchor})"

    return LINK.sub(link, markdown)
