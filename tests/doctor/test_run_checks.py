"""Every planted fault of a run is found, by its own check first, at the severity that was written down."""

from __future__ import annotations

from functools import cache
from random import Random

import duration_faults
import pytest
from recorded_runs import CLEAN, PARALLEL, Log, recorded
from run_faults import RUN_FAULTS, RunFault

from ttsfast.data.checks.finding import Finding
from ttsfast.doctor.run.examine import ALL, run_checks
from ttsfast.training.schedule import learning_rate

# Each fault in one run of those in which it can be seen; the bench has them all.
LONG, SHORT = "kathleen-b", "demo-b"
# Those of durations alone are put in where the module is imported.
PLANTED = (duration_faults,)


@cache
def found_in(name: str) -> frozenset[tuple[str, str]]:
    return frozenset((f.check, f.severity) for f in run_checks(recorded(name).run)[0])


@pytest.mark.parametrize("name", [*CLEAN, *PARALLEL])
def test_a_clean_run_has_at_most_one_warning(name: str) -> None:
    """The demo's, which takes three minutes: that it would have got better yet."""
    findings, _, not_run = run_checks(recorded(name).run)
    expected = {("undertrained", "warning")} if "demo" in name else set()
    assert {(f.check, f.severity) for f in findings} == expected
    assert {"attention", "kl"} <= set(not_run) if name in PARALLEL else not_run == ["unalignable", "aligner"]


@pytest.mark.parametrize("fault", RUN_FAULTS, ids=lambda fault: fault.name)
def test_fault_is_found(fault: RunFault) -> None:
    if fault.only == "durations":
        name = PARALLEL[len(fault.name) % len(PARALLEL)]
    else:
        name = LONG if len(fault.name) % 2 or fault.check == "undertrained" else SHORT
    findings = run_checks(fault.plant(recorded(name), Random(fault.name)).run)[0]
    new = [(f.check, f.severity) for f in findings if (f.check, f.severity) not in found_in(name)]
    assert (fault.check, fault.severity) in new
    assert new[0][0] == fault.check, "another cause comes first"


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("high", ("rate size", "error")),
        ("five", ("rate size", "warning")),
        ("low", ("rate size", "error")),
        ("warm", ("warm-up", "error")),
        ("half", ("free running", "warning")),
    ],
)
def test_what_went_wrong_in_a_real_run_comes_first(name: str, first: tuple[str, str]) -> None:
    finding = run_checks(recorded(name).run)[0][0]
    assert (finding.check, finding.severity) == first


def test_every_check_has_a_fault_that_it_finds() -> None:
    assert {check.name for check in ALL} == {fault.check for fault in RUN_FAULTS}


@pytest.mark.parametrize(
    ("name", "share", "told"), [(PARALLEL[1], 0.3, 0), (PARALLEL[1], -0.2, 1), (LONG, 0.3, 1)]
)
def test_what_predictors_add_is_in_the_total_alone(name: str, share: float, told: int) -> None:
    other = recorded(name).training(lambda row: {"total": row["total"] * (1 + share)})
    assert len(_of(other, "total")) == told


def test_when_an_aligner_came_apart_is_told() -> None:
    apart = duration_faults.the_aligner_comes_apart(recorded("parallel-kathleen"), Random(0))
    (finding,) = _of(apart, "aligner")
    assert finding.what.startswith("the aligner came apart after step ")


def test_an_aligner_is_not_due_in_the_warm_up() -> None:
    unformed = duration_faults.the_aligner_never_forms(recorded("parallel-demo"), Random(0))
    assert not _of(unformed.configured(warmup_steps=1500), "aligner")
    assert _of(unformed, "aligner")


def test_an_aligner_without_weight_is_told_to_have_one() -> None:
    untaught = duration_faults.the_alignment_has_no_weight(recorded("parallel-kathleen"), Random(0))
    (finding,) = _of(untaught, "aligner")
    assert finding.remedy == "set training.alignment_loss_weight=1.0"


def test_a_check_without_its_need_is_not_run() -> None:
    log = recorded(LONG)
    bare = Log([row for row in log.rows if row["kind"] == "train"], log.config, log.corpus).run
    not_run = run_checks(type(bare)(bare.training))[2]
    assert {"baseline", "leak", "batch", "validation", "stale", "overfit", "free running"} <= set(not_run)
    assert "attention" not in not_run


def test_a_plateau_reduction_and_a_restart_are_the_schedule() -> None:
    """Rates that our own rules lower, or raise again, are not taken for a fault."""
    told = recorded(LONG).configured(restart_period=1000, lr_reduction_patience=1)

    def rate(row: dict[str, float]) -> dict[str, float]:
        times = int(row["step"] > 2000) + int(row["step"] > 3000)
        reduced = told.config.training.lr_reduction_factor**times
        return {"learning_rate": learning_rate(int(row["step"]) - 1, told.config.training, reduced)}

    assert not _of(told.training(rate), "schedule")
    assert _of(told.training(lambda row: {"learning_rate": rate(row)["learning_rate"] * 0.9}), "schedule")


def _of(log: Log, check: str) -> list[Finding]:
    return [finding for finding in run_checks(log.run)[0] if finding.check == check]
