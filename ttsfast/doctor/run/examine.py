"""Is a run on its way: all checks of its log."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ttsfast.data.checks.finding import Finding, in_order
from ttsfast.doctor.diagnosis import Diagnosis
from ttsfast.doctor.run import alignment, durations, ending, held_out, loss, pace, rate, terms, updates
from ttsfast.doctor.run.reading import read_run
from ttsfast.doctor.run.subject import Run, RunCheck

ALL: tuple[RunCheck, ...] = (
    *rate.CHECKS,
    *updates.CHECKS,
    *loss.CAUSES,
    *terms.FIRST,
    *held_out.FIRST,
    *pace.CHECKS,
    *terms.CHECKS,
    *loss.CHECKS,
    *durations.CHECKS,
    *alignment.CHECKS,
    *held_out.CHECKS,
    *ending.CHECKS,
)
"""In the order of cause and effect."""


@dataclass(frozen=True)
class RunExamination:
    """What was found, and what it was found in."""

    diagnosis: Diagnosis
    run: Run
    notes: tuple[str, ...]
    """Lines on what was taken for what, and what was not at hand."""


def examine_run(
    place: Path | str, *, store: Path | None = None, names: Mapping[str, str] | None = None
) -> RunExamination:
    """Look at a run; the arguments and errors are those of :func:`ttsfast.doctor.run.reading.read_run`."""
    started = time.monotonic()
    found = read_run(Path(place), store=store, names=names)
    findings, passed, not_run = run_checks(found.run)
    diagnosis = Diagnosis(
        subject=str(place),
        kind="run",
        looked_at=found.how,
        findings=findings,
        passed=passed,
        not_run=not_run,
        seconds=time.monotonic() - started,
    )
    return RunExamination(diagnosis, found.run, found.without)


def run_checks(run: Run) -> tuple[list[Finding], list[str], list[str]]:
    """What all checks find, the worst first, and the names of those that found nothing, or had not what they
    need."""
    findings: list[Finding] = []
    passed, not_run = [], []
    for check in ALL:
        if not check.at_hand(run):
            not_run.append(check.name)
            continue
        found = list(check.find(run))
        findings += found
        if not found:
            passed.append(check.name)
    return in_order(findings), passed, not_run
