"""The arithmetic of the convergence bench: when a goal was reached, and what a difference is worth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import permutation_test

from ttsfast.benchmarks.convergence.comparison import Comparison, Middle, Time, compare, permutation_p
from ttsfast.benchmarks.convergence.headlines import MARGIN, first_understood, headlines, time_to, word_goals

Rows = list[dict[str, float]]


def rows_of(name: str, *values: float) -> Rows:
    """A row each 10 steps, seconds and twice as many of the processor, from the untrained model on."""
    return [
        {"step": 10 * i, "seconds": 10.0 * i, "processor_seconds": 20.0 * i, name: value}
        for i, value in enumerate(values)
    ]


def aligned(*masses: float, coverage: float = 1.0) -> Rows:
    rows = rows_of("diagonal_mass", *masses)
    return [{**row, "coverage": coverage if row["step"] else 0.0} for row in rows]


def test_a_goal_is_reached_where_it_begins_to_be_held() -> None:
    rows = rows_of("x", 0, 1, 1, 0, 1, 1, 1, 0)
    reached = time_to(rows, lambda row: row["x"] > 0, held=3)
    assert reached.at == {"step": 40, "seconds": 40.0, "processor_seconds": 80.0}
    assert not reached.cut_off
    assert time_to(rows, lambda row: row["x"] > 0).at["step"] == 10


def test_a_run_that_ends_before_it_held_was_cut_off() -> None:
    # It may have gone on to hold what it met at last, and so have come there before it ended.
    for values, seconds in (((0, 0, 1, 1), 20.0), ((0, 1, 0, 1), 30.0), ((0, 1, 1, 0), 30.0), ((1, 1), 0.0)):
        reached = time_to(rows_of("x", *values), lambda row: row["x"] > 0, held=3)
        assert reached.cut_off
        assert reached.at["seconds"] == seconds
    assert time_to(rows_of("x", 0), lambda row: row["x"] > 0).cut_off


def test_alignment_needs_mass_coverage_and_a_margin_over_the_untrained_model() -> None:
    assert headlines(aligned(0.3, 0.5, 0.95, 0.91, 0.9))["alignment"].at["step"] == 20
    assert headlines(aligned(0.3, 0.5, 0.95, 0.89, 0.9))["alignment"].cut_off
    assert headlines(aligned(0.3, 0.95, 0.95, 0.95, coverage=0.97))["alignment"].cut_off
    born_diagonal = [0.93, 0.95, 0.95, 0.95]
    assert headlines(aligned(*born_diagonal))["alignment"].cut_off
    better = [0.93, *[0.93 + MARGIN] * 3]
    assert headlines(aligned(*better))["alignment"].at["step"] == 10


def test_words_are_goals_by_themselves_and_above_the_copies() -> None:
    rows = rows_of("word_error", 1.0, 0.6, 0.30, 0.25, 0.2)
    times = headlines(rows, word_goals(0.05))
    assert [time.at["step"] for name, time in times.items() if name.startswith("words")] == [20, 20, 40, 40]
    assert [time.cut_off for name, time in times.items() if name.startswith("words")] == [False] * 3 + [True]
    assert times["copies + 25"].at["step"] == 20
    assert times["copies + 15"].at["step"] == 40
    assert times["copies + 10"].cut_off
    assert "alignment" not in times
    assert not [name for name in headlines(rows) if name != "alignment"]


def test_a_model_that_covers_its_text_untrained_has_no_alignment_to_come_to() -> None:
    rows = [{**row, "coverage": 1.0} for row in rows_of("diagonal_mass", 0.3, 0.95, 0.95, 0.95)]
    assert headlines(rows) == {}


@pytest.mark.parametrize(
    ("errors", "found"),
    [
        ([1.0, 0.9, 0.8, 0.3, 0.2, 0.1], 3),
        ([1.0, 0.2, 0.2, 0.2, 0.2, 0.2], 1),
        ([1.0, 0.9, 0.9, 0.9, 0.9, 0.2], 5),
        ([1.0, 0.9, 0.9, 0.3, 0.4, 0.4], 3),
        ([1.0, 0.9, 0.2, 0.9, 0.9, 0.9], None),
        ([1.0], None),
    ],
)
def test_the_first_understood_checkpoint_is_found_by_bisection(
    errors: list[float], found: int | None
) -> None:
    heard: list[int] = []

    def understood_at(number: int) -> bool:
        heard.append(number)
        return errors[number] <= 0.3

    assert first_understood(understood_at, len(errors)) == found
    assert 0 not in heard
    assert len(set(heard)) == len(heard)


def test_bisection_asks_for_the_logarithm_of_what_there_is() -> None:
    heard: list[int] = []
    assert first_understood(lambda number: heard.append(number) or number >= 700, 1000) == 700  # type: ignore[func-returns-value]
    assert len(heard) < 12


def test_the_first_row_is_of_the_untrained_model() -> None:
    with pytest.raises(ValueError, match="untrained"):
        headlines(aligned(0.3, 0.9)[1:])


@pytest.mark.parametrize(
    ("ours", "theirs", "share"),
    [
        # The two sides apart: only the deal itself and its mirror image are as far apart.
        ([1, 2, 3, 4, 5], [6, 7, 8, 9, 10], 2 / 252),
        ([1, 2, 3, 4], [5, 6, 7, 8], 2 / 70),
        ([1, 2, 3], [4, 5, 6], 2 / 20),
        # By hand: sums of two of {1, 2, 3, 4} are 3, 4, 5, 5, 6, 7, those 2 from the mean of 5 are 3 and 7.
        ([1, 2], [3, 4], 2 / 6),
        ([1, 3], [2, 4], 4 / 6),
        ([1, 4], [2, 3], 1.0),
        ([2, 2], [2, 2, 2], 1.0),
        # Sizes may differ; by hand, of one of {1, 2, 4}: 1 is 2 from the others' mean, 2 is 1/2, 4 is 5/2.
        ([1], [2, 4], 2 / 3),
        ([4], [1, 2], 1 / 3),
    ],
)
def test_p_is_the_share_of_deals_as_far_apart(ours: list[float], theirs: list[float], share: float) -> None:
    assert permutation_p(ours, theirs) == pytest.approx(share)
    assert permutation_p(theirs, ours) == pytest.approx(share)


def test_p_is_that_of_scipy() -> None:
    """Of Student's (1908) extra hours of sleep, the first six of each drug."""
    first, second = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4], [1.9, 0.8, 1.1, 0.1, -0.1, 4.4]

    def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
        return float(np.mean(ours) - np.mean(theirs))

    expected = permutation_test((first, second), difference, n_resamples=np.inf).pvalue
    assert permutation_p(first, second) == pytest.approx(expected)
    assert 0.05 < expected < 0.5


def side(*values: float, cut: int = 0) -> list[Time]:
    """Times, the last ``cut`` of them cut off."""
    return [Time(value, i >= len(values) - cut) for i, value in enumerate(values)]


def found(ours: list[Time], theirs: list[Time]) -> Comparison:
    return compare("ours", ours, "theirs", theirs)


def test_a_claim_needs_a_small_p() -> None:
    five = found(side(10, 11, 12, 13, 14), side(30, 33, 36, 39, 42))
    assert (five.sooner, five.later, five.claim, five.at_least) == ("ours", "theirs", True, False)
    assert five.ratio == pytest.approx(3.0)
    assert five.p == pytest.approx(2 / 252)
    three = found(side(30, 33, 36), side(10, 11, 12))
    assert (three.sooner, three.ratio, three.claim) == ("theirs", pytest.approx(3.0), False)


def test_a_run_cut_off_gives_a_lower_bound_and_no_claim_to_its_own_side() -> None:
    late = found(side(10, 11, 12, 13, 14), side(30, 40, 50, 50, 50, cut=3))
    assert late.at_least
    assert late.claim
    assert late.ratio == pytest.approx(50 / 12)
    one = found(side(10, 11, 12, 13, 14), side(30, 40, 45, 48, 50, cut=1))
    assert not one.at_least
    assert one.ratio == pytest.approx(45 / 12)
    ours = found(side(10, 11, 12, 13, 20, cut=1), side(30, 40, 45, 48, 50))
    assert ours.p < 0.05
    assert not ours.claim
    unknown = found(side(10, 10, 10, cut=3), side(30, 40, 45))
    assert unknown.ratio is None
    assert not unknown.claim


def test_an_even_median_is_one_of_logarithms_and_heeds_both_its_runs() -> None:
    assert Middle.of(side(10, 40)) == Middle(pytest.approx(20.0), False)  # type: ignore[arg-type]
    assert Middle.of(side(10, 40, cut=1)).lower_bound
    assert not Middle.of(side(10, 20, 30, 40, cut=1)).lower_bound
    assert math.isclose(Middle.of(side(9, 10, 40, 50)).value, 20.0)
