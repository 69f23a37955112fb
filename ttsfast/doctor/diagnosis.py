"""What the doctor says, as a table and as plain values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ttsfast.data.checks.finding import ERROR, SEVERITIES, Finding, in_order

if TYPE_CHECKING:
    from rich.console import Group

SCHEMA = 1
"""Of ``--json``: rises when a name in it goes or changes its meaning, not when one is added."""
_ADVICE = {
    "corpus": ("do not train on this yet", "usable"),
    "store": ("do not train on this yet", "usable"),
    "model": ("do not train this yet", "usable"),
    "run": ("this run is not on its way", "on its way"),
}
"""By kind, what to think of it where there are errors, and where there are warnings."""
_SHOWN = 3
"""Utterances of a finding in the terminal."""


@dataclass(frozen=True)
class Diagnosis:
    """What was looked at, and what was found."""

    subject: str
    """Path of the corpus, store or run, or the name of the model."""
    kind: str
    """"corpus", "store", "model" or "run"."""
    looked_at: str
    """How much of it, in a line."""
    findings: Sequence[Finding]
    """The worst first."""
    passed: Sequence[str]
    """Names of checks that found nothing."""
    not_run: Sequence[str]
    """Names of checks whose need was not at hand."""
    seconds: float

    @property
    def counts(self) -> dict[str, int]:
        """Findings by severity, all of :data:`SEVERITIES`."""
        counts = Counter(finding.severity for finding in self.findings)
        return {severity: counts[severity] for severity in SEVERITIES}

    @property
    def exit_code(self) -> int:
        """0 where no finding is an error, else 1."""
        return 1 if self.counts[ERROR] else 0

    @property
    def verdict(self) -> str:
        """One line: what to think of it."""
        errors, warnings, notes = self.counts.values()
        if errors:
            first = in_order(self.findings)[0]
            more = f", and {errors - 1} more error{'s' if errors > 2 else ''}" if errors > 1 else ""
            return f"{_ADVICE[self.kind][0]}: {first.what}{more}"
        if warnings:
            return f"{_ADVICE[self.kind][1]}, with {warnings} warning{'s' if warnings > 1 else ''}"
        if len(self.not_run) > len(self.passed):
            ran = len(self.passed)
            return f"nothing was found, but only {ran} of {ran + len(self.not_run)} checks could look"
        return "sound" + (f", with {notes} note{'s' if notes > 1 else ''}" if notes else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        return {
            "schema": SCHEMA,
            "subject": self.subject,
            "kind": self.kind,
            "looked_at": self.looked_at,
            "verdict": self.verdict,
            "counts": self.counts,
            "findings": [finding.to_dict() for finding in self.findings],
            "passed": list(self.passed),
            "not_run": list(self.not_run),
            "seconds": round(self.seconds, 2),
        }

    def table(self) -> Group:
        """What it goes by, for a terminal."""
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table

        grid = Table(show_lines=True)
        for column in ("", "what was found", "the worst", "what to do"):
            grid.add_column(column)
        colours = {"error": "red", "warning": "yellow", "note": "blue"}
        for finding in self.findings:
            named = "\n".join(f"{one.id}: {one.what}" for one in finding.evidence[:_SHOWN])
            if more := len(finding.ids) - _SHOWN:
                named += f"\n... and {more} more" if more > 0 else ""
            grid.add_row(
                f"[{colours[finding.severity]}]{finding.severity}[/]",
                f"{escape(finding.what)}\n[dim]{escape(finding.effect)}[/]",
                escape(named),
                escape(finding.remedy),
            )
        skipped = f"; not at hand for: {', '.join(self.not_run)}" if self.not_run else ""
        last = f"{self.looked_at}; {len(self.passed)} checks found nothing{skipped} ({self.seconds:.1f} s)"
        return Group(*([grid] if self.findings else []), escape(last))
