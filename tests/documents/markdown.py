"""Markdown as far as the checks of the documents need it: lines of prose, code, links, headings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

LINK = re.compile(r"\]\(([^()\s]+)(?:\s+\"[^\"]*\")?\)|^\[[^\]]+\]:\s+(\S+)|<img[^>]*\ssrc=\"([^\"]+)\"")
SPAN = re.compile(r"(`+)(.+?)\1")
FENCE = re.compile(r"\s*(```+|~~~+)\s*(\w*)")


class Code(NamedTuple):
    """A block between fences."""

    line: int  # of the first line of code, from 1
    language: str
    text: str


def read(path: Path) -> str:
    """The text of a page; of a notebook, its cells one below the other."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    return "\n\n".join(f"```python\n{source}\n```" if kind == "code" else source for kind, source in cells)


def split(text: str) -> tuple[list[tuple[int, str]], list[Code]]:
    """The numbered lines of prose, and the blocks of code."""
    prose: list[tuple[int, str]] = []
    blocks: list[Code] = []
    fence = ""
    for number, line in enumerate(text.splitlines(), start=1):
        found = FENCE.match(line)
        if fence:
            if found and found[1].startswith(fence) and not found[2]:
                fence = ""
            else:
                blocks[-1] = blocks[-1]._replace(text=blocks[-1].text + line + "\n")
        elif found:
            fence = found[1]
            blocks.append(Code(number + 1, found[2], ""))
        else:
            prose.append((number, line))
    return prose, blocks


def spans(line: str) -> list[str]:
    """What stands between backticks."""
    return [found[2].strip() for found in SPAN.finditer(line)]


def links(line: str) -> list[str]:
    """Where the links and pictures of a line point to."""
    return [next(filter(None, found.groups())) for found in LINK.finditer(SPAN.sub("code", line))]


def anchors(text: str) -> set[str]:
    """What may stand after # in a link to this text, as GitHub makes it of headings."""
    found: set[str] = set()
    for _, line in split(text)[0]:
        heading = re.match(r"#{1,6}\s+(.*?)\s*#*$", line)
        if heading:
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).lower()
            slug = base = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
            number = 0
            while slug in found:
                number += 1
                slug = f"{base}-{number}"
            found.add(slug)
    return found


def dead_links(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """The links of a file that lead nowhere inside the project, with what is wrong; others are not looked at."""
    for number, line in split(read(path))[0]:
        for target in links(line):
            if re.match(r"[a-z][a-z+.-]*:", target):
                continue
            name, _, anchor = target.partition("#")
            file = (path.parent / name).resolve() if name else path.resolve()
            if not file.exists():
                yield number, f"the link {target} leads nowhere"
            elif not file.is_relative_to(root.resolve()):
                yield number, f"the link {target} leads out of the project"
            elif anchor and file.is_file() and anchor not in anchors(read(file)):
                yield number, f"the link {target} leads to a heading that is not there"
