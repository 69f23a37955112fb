"""The page of ``ttsfast doctor --output``: one file with its pictures and sounds inside, no script."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Protocol

from ttsfast.data.checks.finding import ERROR, NOTE, SEVERITIES, WARNING, Finding
from ttsfast.doctor.diagnosis import Diagnosis
from ttsfast.files import atomic_write
from ttsfast.pages.document import cards, document, pairs, section
from ttsfast.progress import track

_LOOK = {ERROR: "bad", WARNING: "open", NOTE: "open"}
_HEADINGS = {ERROR: "Errors", WARNING: "Warnings", NOTE: "Notes"}
_MARKS = {ERROR: "✗", WARNING: "!", NOTE: "i"}


class Illustrate(Protocol):
    """What a page shows of the subject."""

    about: Mapping[str, str]
    """Facts of the subject by name."""

    def __call__(self, finding: Finding) -> str:
        """The evidence of a finding in HTML: a table, pictures, sounds."""


class Tables:
    """Evidence as tables, of a subject that has nothing to show."""

    about: Mapping[str, str] = {}

    def __call__(self, finding: Finding) -> str:
        """See :class:`Illustrate`."""
        return evidence_table(finding, ("where", "what was seen"))


def write_page(path: Path, diagnosis: Diagnosis, illustrate: Illustrate | None = None) -> None:
    """Write the page; ``illustrate`` is :class:`Tables` when None."""
    with atomic_write(path) as handle:
        handle.write(page(diagnosis, illustrate or Tables()).encode())


def page(diagnosis: Diagnosis, illustrate: Illustrate) -> str:
    """The whole document."""
    parts = [_verdict(diagnosis)]
    articles: dict[str, list[str]] = {severity: [] for severity in SEVERITIES}
    if diagnosis.findings:
        for finding in track(diagnosis.findings, "drawing findings", len(diagnosis.findings)):
            articles[finding.severity].append(_finding(finding, illustrate))
    parts += [section(s, _HEADINGS[s], "".join(found)) for s, found in articles.items() if found]
    looked = {"looked at": diagnosis.looked_at, "checks that found nothing": ", ".join(diagnosis.passed)}
    if diagnosis.not_run:
        looked["not looked at"] = ", ".join(diagnosis.not_run)
    looked |= {**illustrate.about, "seconds": f"{diagnosis.seconds:.1f}"}
    parts.append(section("looked", "What was looked at", f'<div class="card">{pairs(looked)}</div>'))
    return document(
        title=diagnosis.subject,
        subtitle=f"What is wrong with this {diagnosis.kind}, and what mends it"
        if diagnosis.findings
        else f"What was looked for in this {diagnosis.kind}",
        body="".join(parts),
        footer="Written by ttsfast doctor.",
    )


def evidence_table(finding: Finding, columns: tuple[str, ...], texts: Mapping[str, str] | None = None) -> str:
    """The worst of a finding in a table, with a text of each where there are ``texts``; empty without any."""
    if not finding.evidence:
        return ""
    rows = [(one.id, one.what, (texts or {}).get(one.id, "")) for one in finding.evidence]
    if more := len(finding.ids) - len(rows):
        rows.append((f"... and {more} more", "with --json", ""))
    return cards(columns, [row[: len(columns)] for row in rows])


def _verdict(diagnosis: Diagnosis) -> str:
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


def _finding(finding: Finding, illustrate: Illustrate) -> str:
    facts = "".join(f"<span>{escape(name)} {value:.4g}</span>" for name, value in finding.figures.items())
    facts = f'<p class="facts">{facts}</p>' if facts else ""
    look = _LOOK[finding.severity]
    return (
        f'<article class="card sample"><div class="top"><h3><bdi>{escape(finding.what)}</bdi></h3>'
        f'<span class="badge {look}">{finding.severity}</span></div>'
        f'<p class="soft">{escape(finding.check)}</p>'
        f"<p>{escape(finding.effect[:1].upper() + finding.effect[1:])}.</p>"
        f"<p><strong>What to do:</strong> {escape(finding.remedy)}.</p>"
        f"{facts}{illustrate(finding)}</article>\n"
    )
