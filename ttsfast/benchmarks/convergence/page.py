"""A record as a page: times, curves, one sentence on the way, and for an ablation what each change does."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttsfast.benchmarks import machine
from ttsfast.benchmarks.convergence import boundaries
from ttsfast.benchmarks.convergence.ablation import GOALS, Effect, effects
from ttsfast.benchmarks.convergence.pictures import chart, curve
from ttsfast.benchmarks.convergence.tables import both, cell, columns_of
from ttsfast.evaluation.report_page import Sound, player
from ttsfast.evaluation.targets import DEFINITIONS, label
from ttsfast.files import atomic_write
from ttsfast.pages.document import Picture, document, picture, section, sentence, wide
from ttsfast.pages.plots import size, svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "convergence.html"
CURVES = (
    "diagonal_mass",
    "coverage",
    boundaries.FIGURE,
    "mel_l1",
    "mcd_dtw_sl",
    "duration_error",
    "stop_rate",
    "word_error",
)
DEFINED = DEFINITIONS | {boundaries.FIGURE: boundaries.DEFINITION}
CHARTED = ("mcd_dtw_sl", "mel_l1")


def write_page(folder: Path, record: Mapping[str, Any]) -> Path:
    """``convergence.html`` in ``folder``; all but its sounds and strips is inside it. Returns its path."""
    with atomic_write(folder / NAME) as handle:
        handle.write(_page(record).encode())
    return folder / NAME


def _page(record: Mapping[str, Any]) -> str:
    runs, corpus = record["runs"], record["corpus"]
    found = effects(runs)
    parts = [section("times", "Times", _times(record))] if not found else []
    parts += [
        section(f"changes-{place}", f"Single changes to {base}", _changes(base, found))
        for place, base in enumerate(dict.fromkeys(effect.base for effect in found))
    ]
    if not found:
        parts.append(section("curves", "On the way", _curves(runs)))
    if spoken := record.get("samples"):
        parts.append(section("samples", "One sentence on the way", _samples(spoken)))
    held_out = record["held_out"]
    return document(
        title=f"Convergence on {corpus['name']}",
        subtitle=(
            f"{corpus['minutes']:.0f} minutes to learn from, {record['minutes']:g} minutes a run, "
            f"seeds: {record['seeds']}, measured on {len(held_out['utterances'])} utterances of the "
            f"{held_out['split']} split"
        ),
        body="".join(parts),
        footer=f"Written by ttsfast bench convergence. {escape(machine.summary(record['machine']))}.",
    )


def _times(record: Mapping[str, Any]) -> str:
    runs, goals = record["runs"], list(record["comparisons"])
    names = list(dict.fromkeys(run["recipe"] for run in runs))
    rows = [(name, [cell(runs, name, goal, "seconds") for goal in goals]) for name in names]
    note = "<p>Seconds of training: median (least to most); &gt; where a run was cut off before it.</p>"
    return note + _table(["recipe", *goals], rows, "times to each goal") + _claims(record["comparisons"])


def _claims(comparisons: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> str:
    """How many times sooner, for every two recipes of which one is so by more than chance."""
    found = {goal: axes["seconds"] for goal, axes in comparisons.items()}
    claimed = {
        (goal, one["sooner"], one["later"]): one
        for goal, pairs in found.items()
        for one in pairs
        if one["claim"]
    }
    if not claimed:
        compared = any(found.values())
        return "<p>No difference that chance would not make in 1 of 20 tries.</p>" if compared else ""

    def shown(goal: str, sooner: str, later: str) -> str:
        one = claimed.get((goal, sooner, later))
        return "" if one is None else f"{'≥ ' if one['at_least'] else ''}{one['ratio']:.2f}"

    pairs = list(dict.fromkeys(key[1:] for key in claimed))
    rows = [
        (f"{sooner} than {later}", [shown(goal, sooner, later) for goal in found]) for sooner, later in pairs
    ]
    most = max(one["p"] for one in claimed.values())
    note = (
        "<p>So many times sooner, where chance would hardly do it (exact permutation test of the logarithms, "
        f"p at most {most:.3f}); &ge; where the later one was cut off.</p>"
    )
    return note + _table(["sooner", *found], rows, "how many times sooner")


def _curves(runs: Sequence[Mapping[str, Any]]) -> str:
    shown = [name for name in CURVES if any(name in row for run in runs for row in run["rows"])]
    figures = "".join(_shown(curve(runs, name), label(name), DEFINED[name]) for name in shown)
    return f'<div class="pictures">{figures}</div>'


def _samples(spoken: Mapping[str, Any]) -> str:
    """The sentence, and a card for each recipe."""
    cards = "".join(_sample(name, of, spoken["text"]) for name, of in spoken["recipes"].items())
    return f"""{sentence(spoken["text"], spoken["language"])}
<p class="soft"><bdi>{escape(spoken["id"])}</bdi>, held out; the first seed of each recipe, free-running,
through Griffin-Lim.</p>
{cards}"""


def _sample(recipe: str, of: Mapping[str, Any], text: str) -> str:
    players = "".join(
        player(Sound(moment["sound"], f"{moment['name']} (step {moment['step']:,})"), f"{recipe}: {text}")
        for moment in of["moments"]
    )
    pictures = ""
    if "strip" in of:
        alt = f"Alignment of {recipe} on the way"
        file, width, height = of["strip"]
        pictures = picture(
            Picture(file, width, height, alt, "Alignment, teacher-forced, at the same moments")
        )
    return f"""<article class="card sample">
<h3>{escape(recipe)}</h3>
<div class="players">{players}</div>
{pictures}</article>
"""


def _changes(base: str, found: Sequence[Effect]) -> str:
    own = [effect for effect in found if effect.base == base]
    columns = columns_of(own)
    heads = [f"seconds to {name}" if name in GOALS else label(name) for name in columns]
    rows = [(effect.change, [both(effect, name) for name in columns]) for effect in own]
    charts = "".join(
        _shown(chart(own, name), name, f"How long until the goal: {name}. An arrow: cut off before it.")
        for name in columns
        if name in GOALS and not any(e.times[name][0].lower_bound for e in own if name in e.times)
    )
    charts += "".join(
        _shown(chart(own, name), label(name), f"At the end of the runs. {DEFINED[name]}")
        for name in CHARTED
        if name in columns
    )
    return f'<div class="pictures">{charts}</div>' + _table(
        ["change", *heads], rows, f"single changes to {base}"
    )


def _table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], name: str) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(first).replace("_", "_<wbr>")}</th>'
        + "".join(f"<td>{escape(text)}</td>" for text in cells)
        + "</tr>\n"
        for first, cells in rows
    )
    table = f'<table class="compared"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>'
    return f'<div class="card">{wide(table, name)}</div>'


def _shown(figure: Figure, alt: str, caption: str) -> str:
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg(figure)).decode()}"
    return picture(Picture(source, *size(figure), alt, caption))
