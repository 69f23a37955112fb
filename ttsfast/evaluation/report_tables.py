"""The report's long tables, which a small script in the page sorts by the column that is clicked.

Without the script they are whole, in the order in which they were written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from ttsfast.evaluation.figures import Figures
from ttsfast.evaluation.result import Evaluation, Measured
from ttsfast.evaluation.spoken import WORST_BY
from ttsfast.evaluation.targets import DEFINITIONS, SHARES_OF_UTTERANCES, label, number
from ttsfast.pages.document import wide

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const rising = head.getAttribute("aria-sort") !== "ascending", sign = rising ? 1 : -1;
    const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const compare = (a, b) => (a === "") - (b === "") || sign * ((a - b) || a.localeCompare(b));
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
  }));
}
"""
"""Sorts the rows of a table of class ``sortable``; cells without a value come last either way."""


def utterance_table(evaluation: Evaluation) -> str:
    """Every utterance with its figures, the worst first."""
    rows, figures = evaluation.measured, evaluation.figures
    frame_seconds = evaluation.contract.hop_length / evaluation.contract.sample_rate
    worst = figures.terms(WORST_BY)
    order = sorted(rows, key=lambda row: -worst[row.id].value if row.id in worst else 0.0)
    speakers = ["speaker"] if any(row.speaker for row in rows) else []
    names = _shown(figures)
    body = []
    for row in order:
        own = figures.of(row.id)
        cells = [f'<th scope="row"><bdi>{escape(row.id)}</bdi></th>']
        cells += [f"<td><bdi>{escape(row.speaker)}</bdi></td>" for _ in speakers]
        text, language = evaluation.sentence(row.id, row.text)
        cells.append(f'<td class="text" dir="auto" lang="{escape(language)}">{escape(text)}</td>')
        for frames in (row.recorded_frames, row.spoken_frames):
            cells.append(_number(frames * frame_seconds, f"{frames * frame_seconds:.2f}"))
        cells += [_figure(name, own.get(name)) for name in names]
        body.append(cells)
    heads = ["utterance", *speakers, "text", "recorded, s", "spoken, s", *map(label, names)]
    return _table("utterances", heads, body, len(speakers) + 2)


def speaker_table(by_speaker: Mapping[str, Figures], rows: Sequence[Measured]) -> str:
    """The figures of each speaker's utterances."""
    names = [n for n in DEFINITIONS if any(n in figures for figures in by_speaker.values())]
    body = []
    for speaker, figures in by_speaker.items():
        count = sum(row.speaker == speaker for row in rows)
        cells = [f'<th scope="row"><bdi>{escape(speaker)}</bdi></th>', _number(count, str(count))]
        body.append(cells + [_number(figures.get(n), number(figures.get(n))) for n in names])
    return _table("speakers", ["speaker", "utterances", *map(label, names)], body, 1)


def _shown(figures: Figures) -> list[str]:
    """Two figures of one error, in different units, would order the utterances alike."""
    return [name for name in DEFINITIONS if name in figures and name != "mel_l1_log"]


def _figure(name: str, value: float | None) -> str:
    if name in SHARES_OF_UTTERANCES and value is not None:
        return _number(value, "yes" if value else "no")
    return _number(value, number(value))


def _number(value: float | None, shown: str) -> str:
    return f'<td class="number" data-value="{"" if value is None else format(value, "g")}">{shown}</td>'


def _table(name: str, heads: Sequence[str], body: Iterable[Sequence[str]], words: int) -> str:
    """``words``: how many of the first columns hold words and not numbers."""
    head = "".join(
        f'<th scope="col" class="{"words" if place < words else "number"}">'
        f'<button type="button">{escape(heading)}</button></th>'
        for place, heading in enumerate(heads)
    )
    rows = "".join(f"<tr>{''.join(cells)}</tr>\n" for cells in body)
    table = (
        f'<table class="sortable {name}">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table>'
    )
    return f'<div class="card">{wide(table, name, "long")}</div>'
