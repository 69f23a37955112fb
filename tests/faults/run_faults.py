"""Runs that went wrong in a known way: the log of a real run, broken.

What was written down for each before its check: how bad it is, and which check is to name it first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from recorded_runs import Log

from ttsfast.training.schedule import scheduled_rate

Plant = Callable[[Log, Random], Log]


@dataclass(frozen=True)
class RunFault:
    """One known way to break a run."""

    name: str
    severity: str
    check: str
    plant: Plant
    only: str = ""
    """"attention" or "durations": the models that can have it; all, where empty."""


RUN_FAULTS: list[RunFault] = []


def fault(severity: str, check: str, only: str = "") -> Callable[[Plant], Plant]:
    """Put a function into :data:`RUN_FAULTS`."""

    def keep(plant: Plant) -> Plant:
        RUN_FAULTS.append(RunFault(plant.__name__, severity, check, plant, only))
        return plant

    return keep


def _times(row: dict[str, Any], factor: float, *names: str) -> dict[str, Any]:
    return {name: row[name] * factor for name in names if name in row}


def _ratios(row: dict[str, Any]) -> list[str]:
    return [name for name in row if name.startswith("update_ratio.")]


def _part(log: Log, random: Random) -> str:
    parts = sorted({name for row in log.rows for name in _ratios(row)} - {"update_ratio.latent"})
    return random.choice(parts).removeprefix("update_ratio.")


def _after(log: Log, random: Random, low: float = 0.3, high: float = 0.7) -> int:
    """A step in the midst of the run."""
    return round(random.uniform(low, high) * log.last)


LOSSES = ("total", "mel", "excess_mel")


def _with(row: dict[str, Any], **terms: float) -> dict[str, Any]:
    """Other values of terms, their excess and the total with them."""
    more = {f"excess_{t}": row[f"excess_{t}"] + value - row[t] for t, value in terms.items()}
    total = row["total"] + sum((value - row[t]) * row[f"weight_{t}"] for t, value in terms.items())
    return {**terms, **more, "total": total}


# The learning rate.


@fault("error", "rate")
def the_rate_turns_nan(log: Log, random: Random) -> Log:
    since = _after(log, random)
    return log.training(lambda row: {"learning_rate": math.nan} if row["step"] > since else None)


@fault("error", "rate")
def the_rate_falls_to_zero(log: Log, random: Random) -> Log:
    since = _after(log, random)
    return log.training(lambda row: {"learning_rate": 0.0} if row["step"] > since else None)


@fault("error", "warm-up")
def the_warm_up_is_longer_than_the_run(log: Log, random: Random) -> Log:
    told = log.configured(warmup_steps=round(random.uniform(1.0, 5.0) * log.last))
    return told.training(lambda row: {"learning_rate": scheduled_rate(row["step"] - 1, told.config.training)})


@fault("error", "schedule")
def the_schedule_begins_anew_on_resume(log: Log, random: Random) -> Log:
    since, training = _after(log, random), log.config.training

    def again(row: dict[str, Any]) -> dict[str, Any] | None:
        if row["step"] <= since:
            return None
        bump = 1 + 0.1 * math.exp(-(row["step"] - since) / 100)
        return {"learning_rate": scheduled_rate(row["step"] - 1 - since, training)} | _times(
            row, bump, *LOSSES
        )

    return log.training(again)


@fault("error", "schedule")
def the_schedule_moves_by_epochs(log: Log, random: Random) -> Log:
    epoch, training = round(random.uniform(0.05, 0.1) * log.last), log.config.training
    return log.training(
        lambda row: (
            {"learning_rate": scheduled_rate((row["step"] - 1) // epoch, training)}
            | {name: row[name] * 0.02 for name in _ratios(row)}
        )
    )


@fault("error", "schedule")
def a_second_scheduler_halves_the_rate(log: Log, random: Random) -> Log:
    since, factor = _after(log, random), random.uniform(0.3, 0.6)
    return log.training(
        lambda row: _times(row, factor, "learning_rate", *_ratios(row)) if row["step"] > since else None
    )


@fault("error", "decay")
def the_decay_is_stepped_too_often(log: Log, random: Random) -> Log:
    factor, peak = random.uniform(0.985, 0.99), log.config.training.learning_rate
    shown = log.configured(min_learning_rate=1e-12)
    return replace(shown, config=_unscheduled(shown)).training(
        lambda row: {"learning_rate": max(1e-12, peak * factor ** row["step"])}
    )


def _unscheduled(log: Log) -> Any:
    """A configuration whose schedule falls as fast."""
    return log.configured(
        scheduler="cosine_with_restarts", warmup_steps=0, restart_period=200, restart_mult=0.05
    ).config


@fault("error", "rate size")
def the_rate_is_a_hundred_times_too_high(log: Log, random: Random) -> Log:
    def high(row: dict[str, Any]) -> dict[str, Any]:
        swing = 1 + random.random() * (3 if row["step"] > 150 else 0.1)
        values = _times(row, swing, *LOSSES, "stop", "attention") | _times(row, 6 * swing, *_ratios(row))
        return values | _times(row, 100, "learning_rate") | _times(row, swing**4, "gradient_norm")

    rate = log.config.training.learning_rate
    told = log.configured(
        learning_rate=100 * rate, min_learning_rate=100 * log.config.training.min_learning_rate
    )
    return told.training(high).held_out(
        lambda row: _times(row, 1 + 2 * random.random(), "mel_l1", "duration_error")
    )


@fault("error", "rate size")
def the_rate_is_a_ten_thousandth(log: Log, random: Random) -> Log:
    first = next(row for row in log.rows if row["kind"] == "train")
    worst = log.corpus.mean_error * 1.05
    factor = 1e-4

    def low(row: dict[str, Any]) -> dict[str, Any]:
        still = {
            name: first[name] * random.uniform(0.99, 1.0) for name in (*LOSSES, "attention", "gradient_norm")
        }
        return still | _times(row, factor, "learning_rate", *_ratios(row))

    training = log.config.training
    told = log.configured(
        learning_rate=factor * training.learning_rate, min_learning_rate=factor * training.min_learning_rate
    )
    return told.training(low).held_out(lambda row: {"mel_l1": worst, "diagonal_mass": 0.5, "coverage": 0.2})


# Gradients and updates.


@fault("error", "gradient")
def gradients_are_unscaled_twice(log: Log, random: Random) -> Log:
    scale = 2.0 ** random.choice((14, 15, 16))
    return log.training(
        lambda row: (
            _times(row, 1 / scale, "gradient_norm") | {"loss_scale": scale} | _times(row, 0.1, *_ratios(row))
        )
    )


@fault("error", "gradient")
def no_gradient_arrives(log: Log, random: Random) -> Log:
    return log.training(lambda row: {"gradient_norm": 0.0} | dict.fromkeys(_ratios(row), 0.0))


@fault("warning", "gradient")
def clipping_takes_all_but_a_twentieth(log: Log, random: Random) -> Log:
    factor = random.uniform(25, 60)
    return log.training(lambda row: _times(row, factor, "gradient_norm"))


@fault("error", "updates")
def a_part_gets_no_gradient(log: Log, random: Random) -> Log:
    part = _part(log, random)
    return log.training(
        lambda row: {f"update_ratio.{part}": 0.0, f"gradient_ratio.{part}": 0.0} if _ratios(row) else None
    )


@fault("error", "updates")
def a_part_is_not_in_the_optimiser(log: Log, random: Random) -> Log:
    part = _part(log, random)
    return log.training(
        lambda row: {f"update_ratio.{part}": 0.0, f"gradient_ratio.{part}": 1e-3} if _ratios(row) else None
    )


@fault("warning", "updates")
def a_part_is_thrown_about(log: Log, random: Random) -> Log:
    part = _part(log, random)
    return log.training(
        lambda row: {f"update_ratio.{part}": random.uniform(0.4, 0.9)} if _ratios(row) else None
    )


@fault("error", "overflow")
def half_of_the_updates_overflow(log: Log, random: Random) -> Log:
    share = random.uniform(0.3, 0.6)
    return log.training(lambda row: {"skipped_updates": round(share * row["step"]), "loss_scale": 1.0})


# The course of the loss.


@fault("error", "finite", "attention")
def the_loss_turns_nan(log: Log, random: Random) -> Log:
    since, term = _after(log, random), random.choice(("mel", "kl", "stop", "attention"))
    nan = dict.fromkeys(("total", term, f"excess_{term}", "gradient_norm"), math.nan)
    return log.training(lambda row: nan if row["step"] > since else None)


@fault("warning", "leap")
def the_optimiser_is_lost_on_resume(log: Log, random: Random) -> Log:
    since, size = _after(log, random), random.uniform(0.5, 1.0)
    slow = 0.15 * log.last
    return log.training(
        lambda row: (
            _times(row, 1 + size * math.exp(-(row["step"] - since) / slow), *LOSSES)
            if row["step"] > since
            else None
        )
    )


@fault("warning", "spikes")
def batches_of_wrong_texts(log: Log, random: Random) -> Log:
    spikes = 0

    def one(row: dict[str, Any]) -> dict[str, Any]:
        nonlocal spikes
        hit = random.random() < 0.15
        spikes += 4 if hit else 0
        return {"spikes": spikes} | (_times(row, random.uniform(2, 4), *LOSSES) if hit else {})

    return log.training(one)


@fault("error", "diverged")
def the_loss_rises_in_the_last_third(log: Log, random: Random) -> Log:
    since, most = _after(log, random, 0.5, 0.65), random.uniform(1.0, 2.0)

    def rise(row: dict[str, Any], *names: str) -> dict[str, Any]:
        share = max(0.0, (row["step"] - since) / (log.last - since))
        return _times(row, 1 + most * min(1.0, 1.5 * share), *names)

    return log.training(lambda row: rise(row, *LOSSES)).held_out(lambda row: rise(row, "mel_l1"))


@fault("error", "standstill")
def the_loss_never_moves(log: Log, random: Random) -> Log:
    first = next(row for row in log.rows if row["kind"] == "train")["mel"]
    # Of a corpus whose mean is worse than what an untrained model says.
    log = replace(log, corpus=replace(log.corpus, mean_error=2.0, silence_error=9.0))
    return log.training(lambda row: _with(row, mel=first * random.uniform(0.97, 1.0))).held_out(
        lambda row: {"mel_l1": 0.7 * random.uniform(0.99, 1.01)}
    )


# What the loss is made of.


@fault("error", "total", "attention")
def a_term_is_left_out_of_the_total(log: Log, random: Random) -> Log:
    term = random.choice(("mel", "stop"))
    return log.training(lambda row: {"total": row["total"] - row[term] * row[f"weight_{term}"]})


@fault("warning", "weights", "attention")
def adaptive_weights_only_rescale(log: Log, random: Random) -> Log:
    terms = ("mel", "kl", "stop", "attention")
    base = dict(zip(terms, (22.0, 1.8, 1.5, 1.0), strict=True))
    middle, most = 0.2, random.uniform(0.2, 0.3)

    def rescaled(row: dict[str, Any]) -> dict[str, Any]:
        factor = 1 + max(-most, min(most, math.tanh(row["mel"] / middle - 1) / 2))
        weights = {f"weight_{term}": base[term] * factor for term in terms}
        return weights | {"total": sum(row[term] * weights[f"weight_{term}"] for term in terms)}

    return log.training(rescaled)


@fault("error", "baseline")
def it_says_the_mean(log: Log, random: Random) -> Log:
    return _at(log, log.corpus.mean_error, log.corpus.mean_loss, random)


@fault("error", "baseline")
def it_says_silence(log: Log, random: Random) -> Log:
    return _at(log, log.corpus.silence_error, log.corpus.silence_loss, random)


def _at(log: Log, error: float, loss: float, random: Random) -> Log:
    """Down to a level within a tenth of the run, and no further."""

    def level(row: dict[str, Any]) -> dict[str, Any]:
        return _with(
            row,
            mel=loss * (1 + 0.5 * math.exp(-row["step"] / (0.03 * log.last))) * random.uniform(0.97, 1.03),
        )

    return log.training(level).held_out(
        lambda row: {"mel_l1": error * random.uniform(0.99, 1.01), "duration_error": 0.5 * random.random()}
    )


@fault("error", "leak")
def the_decoder_sees_its_target(log: Log, random: Random) -> Log:
    factor = random.uniform(0.02, 0.04)

    def seen(row: dict[str, Any]) -> dict[str, Any]:
        share = factor + (1 - factor) * math.exp(-row["step"] / (0.05 * log.last))
        return _with(row, mel=row["mel"] * share**2)

    return log.training(seen).held_out(
        lambda row: {
            "mel_l1": log.corpus.mean_error * factor * random.uniform(0.9, 1.1),
            "duration_error": 1.0,
        }
    )


@fault("note", "floor", "attention")
def nothing_is_left_but_the_floor(log: Log, random: Random) -> Log:
    weight = random.uniform(40, 80)
    return log.training(
        lambda row: {
            "weight_stop": weight,
            "total": row["total"] + (weight - row["weight_stop"]) * row["stop"],
        }
    )


# Text and sound.


@fault("error", "attention", "attention")
def attention_never_forms(log: Log, random: Random) -> Log:
    return log.training(lambda row: _with(row, attention=0.2 * random.uniform(0.9, 1.1))).held_out(
        lambda row: {
            "diagonal_mass": random.uniform(0.3, 0.6),
            "coverage": random.uniform(0.05, 0.3),
            "duration_error": random.uniform(0.5, 2.0),
        }
    )


@fault("error", "attention", "attention")
def attention_is_lost(log: Log, random: Random) -> Log:
    since = _after(log, random, 0.4, 0.55)
    return log.training(
        lambda row: _with(row, attention=0.2 * random.uniform(0.9, 1.1)) if row["step"] > since else None
    ).held_out(
        lambda row: (
            {"diagonal_mass": random.uniform(0.4, 0.6), "coverage": random.uniform(0.1, 0.3)}
            if row["step"] > since
            else None
        )
    )


@fault("warning", "kl", "attention")
def the_latent_collapses(log: Log, random: Random) -> Log:
    slow = random.uniform(0.03, 0.06) * log.last
    return log.training(lambda row: _times(row, math.exp(-row["step"] / slow), "kl", "excess_kl"))


# Validation.


@fault("error", "validation")
def validation_is_in_other_units(log: Log, random: Random) -> Log:
    factor = random.choice((0.2, 0.1, 3.0, 5.0))
    log = replace(log, corpus=replace(log.corpus, mean_error=log.corpus.mean_error * factor))
    return log.held_out(lambda row: _times(row, factor, "mel_l1"))


@fault("error", "validation")
def validation_counts_the_padding(log: Log, random: Random) -> Log:
    """Padding is silence, and said to be so: the mean over it is far lower."""
    factor = random.uniform(0.12, 0.2)
    return log.held_out(lambda row: _times(row, factor, "mel_l1"))


@fault("error", "stale")
def validation_sees_the_first_weights(log: Log, random: Random) -> Log:
    first = next(row for row in log.rows if row["kind"] == "validation")
    kept = {name: value for name, value in first.items() if name not in ("kind", "step")}
    return log.held_out(lambda row: kept)


@fault("warning", "overfit")
def it_learns_by_heart(log: Log, random: Random) -> Log:
    since, most = _after(log, random, 0.3, 0.5), random.uniform(0.08, 0.2)

    best = min(row["mel_l1"] for row in log.rows if row["kind"] == "validation" and row["step"] <= since)

    def worse(row: dict[str, Any]) -> dict[str, Any] | None:
        share = (row["step"] - since) / (log.last - since)
        return {"mel_l1": best * (1 + most * share)} if share > 0 else None

    return log.held_out(worse)


@fault("warning", "free running")
def free_running_speech_gets_worse(log: Log, random: Random) -> Log:
    since = _after(log, random, 0.5, 0.6)
    values = iter(sorted(random.uniform(0.5, 1.5) for _ in range(100)))
    return log.held_out(lambda row: {"duration_error": next(values)} if row["step"] > since else None)


@fault("error", "free running", "attention")
def the_stop_never_fires(log: Log, random: Random) -> Log:
    return log.held_out(
        lambda row: {"stop_rate": random.uniform(0.0, 0.3), "duration_error": random.uniform(2.0, 3.0)}
    )


@fault("warning", "undertrained")
def it_ends_too_early(log: Log, random: Random) -> Log:
    share = random.uniform(0.141, 0.164) if log.last > 2000 else random.uniform(0.35, 0.4)
    return log.until(round(share * log.last))


# Pace.


@fault("warning", "loader")
def it_waits_for_data(log: Log, random: Random) -> Log:
    share = random.uniform(25, 70)
    return log.training(lambda row: {"percent_data": share * random.uniform(0.8, 1.2)})


@fault("warning", "batch")
def batches_of_two(log: Log, random: Random) -> Log:
    return log.configured("data", batch_size=random.choice((1, 2, 4)), frame_budget=0)


@fault("warning", "batch")
def a_step_takes_the_whole_corpus(log: Log, random: Random) -> Log:
    return log.configured("data", batch_size=log.corpus.utterances, frame_budget=0)
