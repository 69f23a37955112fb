"""When a figure passes, misses, tells too little, or counts for nothing."""

from __future__ import annotations

import numpy as np
import pytest

from ttsfast.evaluation.figures import Figures
from ttsfast.evaluation.targets import TARGETS
from ttsfast.evaluation.verdict import FEWEST, State, Verdict, judge, overall

GOOD = {
    "mel_l1": 0.3,
    "diagonal_mass": 0.95,
    "coverage": 0.99,
    "heard": 0.8,
    "duration_error": 0.05,
    "right_length": 1.0,
}
MEAN = {"mel_l1": 0.8}
UNTRAINED = {
    "mel_l1": 0.9,
    "diagonal_mass": 0.4,
    "coverage": 0.2,
    "heard": 0.1,
    "duration_error": 2.0,
    "right_length": 0.0,
}


def alike(values: dict[str, float], utterances: int = 100) -> Figures:
    """The same figures for every utterance."""
    figures = Figures()
    for name, value in values.items():
        for number in range(utterances):
            figures.add(name, str(number), value)
    return figures


def spread(name: str, values: np.ndarray, rest: dict[str, float]) -> Figures:
    figures = alike({k: v for k, v in rest.items() if k != name}, len(values))
    for number, value in enumerate(values.tolist()):
        figures.add(name, str(number), value)
    return figures


def judged(figures: Figures, **baselines: Figures) -> dict[str, Verdict]:
    beside = {"predict_mean": alike(MEAN), "untrained": alike(UNTRAINED, 24)} | baselines
    return {v.name: v for v in judge(figures, beside)}


def states(figures: Figures, **baselines: Figures) -> dict[str, State | None]:
    return {name: verdict.state for name, verdict in judged(figures, **baselines).items()}


def test_a_good_voice_passes_every_target() -> None:
    found = judged(alike(GOOD | {"mcd_dtw": 5.0}))
    assert {name for name, v in found.items() if v.state is State.PASS} == set(TARGETS)
    # What nobody measured is not told, unless it should reach something.
    assert {name for name, v in found.items() if v.state is None} == {"mcd_dtw"}
    assert overall(list(found.values())) is State.PASS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mel_l1", 0.81),
        ("diagonal_mass", 0.899),
        ("coverage", 0.979),
        ("heard", 0.649),
        ("duration_error", 0.101),
        ("right_length", 0.0),
    ],
)
def test_each_target_can_be_missed(name: str, value: float) -> None:
    worse = UNTRAINED | {name: 0.0 if GOOD[name] > value else 10.0}
    found = judged(alike(GOOD | {name: value}), untrained=alike(worse))
    assert [n for n, v in found.items() if v.state is State.MISSED] == [name]
    assert overall(list(found.values())) is State.MISSED


def test_a_bound_is_met_when_reached_and_a_baseline_is_not() -> None:
    found = states(alike(GOOD | {"coverage": 0.98, "mel_l1": 0.8}))
    assert found["coverage"] is State.PASS
    assert found["mel_l1"] is State.TOO_FEW


@pytest.mark.parametrize("mean", [0.96, 1.0])
def test_an_interval_over_the_target_tells_too_little(mean: float) -> None:
    """On whichever side of it the figure itself lies."""
    values = np.random.default_rng(0).normal(0.0, 0.2, 100)
    values += mean - values.mean()
    found = judged(spread("coverage", values, GOOD))
    assert found["coverage"].state is State.TOO_FEW
    low, high = found["coverage"].interval or (1.0, 0.0)
    assert low < 0.98 < high
    assert found["coverage"].reason == f"{low:.3f} to {high:.3f}, wanted ≥ 0.98"
    assert overall(list(found.values())) is State.TOO_FEW


def test_under_twenty_utterances_nothing_is_judged() -> None:
    for values in (GOOD, GOOD | {"coverage": 0.0}):
        found = judged(alike(values, FEWEST - 1))
        assert {v.state for v in found.values()} == {State.TOO_FEW}
        assert found["coverage"].reason == "19 utterances, wanted ≥ 0.98"
        assert overall(list(found.values())) is State.TOO_FEW
    assert states(alike(GOOD, FEWEST))["coverage"] is State.PASS


@pytest.mark.parametrize(("utterances", "state"), [(34, State.TOO_FEW), (35, State.PASS)])
def test_no_failure_among_few_is_not_taken_for_none(utterances: int, state: State) -> None:
    assert states(alike(GOOD, utterances))["right_length"] is state


def test_a_baseline_is_beaten_utterance_by_utterance() -> None:
    # Better by 0.05 everywhere, where utterances differ among each other ten times as much.
    hard = np.random.default_rng(1).normal(0.8, 0.5, 100)
    mean = spread("mel_l1", hard, {})
    found = judged(spread("mel_l1", hard - 0.05, GOOD), predict_mean=mean)
    assert found["mel_l1"].state is State.PASS
    assert found["mel_l1"].interval is not None
    assert found["mel_l1"].interval.high > mean["mel_l1"]


def test_what_an_untrained_model_reaches_counts_for_nothing() -> None:
    reached = UNTRAINED | {"diagonal_mass": 0.951, "coverage": 1.0}
    found = judged(alike(GOOD | {"coverage": 0.5}), untrained=alike(reached, 24))
    assert found["diagonal_mass"].state is State.WORTHLESS
    assert found["diagonal_mass"].reason == "the same model untrained reaches 0.951"
    # Nor is it held against the voice.
    assert found["coverage"].state is State.WORTHLESS
    assert overall(list(found.values())) is State.PASS


def test_an_untrained_model_that_beats_the_mean_counts_it_out() -> None:
    assert states(alike(GOOD), untrained=alike(UNTRAINED | {"mel_l1": 0.7}, 24))["mel_l1"] is State.WORTHLESS


def test_what_a_model_cannot_fail_at_is_no_pass() -> None:
    found = judged(alike({k: v for k, v in GOOD.items() if k != "coverage"}))
    assert found["coverage"].state is State.CANNOT_FAIL
    assert found["coverage"].state.value == "–"
    assert overall(list(found.values())) is State.PASS


def test_nothing_heard_is_no_pass() -> None:
    # Every figure of free-running speech counts for nothing, or is not there.
    found = judge(alike(GOOD), {"predict_mean": alike(MEAN), "untrained": alike(GOOD | {"mel_l1": 0.9})})
    assert State.PASS in {v.state for v in found}
    assert overall(found) is State.TOO_FEW


def test_without_the_baseline_there_is_nothing_to_beat() -> None:
    found = {v.name: v for v in judge(alike(GOOD), {})}
    assert found["mel_l1"].state is State.TOO_FEW
    assert found["mel_l1"].target is None
