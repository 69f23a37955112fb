"""All checks in one, in the order of cause and effect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ttsfast.data.checks import audio, durations, listing, loudness, persian, stored, texts
from ttsfast.data.checks.check import Check, Subject
from ttsfast.data.checks.finding import Finding, in_order
from ttsfast.errors import InputError, in_their_code

CHEAP: tuple[Check, ...] = (
    *listing.FIRST,
    *audio.CHECKS,
    *loudness.FIRST,
    *durations.CHECKS,
    *audio.LAST,
    *texts.CHECKS,
    *persian.CHECKS,
    *durations.LAST,
    *texts.LAST,
    *listing.CHECKS,
    *loudness.CHECKS,
)
"""Those that need nothing but texts, and what one reading of the recordings gives."""

ALL: tuple[Check, ...] = (*stored.CHECKS, *CHEAP)
"""Those, and what a store's features are looked at by."""


@dataclass(frozen=True)
class Checked:
    """What came of running checks."""

    findings: tuple[Finding, ...]
    """The worst first."""
    passed: tuple[str, ...]
    """Names of checks that found nothing."""
    not_run: tuple[str, ...]
    """Names of checks whose need was not at hand."""


def run_checks(subject: Subject, checks: Sequence[Check] = CHEAP) -> Checked:
    """Run every check whose need is at hand; raises InputError, naming it, where one of a user's own
    fails."""
    findings: list[Finding] = []
    passed, not_run = [], []
    for check in checks:
        if not _at_hand(check, subject):
            not_run.append(check.name)
            continue
        found = list(_found(check, subject))
        findings += found
        if not found:
            passed.append(check.name)
    return Checked(tuple(in_order(findings)), tuple(passed), tuple(not_run))


def _at_hand(check: Check, subject: Subject) -> bool:
    stored = subject.store is not None
    return {"texts": True, "audio": subject.read, "store": stored, "features": stored or subject.read}[
        check.needs
    ]


def _found(check: Check, subject: Subject) -> Iterator[Finding]:
    if type(check).__module__.startswith("ttsfast."):
        yield from check.find(subject)
        return
    try:
        yield from check.find(subject)
    except Exception as error:
        raise InputError(f"the check {check.name!r} failed: {in_their_code(error)}; mend it") from error
