"""What a check finds: how bad it is, where, what it does to training, and what mends it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SEVERITIES = ERROR, WARNING, NOTE = ("error", "warning", "note")
"""What ruins a voice or keeps it from being trained; what costs quality or time; what one should know."""
WORST = 10
"""Utterances that a finding shows, the worst first; their count is of all."""


@dataclass(frozen=True)
class Evidence:
    """One utterance, or line, that a finding rests on."""

    id: str
    what: str
    """What was seen there, with its number."""
    at: float | None = None
    """Where in the recording, in seconds."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, in one corpus, store, model or run."""

    check: str
    severity: str
    what: str
    """One line."""
    effect: str
    """What it does to training, or to the voice."""
    remedy: str
    """The command or the edit that mends it."""
    ids: tuple[str, ...] = ()
    """All that it concerns, the worst first; empty where it is the whole."""
    evidence: tuple[Evidence, ...] = ()
    """The worst of them, at most :data:`WORST`."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """The numbers it was decided by, thresholds among them."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        return {
            "check": self.check,
            "severity": self.severity,
            "what": self.what,
            "effect": self.effect,
            "remedy": self.remedy,
            "count": len(self.ids),
            "ids": list(self.ids),
            "evidence": [vars(one) for one in self.evidence],
            "figures": dict(self.figures),
        }


class Finder:
    """Something to look for, in whatever it is."""

    name: str
    effect: str = ""
    """What it does to training, where findings do not say it themselves."""
    remedy: str = ""
    """What mends it, likewise."""

    def finding(
        self,
        severity: str,
        what: str,
        evidence: Iterable[Evidence] = (),
        *,
        effect: str = "",
        remedy: str = "",
        **figures: float,
    ) -> Finding:
        """One finding; ``evidence`` is of all that it concerns, the worst first."""
        concerned = list(evidence)
        return Finding(
            check=self.name,
            severity=severity,
            what=what,
            effect=effect or self.effect,
            remedy=remedy or self.remedy,
            ids=tuple(dict.fromkeys(one.id for one in concerned)),
            evidence=tuple(concerned[:WORST]),
            figures={name: float(value) for name, value in figures.items()},
        )


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """The worst first; of one severity as they are, for checks stand in the order of cause and effect."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def in_lines(findings: Sequence[Finding], most: int = 3) -> list[str]:
    """What a command ends with: so many lines, the worst first, notes left out."""
    said = [finding for finding in in_order(findings) if finding.severity != NOTE]
    shown = said if len(said) <= most else said[: most - 1]
    lines = [f"{finding.severity}: {finding.what}: {finding.remedy}" for finding in shown]
    if more := len(said) - len(shown):
        counts = ", ".join(
            f"{count} {severity}{'s' if count > 1 else ''}"
            for severity in SEVERITIES
            if (count := sum(finding.severity == severity for finding in said[len(shown) :]))
        )
        lines.append(f"and {more} more ({counts}): `ttsfast doctor` shows all, with evidence")
    return lines
