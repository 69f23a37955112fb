"""Runs of a model of durations that went wrong: what only they can have, told as in ``run_faults``."""

from __future__ import annotations

from random import Random
from typing import Any

from recorded_runs import Log
from run_faults import _after, _ratios, _with, fault

UNFORMED = (3.8, 4.3), (1.55, 1.75)
"""Alignment and binarization of an aligner that is not taught: a run without its weight, 120 steps long."""


def _unformed(row: dict[str, Any], random: Random) -> dict[str, Any]:
    alignment, doubt = (random.uniform(*level) for level in UNFORMED)
    return _with(row, alignment=alignment, binarization=doubt)


@fault("error", "aligner", "durations")
def the_aligner_never_forms(log: Log, random: Random) -> Log:
    return log.training(lambda row: _unformed(row, random)).held_out(
        lambda row: {"heard": random.uniform(0.1, 0.3), "duration_error": random.uniform(0.05, 0.2)}
    )


@fault("error", "aligner", "durations")
def the_alignment_has_no_weight(log: Log, random: Random) -> Log:
    def untaught(row: dict[str, Any]) -> dict[str, Any]:
        unformed = row | _unformed(row, random)
        total = unformed["total"] - unformed["alignment"] * row["weight_alignment"]
        return unformed | {"weight_alignment": 0.0, "total": total}

    return log.configured(alignment_loss_weight=0.0).training(untaught)


@fault("error", "aligner", "durations")
def the_aligner_comes_apart(log: Log, random: Random) -> Log:
    since = _after(log, random, 0.4, 0.6)
    return log.training(lambda row: _unformed(row, random) if row["step"] > since else None)


@fault("error", "aligner", "durations")
def the_path_stays_in_doubt(log: Log, random: Random) -> Log:
    """The forward sum falls, and no single path has it: durations that are nearly all alike."""
    doubt = random.uniform(1.1, 1.4)
    return log.training(
        lambda row: _with(
            row, alignment=1.3 * row["alignment"], binarization=doubt * random.uniform(0.95, 1.05)
        )
    )


@fault("error", "unalignable", "durations")
def half_of_the_texts_are_longer_than_their_recordings(log: Log, random: Random) -> Log:
    return log.training(lambda row: {"unalignable": random.uniform(0.4, 0.6) * log.run.utterances_per_step})


@fault("warning", "unalignable", "durations")
def some_are_spoken_too_fast_for_the_reduction_factor(log: Log, random: Random) -> Log:
    return log.training(lambda row: {"unalignable": random.uniform(0.01, 0.04) * log.run.utterances_per_step})


@fault("error", "updates", "durations")
def durations_are_not_learnt(log: Log, random: Random) -> Log:
    return log.training(lambda row: {"update_ratio.durations": 0.0} if _ratios(row) else None)


@fault("error", "free running", "durations")
def durations_run_on(log: Log, random: Random) -> Log:
    return log.held_out(
        lambda row: {"stop_rate": random.uniform(0.0, 0.3), "duration_error": random.uniform(2.0, 9.0)}
    )
