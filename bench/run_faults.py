"""Faults of a run beyond the tests: every fault in every clean log, and the smallest dose that is found.

    python bench/run_faults.py --output bench/results/run-faults.json

Thresholds were chosen on the first half of the clean logs, and are reported on both; those of models of
durations on two of their three. Found is a new finding of the check and severity that the fault's row in
``tests/faults`` says; first, where that check comes before all other new ones. A fault is not tried where
the clean log has its finding already, or too little for its check (validations, say). A false alarm is an
error in a clean log, or a warning that is not explained there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch

from ttsfast.benchmarks.machine import describe
from ttsfast.benchmarks.records import write_record
from ttsfast.doctor.run.examine import run_checks

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "faults"))
import duration_faults
from recorded_runs import CLEAN, PARALLEL, Log, recorded
from run_faults import RUN_FAULTS, RunFault

PLANTED = (duration_faults,)

DRAWS = 5
BROKEN = ("high", "five", "low", "warm", "half")
"""Logs of runs that went wrong, not planted ones."""
SEEN = (
    "no thresholds were chosen on these logs, but they are not wholly unseen: "
    "some were touched after one miss"
)
Rows = dict[str, Any]


def _findings(log: Log) -> list[tuple[str, str]]:
    return [(f.check, f.severity) for f in run_checks(log.run)[0]]


def _triable(fault: RunFault, log: Log) -> bool:
    findings, _, not_run = run_checks(log.run)
    told = {(finding.check, finding.severity) for finding in findings}
    return fault.check not in not_run and (fault.check, fault.severity) not in told


def _told(name: str) -> list[str]:
    return [f"{severity}: {check}" for check, severity in _findings(recorded(name))]


def half(names: Sequence[str]) -> dict[str, Any]:
    """Recall and exact cause in these logs, by fault."""
    tried = found = first = 0
    by_fault: dict[str, Any] = {}
    kind = "durations" if names[0] in PARALLEL else "attention"
    for fault in RUN_FAULTS:
        missed: list[str] = []
        after: list[str] = []
        tried_on = [name for name in names if fault.only in ("", kind) and _triable(fault, recorded(name))]
        for name in tried_on:
            before = _findings(recorded(name))
            for draw in range(DRAWS):
                new = _findings(fault.plant(recorded(name), Random(f"{fault.name} {draw}")))
                new = [one for one in new if one not in before]
                if (fault.check, fault.severity) not in new:
                    missed.append(f"{name}: {new[:1]}")
                elif new[0][0] != fault.check:
                    after.append(f"{name}: {new[0][0]}")
        count = DRAWS * len(tried_on)
        tried, found = tried + count, found + count - len(missed)
        first += count - len(missed) - len(after)
        if missed or after:
            by_fault[fault.name] = {
                "check": fault.check,
                "tried": count,
                "missed": _counts(missed),
                "after": _counts(after),
            }
    clean = {name: _told(name) for name in names}
    return {"clean": clean, "tried": tried, "found": found, "first": first, "not_all": by_fault}


def _counts(what: list[str]) -> dict[str, int]:
    return {one: what.count(one) for one in dict.fromkeys(what)}


@dataclass(frozen=True)
class Dose:
    """A fault that comes in doses, the smallest first."""

    check: str
    unit: str
    doses: Sequence[float]
    plant: Callable[[Log, float, Random], Log]


def _scaled(row: Rows, factor: float, *names: str) -> Rows:
    return {name: row[name] * factor for name in names if name in row}


def _later(change: Callable[[Rows, float], Rows]) -> Callable[[Log, float, Random], Log]:
    """A change of the lines of training after a step in the midst of the run."""

    def plant(log: Log, dose: float, random: Random) -> Log:
        since = random.uniform(0.3, 0.7) * log.last
        return log.training(lambda row: change(row, dose) if row["step"] > since else None)

    return plant


def _all(change: Callable[[Rows, float], Rows]) -> Callable[[Log, float, Random], Log]:
    return lambda log, dose, random: log.training(lambda row: change(row, dose))


def _spiky(log: Log, share: float, random: Random) -> Log:
    return log.training(lambda row: {"spikes": int(share * row["step"] * random.uniform(1.0, 1.1))})


def _worse(log: Log, most: float, random: Random) -> Log:
    """Held-out speech, from its best on."""
    since = random.uniform(0.3, 0.5) * log.last
    best = min(r["mel_l1"] for r in log.rows if r["kind"] == "validation" and r["step"] <= since)
    return log.held_out(
        lambda row: (
            {"mel_l1": best * (1 + most * (row["step"] - since) / (log.last - since))}
            if row["step"] > since
            else None
        )
    )


LOSSES = ("total", "mel", "excess_mel")
DOSES = {
    "a rate that is so much lower than the schedule's": Dose(
        "schedule",
        "of the rate",
        (0.005, 0.01, 0.02, 0.05, 0.1),
        _later(lambda row, dose: _scaled(row, 1 - dose, "learning_rate")),
    ),
    "a loss that is suddenly higher": Dose(
        "leap",
        "of the loss",
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0),
        _later(lambda row, dose: _scaled(row, 1 + dose, *LOSSES)),
    ),
    "spikes": Dose("spikes", "of the steps", (0.001, 0.002, 0.005, 0.006, 0.01, 0.02), _spiky),
    "updates skipped": Dose(
        "overflow",
        "of the steps",
        (0.005, 0.01, 0.02, 0.03, 0.05, 0.1),
        _all(lambda row, dose: {"skipped_updates": dose * row["step"]}),
    ),
    "waiting for data": Dose(
        "loader",
        "per cent",
        (5, 10, 15, 20, 21, 25, 30),
        _all(lambda row, dose: {"percent_data": dose}),
    ),
    "a term left out of the total, by its share": Dose(
        "total",
        "of the total",
        (0.05, 0.08, 0.1, 0.11, 0.15, 0.2),
        _all(lambda row, dose: {"total": row["total"] * (1 - dose)}),
    ),
    "held-out speech that gets worse": Dose(
        "overfit", "of its best", (0.01, 0.02, 0.03, 0.04, 0.05, 0.08, 0.1), _worse
    ),
    "a run that ends without so much of its schedule": Dose(
        "undertrained",
        "of its steps",
        (0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.8, 0.85),
        lambda log, dose, random: log.until(round((1 - dose) * log.last)),
    ),
    "a warm-up that takes so much of the run": Dose(
        "warm-up",
        "of its steps",
        (0.2, 0.4, 0.5, 0.51, 0.6, 0.8),
        lambda log, dose, random: log.configured(warmup_steps=round(dose * log.last)),
    ),
}


def smallest(dose: Dose, log: Log, name: str) -> float | None:
    """From which on every draw is found; None where not even the largest is."""
    least = None
    for size in reversed(dose.doses):
        for draw in range(DRAWS):
            planted = dose.plant(log, size, Random(f"{name} {size} {draw}"))
            if dose.check not in {check for check, _ in _findings(planted)}:
                return least
        least = size
    return least


def main() -> None:
    """Try all, print and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    middle = len(CLEAN) // 2
    record: dict[str, Any] = {
        "machine": describe(torch.device("cpu")),
        "faults": len(RUN_FAULTS),
        "draws": DRAWS,
        "thresholds_chosen_on": half(CLEAN[:middle]),
        "other_half": {"seen": SEEN} | half(CLEAN[middle:]),
        "models_of_durations": {
            "thresholds_chosen_on": half(PARALLEL[:2]),
            "other": half(PARALLEL[2:]),
        },
        "runs_that_went_wrong": {
            name: [f"{s}: {c}" for c, s in _findings(recorded(name))] for name in BROKEN
        },
        "smallest": {
            name: {"check": dose.check, "unit": dose.unit, "tried": dose.doses}
            | {log: smallest(dose, recorded(log), name) for log in CLEAN}
            for name, dose in DOSES.items()
        },
    }
    print(json.dumps(record, indent=1))
    write_record(arguments.output, record)


if __name__ == "__main__":
    main()
