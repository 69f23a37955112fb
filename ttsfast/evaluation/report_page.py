"""The report's HTML: from plain values to one page. Every text from outside is escaped here.

The page asks nothing of the network and runs no script. Its own words are English, left to right; texts of
the corpus carry their language and find their own direction. Colours follow the reader's light or dark
setting, and no fact is told by colour alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote

from ttsfast.evaluation.targets import DEFINITIONS, Verdict, number
from ttsfast.pages.style import STYLE


@dataclass(frozen=True)
class Picture:
    """An image file beside the page."""

    file: str
    """Relative to the page."""
    width: int
    height: int
    alt: str
    caption: str


@dataclass(frozen=True)
class Sound:
    """A sound file beside the page."""

    file: str
    name: str


@dataclass(frozen=True)
class SampleView:
    """One utterance as the page shows it."""

    id: str
    text: str
    facts: Sequence[str]
    sounds: Sequence[Sound]
    pictures: Sequence[Picture]
    more: Sequence[Picture]
    """Folded away at first."""


def page(
    *,
    title: str,
    subtitle: str,
    language: str,
    held_out: bool,
    verdicts: Sequence[Verdict],
    samples: Sequence[SampleView],
    curves: Sequence[Picture],
    settings: Mapping[str, Mapping[str, str]],
    environment: Mapping[str, str],
) -> str:
    """The whole document.

    Args:
        title: of the page.
        subtitle: what was evaluated, in one line.
        language: of the corpus' texts, as in BCP 47.
        held_out: whether the utterances are ones that training never saw.
        verdicts: every figure, judged.
        samples: utterances to see and hear.
        curves: pictures of the training.
        settings: the configuration, section by section.
        environment: versions and machine.
    """
    parts = [_verdict(verdicts, held_out), _figures(verdicts)]
    if samples:
        parts.append(_section("samples", "Samples", "".join(_sample(s, language) for s in samples)))
    if curves:
        drawn = "".join(f'<div class="card">{_picture(p)}</div>' for p in curves)
        parts.append(_section("training", "Training", f'<div class="curves">{drawn}</div>'))
    if settings:
        drawn = "".join(
            f'<details class="card"><summary>{escape(name)}</summary>{_pairs(values)}</details>'
            for name, values in settings.items()
        )
        parts.append(_section("configuration", "Configuration", f'<div class="settings">{drawn}</div>'))
    if environment:
        parts.append(_section("machine", "Machine", f'<div class="card">{_pairs(environment)}</div>'))
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
{"".join(parts)}</main>
<footer>Written by ttsfast. The figures are in <a href="metrics.json">metrics.json</a>.</footer>
</body>
</html>
"""


def _section(name: str, heading: str, content: str) -> str:
    return f'<section aria-labelledby="{name}">\n<h2 id="{name}">{heading}</h2>\n{content}\n</section>\n'


def _verdict(verdicts: Sequence[Verdict], held_out: bool) -> str:
    judged = [v for v in verdicts if v.passed is not None]
    missed = [v for v in judged if not v.passed]
    if missed:
        what = f"{len(missed)} of {len(judged)} targets missed"
        rest = "; ".join(f"{escape(v.label)} is {number(v.value)}, wanted {escape(v.wanted)}" for v in missed)
    else:
        what = f"All {len(judged)} targets met"
        rest = f"on utterances that training {'never saw' if held_out else 'saw'}"
    tiles = "".join(_tile(v) for v in judged)
    return f"""<section aria-label="Verdict">
<div class="verdict card {"bad" if missed else "good"}">
<span class="mark" aria-hidden="true">{"✗" if missed else "✓"}</span>
<div><p class="what">{what}</p><p>{rest}</p></div>
</div>
<div class="tiles">{tiles}</div>
</section>
"""


def _tile(verdict: Verdict) -> str:
    gauge = ""
    if verdict.value is not None and verdict.target is not None:
        full = 1.0 if verdict.higher_is_better else 1.25 * max(verdict.value, verdict.target)
        fill, bound = (100.0 * min(1.0, x / full) for x in (verdict.value, verdict.target))
        gauge = f"""<div class="gauge" aria-hidden="true">
<div class="fill {"pass" if verdict.passed else "miss"}" style="width:{fill:.1f}%"></div>
<div class="bound" style="inset-inline-start:{bound:.1f}%"></div></div>"""
    state = "pass" if verdict.passed else "missed"
    return f"""<div class="card tile">
<h3>{escape(verdict.label)}</h3>
<div class="top"><span class="value figure">{number(verdict.value)}</span>
<span class="badge {"good" if verdict.passed else "bad"}">{state}</span></div>{gauge}
<div class="foot soft">target {escape(verdict.wanted)}</div>
</div>
"""


def _figures(verdicts: Sequence[Verdict]) -> str:
    labels = list(dict.fromkeys(label for v in verdicts for label in v.baselines))
    head = "".join(f'<th scope="col" class="number">{escape(x.replace("_", " "))}</th>' for x in labels)
    rows = "".join(_row(v, labels) for v in verdicts)
    meanings = "".join(
        f"<dt>{escape(v.label)}</dt><dd><code>{v.name}</code>; {escape(DEFINITIONS[v.name])}</dd>"
        for v in verdicts
    )
    content = f"""<div class="card scroll"><table>
<thead><tr><th scope="col">figure</th><th scope="col">better</th>
<th scope="col" class="number">this voice</th><th scope="col" class="number">target</th>{head}</tr></thead>
<tbody>{rows}</tbody></table></div>
<details class="card after"><summary>What the figures mean</summary><dl>{meanings}</dl></details>"""
    return _section("figures", "Figures, and what they are worth", content)


def _row(verdict: Verdict, labels: Sequence[str]) -> str:
    beside = (number(verdict.baselines[x]) if x in verdict.baselines else "" for x in labels)
    cells = (f"<strong>{number(verdict.value)}</strong>", escape(verdict.target_text), *beside)
    numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
    better = "higher" if verdict.higher_is_better else "lower"
    return f'<tr><th scope="row">{escape(verdict.label)}</th><td>{better}</td>{numbers}</tr>\n'


def _sample(sample: SampleView, language: str) -> str:
    players = "".join(
        f'<div><p>{escape(s.name)}</p><audio controls preload="metadata" src="{quote(s.file)}" '
        f'aria-label="{escape(s.name)}: {escape(sample.text)}"></audio></div>'
        for s in sample.sounds
    )
    facts = "".join(f"<span>{escape(fact)}</span>" for fact in sample.facts)
    pictures = "".join(_picture(p) for p in sample.pictures)
    more = "".join(_picture(p) for p in sample.more)
    if more:
        more = f"""<details class="after"><summary>Teacher-forced attention</summary>
<div class="pictures">{more}</div></details>
"""
    return f"""<article class="card sample">
<h3 class="soft"><bdi>{escape(sample.id)}</bdi></h3>
<p class="text" dir="auto" lang="{escape(language)}">{escape(sample.text)}</p>
<div class="facts">{facts}</div>
<div class="players">{players}</div>
<div class="pictures">{pictures}</div>
{more}</article>
"""


def _picture(picture: Picture) -> str:
    file = quote(picture.file)
    return (
        f'<figure><a href="{file}"><img src="{file}" width="{picture.width}" height="{picture.height}" '
        f'alt="{escape(picture.alt)}" loading="lazy"></a>'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def _pairs(values: Mapping[str, str]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="wrap"><bdi>{escape(value)}</bdi></td></tr>'
        for name, value in values.items()
    )
    return f'<table class="pairs"><tbody>{rows}</tbody></table>'
