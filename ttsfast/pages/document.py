"""What every page is made of: the document around it, sections, wide tables, pictures, things folded away.

A page asks nothing of the network. Its own words are English, left to right; texts of a corpus carry their
language and find their own direction. Every text that is given here is escaped here, but for ``content``,
``body`` and ``table``, which are HTML.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from urllib.parse import quote

from ttsfast.pages.style import STYLE


@dataclass(frozen=True)
class Picture:
    """An image of a page."""

    source: str
    """A file relative to the page, or the image itself as a ``data:`` address."""
    width: int
    height: int
    alt: str
    caption: str


def document(*, title: str, subtitle: str, body: str, footer: str, script: str = "") -> str:
    """The whole page; ``footer`` is HTML too."""
    run = f"<script>{script}</script>\n" if script else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="ttsfast">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1><bdi>{escape(title)}</bdi></h1>
<p class="soft">{escape(subtitle)}</p>
</header>
<main>
{body}</main>
{run}<footer>{footer}</footer>
</body>
</html>
"""


def section(name: str, heading: str, content: str) -> str:
    """A part of the page; ``name`` is its own, and a name in HTML."""
    return (
        f'<section aria-labelledby="{name}">\n<h2 id="{name}">{escape(heading)}</h2>\n{content}\n</section>\n'
    )


def folded(summary: str, content: str) -> str:
    """What is seen only after a click on its summary."""
    return f'<details class="card"><summary>{escape(summary)}</summary>{content}</details>\n'


def wide(table: str, name: str, kind: str = "") -> str:
    """A table in a box that it scrolls in, which says so on screens too narrow for it.

    Args:
        table: the whole table.
        name: what it shows.
        kind: more classes of the box.
    """
    return (
        f'<div class="wide"><p class="hint">Slide the table sideways to see all of its columns.</p>'
        f'<div class="scroll {kind}" tabindex="0" role="region" aria-label="{escape(name)}">'
        f"{table}</div></div>"
    )


def pairs(values: Mapping[str, str]) -> str:
    """A table of names and values."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td><bdi>{escape(value)}</bdi></td></tr>'
        for name, value in values.items()
    )
    return f'<table class="pairs"><tbody>{rows}</tbody></table>'


def cards(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of words, which becomes a card for each row on a narrow screen."""
    names = [escape(column) for column in columns]
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td data-label="{name}"><bdi>{escape(text)}</bdi></td>'
            for name, text in zip(names, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="card"><table class="cards"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def sentence(text: str, language: str, spelt: str = "") -> str:
    """A text of the corpus with its phonemes, where there are any, beneath; ``language`` as in BCP 47."""
    language = escape(language)
    shown = f'<p class="text" dir="auto" lang="{language}">{escape(text)}</p>\n'
    if spelt:
        shown += f'<p class="spelt" dir="auto" lang="{language}-fonipa">{escape(spelt)}</p>\n'
    return shown


def picture(shown: Picture) -> str:
    """An image with its caption; one in a file opens by itself when it is clicked."""
    inside = shown.source.startswith("data:")
    source = shown.source if inside else quote(shown.source)
    image = (
        f'<img src="{source}" width="{shown.width}" height="{shown.height}" alt="{escape(shown.alt)}" '
        'loading="lazy">'
    )
    if not inside:
        image = f'<a href="{source}">{image}</a>'
    return f"<figure>{image}<figcaption>{escape(shown.caption)}</figcaption></figure>"
