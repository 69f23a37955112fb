"""The HTML of a comparison of runs. Every text from outside is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from ttsfast.evaluation.report_page import SampleView, player
from ttsfast.evaluation.targets import DEFINITIONS, label, number
from ttsfast.pages.document import document, picture, section, sentence, wide

_FIT = 3
"""Columns for which there is room on a phone."""


@dataclass(frozen=True)
class RunView:
    """One run as the page's tables show it."""

    name: str
    step: int
    """Of the checkpoint that was best."""
    last_step: int
    metrics: Mapping[str, Any]
    """Of ``metrics.json``; empty for a run that was not evaluated."""


@dataclass(frozen=True)
class ComparedSample:
    """One utterance in several voices."""

    recorded: SampleView
    """With its recording, where that was at hand."""
    spoken: Mapping[str, SampleView]
    """By the name of the run."""


def page(
    *,
    runs: Sequence[RunView],
    settings: Mapping[str, Sequence[str]],
    samples: Sequence[ComparedSample],
    curves: str,
) -> str:
    """The whole document.

    Args:
        runs: two at least.
        settings: those that are not the same in all runs, with each run's.
        samples: utterances in several of the voices.
        curves: of the training, as HTML; empty where there is no log.
    """
    parts = [
        section("runs", "Runs", _boxed(["run", "best step", "last step", "verdict"], _runs(runs), "runs")),
        section("settings", "Settings that differ", _settings(runs, settings)),
        section("figures", "Figures", _figures(runs)),
        section("samples", "Samples", _samples(samples)),
    ]
    if curves:
        parts.append(section("training", "Training", curves))
    return document(
        title=f"{len(runs)} runs compared",
        subtitle=", ".join(run.name for run in runs),
        body="".join(parts),
        footer="Written by ttsfast compare.",
    )


def _runs(runs: Sequence[RunView]) -> Iterable[tuple[str, Sequence[str]]]:
    for run in runs:
        verdict = run.metrics.get("verdict")
        yield run.name, [str(run.step), str(run.last_step), escape(str(verdict or "not evaluated"))]


def _settings(runs: Sequence[RunView], settings: Mapping[str, Sequence[str]]) -> str:
    if not settings:
        return "<p>None: all runs have the same settings.</p>"
    rows = ((key, [f"<bdi>{escape(value)}</bdi>" for value in values]) for key, values in settings.items())
    return _boxed(["setting", *(run.name for run in runs)], rows, "settings that differ")


def _figures(runs: Sequence[RunView]) -> str:
    measured = [run for run in runs if run.metrics]
    lines = [
        f"{run.name} was not evaluated: run ttsfast evaluate on it to see its figures and hear it."
        for run in runs
        if not run.metrics
    ]
    over = {frozenset(run.metrics.get("by_utterance", ())) for run in measured}
    if len(over) > 1:
        lines.append("The runs were not measured on the same utterances, so these figures do not compare.")
    notes = "".join(f"<p>{escape(line)}</p>" for line in lines)
    if not measured:
        return notes
    names = [name for name in DEFINITIONS if any(run.metrics.get(name) is not None for run in measured)]
    rows = [(label(name), [_figure(name, run.metrics) for run in measured]) for name in names]
    sizes = [f"{run.metrics.get('utterances', '–')}, {run.metrics.get('split', '–')}" for run in measured]
    rows.append(("utterances, split", [escape(size) for size in sizes]))
    return notes + _boxed(["figure", *(run.name for run in measured)], rows, "figures")


def _figure(name: str, metrics: Mapping[str, Any]) -> str:
    interval = metrics.get("intervals", {}).get(name)
    shown = f"<strong>{number(metrics.get(name))}</strong>"
    if interval:
        shown += f'<br><span class="soft">{number(interval[0])} to {number(interval[1])}</span>'
    return shown


def _samples(samples: Sequence[ComparedSample]) -> str:
    if not samples:
        return "<p>No utterance is in the reports of two of these runs; run ttsfast evaluate on each.</p>"
    return "".join(_sample(sample) for sample in samples)


def _sample(sample: ComparedSample) -> str:
    said = sample.recorded
    recorded = "".join(player(sound, said.text) for sound in said.sounds)
    runs = "".join(_run(name, view) for name, view in sample.spoken.items())
    return f"""<article class="card sample">
<h3 class="soft"><bdi>{escape(said.id)}</bdi></h3>
{sentence(said.text, said.language, said.spelt)}<div class="players">{recorded}</div>
<div class="beside">{runs}</div>
</article>
"""


def _run(name: str, view: SampleView) -> str:
    players = "".join(player(sound, f"{name}: {view.text}") for sound in view.sounds)
    facts = "".join(f"<span>{escape(fact)}</span>" for fact in view.facts)
    pictures = "".join(picture(each) for each in view.pictures)
    return (
        f'<div><h4><bdi>{escape(name)}</bdi></h4>{players}<div class="facts">{facts}</div>{pictures}</div>\n'
    )


def _boxed(heads: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], name: str) -> str:
    """A table of a row's name, which is escaped here, and its cells, which are HTML."""
    head = "".join(f'<th scope="col"><bdi>{escape(heading)}</bdi></th>' for heading in heads)
    body = "".join(
        f'<tr><th scope="row"><bdi>{escape(first)}</bdi></th>'
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "</tr>\n"
        for first, cells in rows
    )
    table = f'<table class="compared"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>'
    return f'<div class="card">{wide(table, name) if len(heads) > _FIT else table}</div>'
