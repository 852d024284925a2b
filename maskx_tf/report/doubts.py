"""An HTML page of made masks, the most doubtful first. It is self-contained and loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from maskx_tf.report.page import frame


class Doubt(NamedTuple):
    """A mask that a person should look at.

    Attributes:
        name: the name of its class.
        where: its image and annotation.
        quality: 0..1.
        flagged: whether its quality is low.
        picture: a JPEG as a data URI; empty where the image cannot be read.
    """

    name: str
    where: str
    quality: float
    flagged: bool
    picture: str


def page(title: str, doubts: Sequence[Doubt]) -> str:
    """The page.

    Args:
        title: its heading.
        doubts: the doubts in the order in which they are shown.
    """
    flagged = sum(one.flagged for one in doubts)
    about = f"{len(doubts)} masks, the most doubtful first; {flagged} of them are flagged with needs_review."
    figures = "".join(map(_figure, doubts))
    return frame(title, f'<h1>{escape(title)}</h1><p>{about}</p><div class="doubts">{figures}</div>')


def _figure(one: Doubt) -> str:
    picture = f'<img loading="lazy" alt="{escape(one.name)}" src="{one.picture}">' if one.picture else "<p>no image</p>"
    kind = "flagged" if one.flagged else ""
    caption = f"{escape(one.name)}, quality {one.quality:.2f}<br>{escape(one.where)}"
    return f'<figure class="{kind}">{picture}<figcaption>{caption}</figcaption></figure>'
