"""Every metric by hand, on alignments drawn for the purpose, and on random input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ttsfast.evaluation import metrics
from ttsfast.models.reading import PASSED_AT_ONCE


def path(positions: list[int] | np.ndarray, symbols: int, peak: float = 1.0) -> np.ndarray:
    """(S, N) attention that follows ``positions``, with the rest spread over all symbols."""
    attention = np.full((len(positions), symbols), (1.0 - peak) / symbols)
    attention[np.arange(len(positions)), positions] += peak
    return attention


def diagonal(steps: int, symbols: int, peak: float = 1.0) -> np.ndarray:
    return path(np.arange(steps) * symbols // steps, symbols, peak)


def blurred(steps: int, symbols: int, width: float) -> np.ndarray:
    n, s = np.arange(symbols)[None, :], np.arange(steps)[:, None]
    weights = np.exp(-(((n - s * symbols / steps) / width) ** 2) / 2)
    return weights / weights.sum(axis=1, keepdims=True)


class TestMelL1:
    def test_by_hand(self) -> None:
        predicted, target = np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([[0.0, 4.0], [0.0, -1.0]])
        assert metrics.mel_l1(predicted, target) == pytest.approx((1 + 2 + 0 + 1) / 4)
        assert metrics.mel_l1(predicted, target, np.array([10.0, 0.5])) == pytest.approx(
            (10 + 1 + 0 + 0.5) / 4
        )

    def test_tensors_equal_arrays(self) -> None:
        a, b = torch.randn(7, 5), torch.randn(7, 5)
        assert metrics.mel_l1(a, b) == pytest.approx(float((a - b).abs().mean()), rel=1e-6)
        assert metrics.mel_l1(a.bfloat16(), b) > 0

    def test_refuses_different_shapes(self) -> None:
        with pytest.raises(ValueError, match="differ in shape"):
            metrics.mel_l1(np.zeros((3, 2)), np.zeros((2, 2)))


class TestDiagonalMass:
    def test_diagonal_is_one_whatever_the_rate(self) -> None:
        for steps, symbols in ((40, 40), (120, 40), (20, 40), (7, 63), (1, 1)):
            assert metrics.diagonal_mass(diagonal(steps, symbols)) == pytest.approx(1.0)

    def test_uniform_is_the_area_of_the_band(self) -> None:
        # |x - y| <= 0.15 in the unit square: 1 - 0.85^2.
        value = metrics.diagonal_mass(np.full((400, 400), 1 / 400))
        assert value == pytest.approx(1 - 0.85**2, abs=0.01)

    def test_by_hand(self) -> None:
        # Symbols lie at 0, 0.25, 0.5, 0.75, the steps at 0 and 0.5: one symbol is near each.
        attention = np.array([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.75, 0.25]])
        assert metrics.diagonal_mass(attention) == pytest.approx((0.5 + 0.75) / 2)
        assert metrics.diagonal_mass(attention, band=0.25) == pytest.approx(1.0)

    def test_attention_to_padding_is_lost(self) -> None:
        assert metrics.diagonal_mass(0.6 * diagonal(30, 20)) == pytest.approx(0.6)

    def test_reversed_reading_is_low(self) -> None:
        assert metrics.diagonal_mass(diagonal(40, 40)[::-1]) < 0.2

    def test_refuses_what_is_no_attention(self) -> None:
        for wrong in (-diagonal(4, 4), 2 * diagonal(4, 4)):
            with pytest.raises(ValueError, match="attention weights"):
                metrics.diagonal_mass(wrong)


class TestCoverage:
    @pytest.mark.parametrize("steps", [10, 20, 23, 40, 90, 200])
    def test_a_complete_reading_scores_one(self, steps: int) -> None:
        # 10 steps for 40 symbols pass 3 at once, and end 3 before the last: the slowest model there is.
        expected = 1.0 if steps > 10 else 1.0 - 3 / 40
        assert metrics.coverage(diagonal(steps, 40)) == pytest.approx(expected)

    @pytest.mark.parametrize("width", [0.3, 1.0, 2.0])
    def test_soft_attention_still_reads(self, width: float) -> None:
        assert metrics.coverage(blurred(60, 40, width)) == 1.0

    def test_a_skipped_word_is_lost(self) -> None:
        positions = [*range(12), *range(18, 40)]
        assert metrics.coverage(path(positions, 40)) == pytest.approx(1 - 6 / 40)

    def test_a_skipped_word_that_is_read_later_counts(self) -> None:
        positions = [*range(12), *range(18, 40), *range(12, 18)]
        assert metrics.coverage(path(positions, 40)) == 1.0

    def test_a_short_pass_is_reading(self) -> None:
        assert metrics.coverage(path([0, 4, 8, 12], 13)) == 1.0
        assert metrics.coverage(path([0, 5, 9, 12], 13)) == pytest.approx(1 - 4 / 13)

    def test_early_stop_loses_the_end(self) -> None:
        assert metrics.coverage(diagonal(60, 40)[:45]) == pytest.approx(30 / 40)
        assert metrics.coverage(diagonal(60, 40)[:1]) == pytest.approx(1 / 40)

    def test_late_start_loses_the_beginning(self) -> None:
        assert metrics.coverage(diagonal(40, 40)[5:]) == pytest.approx(35 / 40)

    def test_one_symbol_at_either_end_is_forgiven(self) -> None:
        assert metrics.coverage(diagonal(40, 40)[1:-1]) == 1.0
        assert metrics.coverage(diagonal(40, 40)[2:-2]) == pytest.approx(36 / 40)

    def test_stuck(self) -> None:
        assert metrics.coverage(path([7] * 50, 40)) == pytest.approx(1 / 40)

    def test_uniform_reads_nothing(self) -> None:
        assert metrics.coverage(np.full((60, 40), 1 / 40)) == 0.0

    def test_diffuse_noise_reads_nothing(self) -> None:
        weights = np.random.default_rng(0).random((200, 40))
        assert metrics.coverage(weights / weights.sum(axis=1, keepdims=True)) == 0.0

    def test_unfocused_steps_read_nothing(self) -> None:
        whole = diagonal(80, 40)
        whole[20:40] = 1 / 40
        assert metrics.coverage(whole) == pytest.approx(30 / 40)

    def test_a_single_symbol(self) -> None:
        assert metrics.coverage(np.ones((3, 1))) == 1.0


class TestMonotonicity:
    def test_by_hand(self) -> None:
        assert metrics.monotonicity(path([0, 1, 1, 5, 4, 9], 10)) == pytest.approx(3 / 5)

    def test_needs_two_steps(self) -> None:
        with pytest.raises(ValueError, match="two decoder steps"):
            metrics.monotonicity(np.ones((1, 1)))


class TestStop:
    def test_first_fire_is_the_first(self) -> None:
        logits = np.array([-5.0, 0.1, -3.0, 4.0])
        assert metrics.first_fire(logits) == 1
        assert metrics.first_fire(logits, 0.9) == 3
        assert metrics.first_fire(logits, 0.999) is None

    @pytest.mark.parametrize("threshold", [0.0, 1.0, -0.1, math.nan])
    def test_refuses_a_threshold_that_is_no_probability(self, threshold: float) -> None:
        with pytest.raises(ValueError, match="between 0 and 1"):
            metrics.first_fire(np.zeros(3), threshold)

    def test_f1_by_hand(self) -> None:
        def f1(fires: list[int | None], last_step: int) -> float:
            terms = [metrics.stop_f1(fire, last_step, 2) for fire in fires]
            return sum(value * weight for value, weight in terms) / sum(weight for _, weight in terms)

        assert f1([10, 8, 12, 9], 10) == 1.0
        # Hit, early (FP and FN), late (FN), never (FN): 2 / (2 + 1 + 3).
        assert f1([10, 7, 13, None], 10) == pytest.approx(2 / 6)
        assert f1([None], 3) == 0.0
        assert f1([0], 30) == 0.0

    def test_late_equals_never(self) -> None:
        assert metrics.stop_f1(13, 10, 2) == metrics.stop_f1(None, 10, 2)


class TestDuration:
    def test_by_hand(self) -> None:
        assert metrics.duration_error(110, 100) == pytest.approx(0.1)
        assert metrics.duration_error(50, 100) == pytest.approx(0.5)

    def test_refuses_nothing(self) -> None:
        with pytest.raises(ValueError, match="positive"):
            metrics.duration_error(0, 100)

    @pytest.mark.parametrize(
        ("frames", "on", "short"),
        [(151, True, False), (150, False, False), (100, False, False), (67, False, False), (66, False, True)],
    )
    def test_what_is_far_from_the_recording(self, frames: int, on: bool, short: bool) -> None:
        assert (metrics.ran_on(frames, 100), metrics.cut_short(frames, 100)) == (on, short)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "measure",
    [
        lambda x: metrics.mel_l1(x, np.zeros_like(x)),
        lambda x: metrics.mel_l1(np.zeros_like(x), x),
        lambda x: metrics.mel_l1(np.zeros_like(x), np.zeros_like(x), x[0]),
        metrics.diagonal_mass,
        metrics.coverage,
        metrics.monotonicity,
        lambda x: metrics.first_fire(x[0]),
    ],
)
def test_a_value_that_is_not_finite_is_an_error(measure, bad: float) -> None:  # type: ignore[no-untyped-def]
    values = np.full((4, 20), 0.05)
    values[0, 3] = bad
    with pytest.raises(ValueError, match="not finite"):
        measure(values)


@pytest.mark.parametrize("measure", [metrics.diagonal_mass, metrics.coverage, metrics.monotonicity])
@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (4,), (2, 3, 4)])
def test_a_wrong_shape_is_an_error(measure, shape: tuple[int, ...]) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="non-empty array"):
        measure(np.zeros(shape))


@settings(max_examples=150, deadline=None)
@given(st.integers(2, 60), st.integers(1, 65), st.floats(0.0, 30.0), st.integers(0, 2**32 - 1))
def test_alignment_figures_are_shares(steps: int, symbols: int, sharpness: float, seed: int) -> None:
    logits = sharpness * np.random.default_rng(seed).normal(size=(steps, symbols))
    attention = torch.from_numpy(logits).softmax(-1)
    for measure in (metrics.diagonal_mass, metrics.coverage, metrics.monotonicity):
        assert 0.0 <= measure(attention) <= 1.0


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 65), st.floats(0.5, 6.0), st.floats(0.8, 1.0), st.integers(0, 2**32 - 1))
def test_any_steady_reading_is_complete(
    symbols: int, steps_per_symbol: float, peak: float, seed: int
) -> None:
    """A monotonic path from the first to the last symbol, at any pace, with any jitter in durations."""
    rng = np.random.default_rng(seed)
    steps = max(1, round(symbols * steps_per_symbol))
    durations = rng.dirichlet(np.full(symbols, 40.0)) * steps
    starts = np.cumsum(durations) - durations
    positions = np.clip(np.searchsorted(starts, np.arange(steps), side="right") - 1, 0, symbols - 1)
    attention = path([*positions, symbols - 1], symbols, peak)
    assert metrics.coverage(attention) == 1.0
    assert metrics.monotonicity(attention) == 1.0


@settings(max_examples=100, deadline=None)
@given(st.integers(10, 65), st.data())
def test_losing_a_run_of_symbols_costs_exactly_that_run(symbols: int, data: st.DataObject) -> None:
    length = data.draw(st.integers(PASSED_AT_ONCE + 1, symbols - 4))
    start = data.draw(st.integers(2, symbols - 2 - length))
    positions = [n for n in range(symbols) if not start <= n < start + length]
    assert metrics.coverage(path(positions, symbols)) == pytest.approx(1 - length / symbols)
