from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttsfast.config import TrainingConfig
from ttsfast.training.plateau import PlateauReduction
from ttsfast.training.schedule import learning_rate, scheduled_rate

CONFIG = TrainingConfig()


def test_warm_up_is_linear_to_the_peak() -> None:
    assert scheduled_rate(0, CONFIG) == 1e-7  # the floor holds in warm-up too
    assert scheduled_rate(1, CONFIG) == pytest.approx(2 * 8e-5 / 1500)
    assert scheduled_rate(749, CONFIG) == pytest.approx(4e-5)
    assert scheduled_rate(1499, CONFIG) == pytest.approx(8e-5)


def test_cosine_restarts_with_a_smaller_peak_each_time() -> None:
    assert scheduled_rate(1500, CONFIG) == pytest.approx(8e-5)
    assert scheduled_rate(1500 + 4000, CONFIG) == pytest.approx((8e-5 + 1e-7) / 2)
    assert scheduled_rate(1500 + 7999, CONFIG) < 1.1e-7
    assert scheduled_rate(1500 + 8000, CONFIG) == pytest.approx(0.8 * 8e-5)
    assert scheduled_rate(1500 + 16000, CONFIG) == pytest.approx(0.64 * 8e-5)


def test_constant_stays() -> None:
    config = dataclasses.replace(CONFIG, scheduler="constant")
    assert scheduled_rate(10**6, config) == 8e-5


@pytest.mark.parametrize("period", [1, 7, 1000])
def test_every_restart_is_at_the_peak_and_every_step_between_is_lower(period: int) -> None:
    config = dataclasses.replace(CONFIG, warmup_steps=0, restart_period=period, restart_mult=1.0)
    rates = [scheduled_rate(step, config) for step in range(4 * period)]
    starts = [step for step, rate in enumerate(rates) if rate == pytest.approx(config.learning_rate)]
    assert starts == [0, period, 2 * period, 3 * period]


def test_noam_peaks_after_warm_up_and_falls_as_the_root() -> None:
    config = dataclasses.replace(CONFIG, scheduler="noam")
    assert scheduled_rate(1499, config) == pytest.approx(8e-5)
    assert scheduled_rate(1500, config) == pytest.approx(8e-5, rel=1e-3)
    assert scheduled_rate(4 * 1500 - 1, config) == pytest.approx(4e-5)
    assert scheduled_rate(10**6, config) == pytest.approx(8e-5 * math.sqrt(1500 / 1_000_001))


def test_one_cycle_falls_once_to_the_floor_at_the_end() -> None:
    config = dataclasses.replace(CONFIG, scheduler="one_cycle", max_steps=11_500)
    assert scheduled_rate(1500, config) == pytest.approx(8e-5)
    assert scheduled_rate(6500, config) == pytest.approx((8e-5 + 1e-7) / 2)
    assert scheduled_rate(11_500, config) == pytest.approx(1e-7)
    assert scheduled_rate(10**6, config) == pytest.approx(1e-7)
    rates = [scheduled_rate(step, config) for step in range(1500, 11_500, 100)]
    assert rates == sorted(rates, reverse=True)


@settings(max_examples=500)
@given(
    step=st.integers(0, 10**6),
    warmup=st.integers(0, 5000),
    period=st.integers(1, 20000),
    mult=st.floats(1e-6, 1.0),
    peak=st.floats(1e-7, 1.0),
    multiplier=st.floats(0.0, 1.0),
    max_steps=st.integers(1, 10**6),
    scheduler=st.sampled_from(["cosine_with_restarts", "constant", "noam", "one_cycle"]),
)
def test_the_rate_is_finite_and_in_range_at_every_step(
    step: int,
    warmup: int,
    period: int,
    mult: float,
    peak: float,
    multiplier: float,
    max_steps: int,
    scheduler: str,
) -> None:
    config = dataclasses.replace(
        CONFIG,
        warmup_steps=warmup,
        restart_period=period,
        restart_mult=mult,
        learning_rate=peak,
        max_steps=max_steps,
        scheduler=scheduler,
    )
    for rate in (scheduled_rate(step, config), learning_rate(step, config, multiplier)):
        assert math.isfinite(rate)
        assert config.min_learning_rate <= rate <= peak * (1 + 1e-12)


def test_plateau_reduces_after_patience_and_starts_counting_again() -> None:
    plateau = PlateauReduction("mel_l1", factor=0.5, patience=2, min_delta=0.01)
    assert [plateau.update(m) for m in (1.0, 0.995, 0.9)] == [False, False, False]
    assert [plateau.update(0.9) for _ in range(4)] == [False, True, False, True]
    assert plateau.multiplier == 0.25
    other = PlateauReduction("mel_l1", factor=0.5, patience=2, min_delta=0.01)
    other.load_state_dict(plateau.state_dict())
    assert other == plateau


def test_the_plateau_multiplier_stops_at_the_floor() -> None:
    assert learning_rate(1500, CONFIG, 1e-9) == CONFIG.min_learning_rate
