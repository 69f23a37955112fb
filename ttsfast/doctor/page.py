"""The page of ``ttsfast doctor --output``: one file with its pictures and sounds inside, no script."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from ttsfast.data.checks.check import Subject
from ttsfast.data.checks.finding import ERROR, NOTE, SEVERITIES, WARNING, Evidence, Finding
from ttsfast.doctor.dataset import Examination
from ttsfast.doctor.pictures import distribution, utterance
from ttsfast.files import atomic_write
from ttsfast.pages.document import cards, document, folded, pairs, section, sentence
from ttsfast.progress import track

_HEARD = 3
"""Utterances of a finding with pictures and sound; a page of ten findings is then some megabytes."""
_LOOK = {ERROR: "bad", WARNING: "open", NOTE: "open"}
_HEADINGS = {ERROR: "Errors", WARNING: "Warnings", NOTE: "Notes"}
_MARKS = {ERROR: "✗", WARNING: "!", NOTE: "i"}


def write_page(path: Path, examination: Examination) -> None:
    """Write the page."""
    with atomic_write(path) as handle:
        handle.write(page(examination).encode())


def page(examination: Examination) -> str:
    """The whole document."""
    diagnosis, subject = examination.diagnosis, examination.subject
    parts = [_verdict(examination)]
    done = track(diagnosis.findings, "drawing findings", len(diagnosis.findings))
    articles: dict[str, list[str]] = {severity: [] for severity in SEVERITIES}
    for finding in done:
        articles[finding.severity].append(_finding(finding, subject))
    parts += [section(s, _HEADINGS[s], "".join(found)) for s, found in articles.items() if found]
    looked = {"looked at": diagnosis.looked_at, "checks that found nothing": ", ".join(diagnosis.passed)}
    if diagnosis.not_run:
        looked["not looked at"] = ", ".join(diagnosis.not_run)
    looked |= {"language": subject.language, "seconds": f"{diagnosis.seconds:.1f}"}
    parts.append(section("looked", "What was looked at", f'<div class="card">{pairs(looked)}</div>'))
    return document(
        title=diagnosis.subject,
        subtitle=f"What is wrong with this {diagnosis.kind}, and what mends it",
        body="".join(parts),
        footer="Written by ttsfast doctor.",
    )


def _verdict(examination: Examination) -> str:
    diagnosis = examination.diagnosis
    counts = diagnosis.counts
    worst = next((severity for severity in SEVERITIES if counts[severity]), None)
    look = "good" if worst in (None, NOTE) else _LOOK[worst]
    tiles = "".join(
        f'<div class="card tile"><h3>{_HEADINGS[severity]}</h3><div class="top">'
        f'<span class="value figure">{counts[severity]}</span></div></div>'
        for severity in SEVERITIES
    )
    mark = "✓" if look == "good" else _MARKS[worst or NOTE]
    return (
        f'<div class="verdict card {look}" role="status"><span class="mark" aria-hidden="true">{mark}</span>'
        f'<div><p class="what"><bdi>{escape(diagnosis.verdict)}</bdi></p>'
        f"<p>{escape(diagnosis.looked_at)}</p></div></div>\n"
        f'<div class="tiles">{tiles}</div>\n'
    )


def _finding(finding: Finding, subject: Subject) -> str:
    facts = "".join(f"<span>{escape(name)} {value:.4g}</span>" for name, value in finding.figures.items())
    table = ""
    texts = {row.id: row.text for row in subject.rows}
    if finding.evidence:
        rows = [(one.id, one.what, texts.get(one.id, "")) for one in finding.evidence]
        if more := len(finding.ids) - len(rows):
            rows.append((f"... and {more} more", "with --json", ""))
        table = cards(("utterance", "what was seen", "its text"), rows)
    look = _LOOK[finding.severity]
    return (
        f'<article class="card sample"><div class="top"><h3><bdi>{escape(finding.what)}</bdi></h3>'
        f'<span class="badge {look}">{finding.severity}</span></div>'
        f'<p class="soft">{escape(finding.check)}</p>'
        f"<p>{escape(finding.effect[:1].upper() + finding.effect[1:])}.</p>"
        f"<p><strong>What to do:</strong> {escape(finding.remedy)}.</p>"
        f'<p class="facts">{facts}</p>{table}'
        f'<div class="pictures after">{distribution(finding, subject)}</div>'
        f"{''.join(_heard(finding, subject))}</article>\n"
    )


def _heard(finding: Finding, subject: Subject) -> Iterator[str]:
    """The worst utterances that can be seen and heard."""
    rows = {row.id: row for row in subject.rows if row.audio and row.figures is not None}
    shown: list[Evidence] = [one for one in finding.evidence if one.id in rows][:_HEARD]
    for one in shown:
        row = rows[one.id]
        said = sentence(row.text, subject.language)
        yield folded(f"{one.id}: {one.what}", said + utterance(row, one.at, subject))
