"""A strict reader of HTML, for the tests of the report."""

from __future__ import annotations

from html.parser import HTMLParser

ALONE = {"meta", "link", "img"}


class Page(HTMLParser):
    """What a page holds; fails where tags are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        if tag not in ALONE:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attributes]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data.split()
