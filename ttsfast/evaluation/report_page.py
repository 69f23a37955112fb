"""The report's HTML: from plain values to one page, whose one script sorts tables.

Every text from outside is escaped here. No fact is told by colour alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote

from ttsfast.evaluation.report_tables import SCRIPT
from ttsfast.evaluation.targets import DEFINITIONS, number
from ttsfast.evaluation.verdict import State, Verdict, overall
from ttsfast.pages.document import Picture, document, folded, pairs, picture, section, sentence, wide

LOOKS = {
    State.PASS: ("good", "✓"),
    State.MISSED: ("bad", "✗"),
    State.TOO_FEW: ("open", "?"),
    State.WORTHLESS: ("open", "○"),
    State.CANNOT_FAIL: ("open", "–"),
}
"""The class and the mark of each state."""


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
    """What a person wrote where that is known, else what the store holds of it."""
    language: str
    """Of the text, as in BCP 47."""
    spelt: str
    """The text's phonemes where they are not the text; else empty."""
    facts: Sequence[str]
    sounds: Sequence[Sound]
    pictures: Sequence[Picture]
    more: Sequence[Picture]
    """Folded away at first."""


def page(
    *,
    title: str,
    subtitle: str,
    note: str,
    held_out: bool,
    verdicts: Sequence[Verdict],
    samples: Sequence[SampleView],
    worst: Sequence[SampleView],
    words: str,
    speakers: str,
    utterances: str,
    curves: str,
    settings: Mapping[str, Mapping[str, str]],
    environment: Mapping[str, str],
) -> str:
    """The whole document.

    Args:
        title: of the page.
        subtitle: what was evaluated, in one line.
        note: what is missing of the texts; empty where nothing is.
        held_out: whether the utterances are ones that training never saw.
        verdicts: every figure, judged.
        samples: utterances to see and hear.
        worst: the worst of the others.
        words: what was heard, as HTML; empty where nothing listened.
        speakers: the figures of each speaker, as HTML; empty where there is only one.
        utterances: the table of all utterances, as HTML.
        curves: of the training, as HTML; empty where there is no log.
        settings: the configuration, section by section.
        environment: versions and machine.
    """
    remark = f'<p class="soft">{escape(note)}</p>' if note else ""
    parts = [_verdict(verdicts, held_out), _figures(verdicts)]
    if words:
        parts.append(section("words", "Words", words))
    if speakers:
        parts.append(section("speakers", "Speakers", speakers))
    if samples:
        parts.append(section("samples", "Samples", remark + "".join(map(_sample, samples))))
    if worst:
        drawn = "".join(map(_sample, worst))
        parts.append(section("worst", f"The worst {len(worst)} of the others", drawn))
    parts.append(section("utterances", "Every utterance", remark + utterances))
    if curves:
        parts.append(section("training", "Training", curves))
    if settings:
        drawn = "".join(folded(name, pairs(values)) for name, values in settings.items())
        parts.append(section("configuration", "Configuration", f'<div class="settings">{drawn}</div>'))
    if environment:
        facts = folded(f"{len(environment)} versions and facts", pairs(environment))
        parts.append(section("machine", "Machine", facts))
    return document(
        title=title,
        subtitle=subtitle,
        body="".join(parts),
        footer='Written by ttsfast. The figures are in <a href="metrics.json">metrics.json</a>.',
        script=SCRIPT,
    )


def _verdict(verdicts: Sequence[Verdict], held_out: bool) -> str:
    judged = [v for v in verdicts if v.state is not None]
    state = overall(verdicts)
    by_state = {state: [v for v in judged if v.state is state] for state in State}
    if state is State.MISSED:
        what = f"{len(by_state[state])} of {len(judged)} targets missed"
    elif state is State.TOO_FEW:
        what = "Too few utterances to tell"
    else:
        what = f"All {len(by_state[state])} targets that count are met"
    lines = [f"on utterances that training {'never saw' if held_out else 'saw'}"]
    lines += [
        f"{escape(v.label)} is {number(v.value)}, wanted {escape(v.wanted)}" for v in by_state[State.MISSED]
    ]
    for kind in (State.TOO_FEW, State.WORTHLESS, State.CANNOT_FAIL):
        lines += [f"{escape(v.label)} {_said(kind)}: {escape(v.reason)}" for v in by_state[kind]]
    tiles = "".join(_tile(v) for v in judged)
    look, mark = LOOKS[state]
    return f"""<section aria-label="Verdict">
<div class="verdict card {look}">
<span class="mark" aria-hidden="true">{mark}</span>
<div><p class="what">{what}</p>{"".join(f"<p>{line}</p>" for line in lines)}</div>
</div>
<div class="tiles">{tiles}</div>
</section>
"""


def _said(state: State) -> str:
    return "is not judged" if state is State.CANNOT_FAIL else state.value


def _tile(verdict: Verdict) -> str:
    assert verdict.state is not None
    look, _ = LOOKS[verdict.state]
    gauge = ""
    if verdict.value is not None and verdict.target is not None:
        full = 1.0 if verdict.higher_is_better else 1.25 * max(verdict.value, verdict.target)
        fill, bound = (100.0 * min(1.0, x / full) for x in (verdict.value, verdict.target))
        gauge = f"""<div class="gauge" aria-hidden="true">
<div class="fill {look}" style="width:{fill:.1f}%"></div>
<div class="bound" style="inset-inline-start:{bound:.1f}%"></div></div>"""
    return f"""<div class="card tile">
<h3>{escape(verdict.label)}</h3>
<div class="top"><span class="value figure">{number(verdict.value)}</span>
<span class="badge {look}">{verdict.state.value}</span></div>{gauge}
<div class="foot soft">target {escape(verdict.wanted)}; 95% {verdict.interval_text}</div>
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
    table = f"""<table>
<thead><tr><th scope="col">figure</th><th scope="col">better</th>
<th scope="col" class="number">this voice</th><th scope="col" class="number">95%</th>
<th scope="col" class="number">target</th><th scope="col">verdict</th>{head}</tr></thead>
<tbody>{rows}</tbody></table>"""
    meaning = folded("What the figures mean", f"<dl>{meanings}</dl>")
    return section(
        "figures",
        "Figures, and what they are worth",
        f'<div class="card">{wide(table, "figures")}</div>' + f'<div class="after">{meaning}</div>',
    )


def _row(verdict: Verdict, labels: Sequence[str]) -> str:
    beside = (number(verdict.baselines[x]) if x in verdict.baselines else "" for x in labels)
    own = (f"<strong>{number(verdict.value)}</strong>", verdict.interval_text, escape(verdict.target_text))
    ours, theirs = ("".join(f'<td class="number">{x}</td>' for x in cells) for cells in (own, beside))
    better = "higher" if verdict.higher_is_better else "lower"
    state = "" if verdict.state is None else verdict.state.value
    head = f'<th scope="row">{escape(verdict.label)}</th><td>{better}</td>'
    return f'<tr>{head}{ours}<td class="state">{state}</td>{theirs}</tr>\n'


def player(sound: Sound, text: str) -> str:
    """A sound to play, in which ``text`` is said."""
    name = escape(sound.name)
    return (
        f'<div><p>{name}</p><audio controls preload="metadata" src="{quote(sound.file)}" '
        f'aria-label="{name}: {escape(text)}"></audio></div>'
    )


def _sample(sample: SampleView) -> str:
    players = "".join(player(sound, sample.text) for sound in sample.sounds)
    facts = "".join(f"<span>{escape(fact)}</span>" for fact in sample.facts)
    pictures = "".join(picture(p) for p in sample.pictures)
    more = "".join(picture(p) for p in sample.more)
    if more:
        more = f"""<details class="after"><summary>Teacher-forced attention</summary>
<div class="pictures">{more}</div></details>
"""
    return f"""<article class="card sample">
<h3 class="soft"><bdi>{escape(sample.id)}</bdi></h3>
{sentence(sample.text, sample.language, sample.spelt)}<div class="facts">{facts}</div>
<div class="players">{players}</div>
<div class="pictures">{pictures}</div>
{more}</article>
"""
