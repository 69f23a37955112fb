"""Intervals over utterances: against theory, by hand, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ttsfast.evaluation.bootstrap import difference, interval, share_interval


def test_a_mean_has_the_interval_of_its_standard_error() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    low, high = interval(values)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_it_holds_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    held = 0
    for _ in range(100):
        # Errors of sentences of many lengths: a ratio of sums, whose truth is 0.2.
        words = random.integers(3, 30, 60)
        low, high = interval(random.binomial(words, 0.2), words)
        held += low <= 0.2 <= high
    assert 0.90 <= held / 100 <= 0.99


def test_denominators_weigh() -> None:
    # One sentence of 1000 words without an error, among many short ones that are all wrong.
    errors, words = np.r_[0, np.ones(99)], np.r_[1000, np.ones(99)]
    low, high = interval(errors, words)
    assert low < errors.sum() / words.sum() < 0.1
    assert high == 1.0


def test_the_same_figures_give_the_same_interval() -> None:
    values = np.arange(50.0)
    assert interval(values) == interval(values)


def test_many_utterances_are_drawn_in_parts() -> None:
    values = np.random.default_rng(3).normal(size=3000)
    low, high = interval(values)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 3000**0.5, rel=0.1)


def test_what_both_sides_find_hard_cancels() -> None:
    random = np.random.default_rng(4)
    hard = random.normal(5.0, 3.0, 100)
    better = hard - 0.2 + random.normal(0.0, 0.1, 100)
    low, high = difference(better, hard)
    assert -0.25 < low < -0.2 < high < -0.15
    assert interval(better).high > interval(hard).low
    assert difference(hard, hard) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("hits", "utterances", "low", "high"),
    # Newcombe (1998), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_shares_by_the_book(hits: int, utterances: int, low: float, high: float) -> None:
    assert share_interval(hits, utterances) == pytest.approx((low, high), abs=5e-5)
    mirrored = share_interval(utterances - hits, utterances)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_no_failure_seen_is_not_no_failure() -> None:
    assert interval(np.ones(20)).low == 1.0
    assert share_interval(20, 20).low < 0.85


@pytest.mark.parametrize(
    ("numerators", "denominators"),
    [([], None), ([1.0, np.nan], None), ([1.0], [0.0]), ([1.0, 2.0], [1.0]), ([1.0], [np.inf])],
)
def test_refuses(numerators: Any, denominators: Any) -> None:
    with pytest.raises(ValueError, match=r"one for each utterance|must be finite"):
        interval(numerators, denominators)


@pytest.mark.parametrize(("hits", "utterances"), [(0, 0), (3, 2), (-1, 2)])
def test_refuses_shares_that_are_none(hits: int, utterances: int) -> None:
    with pytest.raises(ValueError, match="0 to n of n"):
        share_interval(hits, utterances)
