"""Adaptive weights: neutral at first, bounded, frozen in evaluation, restored exactly."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_checks import assert_close, make_batch

from ttsfast import TTSLoss
from ttsfast.losses.adaptive import AdaptiveWeights, update
from ttsfast.terms.state import DWA_TEMPERATURE, FACTOR_BOUNDS, FAST_DECAY, METHODS, SLOW_DECAY

ALL = (True, True, True, True)
BASE = torch.tensor([22.0, 1.8, 1.5, 0.3], dtype=torch.float64)


def vectors(*rows: list[float]) -> list[torch.Tensor]:
    return [torch.tensor(row) for row in rows]


def step(loss: TTSLoss, seed: int) -> Any:
    return loss(**make_batch([6, 3], [3, 2], seed=seed))


@pytest.mark.parametrize("method", METHODS)
def test_first_step_is_neutral_and_later_ones_follow_from_earlier_ones(method: str) -> None:
    loss = TTSLoss(weighting=method)
    first = step(loss, 0)
    assert_close(first.weight_values, BASE, rtol=1e-15)
    assert_close(first.total.detach(), (BASE * first.values).sum(), rtol=1e-12)
    left = copy.deepcopy(loss)
    out, other = step(loss, 1), step(left, 2)
    assert_close(out.weight_values, other.weight_values, rtol=0, atol=0)
    assert (loss.adaptive.slow - left.adaptive.slow).any() == (method != "fixed")
    for _ in range(5):
        out = step(loss, 3)
    assert_close(out.total.detach(), (out.weight_values * out.values).sum(), rtol=1e-12)
    assert not out.weight_values.requires_grad


@pytest.mark.parametrize("method", METHODS)
def test_state_dict_continues_identically(method: str) -> None:
    options: dict[str, Any] = {"weighting": method, "mel_smoothing": "noise"}
    loss = TTSLoss(**options)
    for seed in range(4):
        step(loss, seed)
    restored = TTSLoss(**options)
    restored.load_state_dict(copy.deepcopy(loss.state_dict()))
    for seed in range(4, 8):
        expected, actual = step(loss, seed), step(restored, seed)
        assert_close(actual.total.detach(), expected.total.detach(), rtol=0, atol=0)
        assert_close(actual.weight_values, expected.weight_values, rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_evaluation_freezes_everything(method: str) -> None:
    loss = TTSLoss(weighting=method, mel_smoothing="noise")
    for seed in range(3):
        step(loss, seed)
    before = copy.deepcopy(loss.state_dict())
    loss.eval()
    for seed in range(3, 6):
        step(loss, seed)
    loss.update_weights(*vectors([1, 1, 1, 1], [0, 0, 0, 0]))
    for name, value in loss.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_dwa_equals_its_definition() -> None:
    weights = AdaptiveWeights("dwa")
    rows = torch.rand(40, 4, generator=torch.Generator().manual_seed(0)) * torch.linspace(2, 0.3, 40)[:, None]
    floors = torch.tensor([0.0, 0.1, 0.05, 0.0])
    for n, row in enumerate(rows, start=1):
        update(weights, weights.method, (True, True, True, False), row + floors, floors)
        averages = []
        for decay in (FAST_DECAY, SLOW_DECAY):
            shares = torch.tensor([(1 - decay) * decay ** (n - i) for i in range(1, n + 1)]) / (1 - decay**n)
            averages.append((shares[:, None] * rows[:n]).sum(0))
        ratio = (averages[0] / averages[1])[:3]
        expected = torch.exp(ratio / DWA_TEMPERATURE)
        assert_close(weights.factors[:3], expected / expected.mean(), rtol=1e-4)
        assert weights.factors[3] == 1
    assert (weights.factors[:3] - 1).abs().max() > 1e-3


def test_dwa_is_exactly_neutral_at_equal_ratios() -> None:
    weights = AdaptiveWeights("dwa")
    values, floors = vectors([0.3, 7.0, 1e-5, 0.0], [0.0, 0.0, 0.0, 0.0])
    for _ in range(50):
        update(weights, weights.method, ALL, values, floors)
        assert (weights.factors == 1).all()


def test_dwa_favours_the_term_that_falls_least() -> None:
    weights = AdaptiveWeights("dwa")
    for n in range(200):
        update(weights, weights.method, ALL, *vectors([0.97**n, 1.0, 0.97**n, 0.97**n], [0.0, 0.0, 0.0, 0.0]))
    assert weights.factors[1] == weights.factors.max() > 1
    assert_close(weights.factors[:4].sum(), 4.0, rtol=1e-5)


def test_uncertainty_descends_its_objective() -> None:
    weights = AdaptiveWeights("uncertainty")
    # As the terms of speech are: each far below one half.
    excess = torch.tensor([0.05, 0.04, 0.0625, 0.1])
    for _ in range(4000):
        update(weights, weights.method, ALL, excess + 0.1, torch.full((4,), 0.1))
    precisions = 1 / excess
    assert_close(torch.exp(-weights.log_variances[:4]), precisions, rtol=1e-3)
    assert_close(weights.factors[:4], precisions / precisions.mean(), rtol=1e-3)


def test_uncertainty_weighs_terms_against_each_other_only() -> None:
    weights = AdaptiveWeights("uncertainty")
    for n in range(500):
        update(weights, weights.method, ALL, *vectors([0.99**n] * 4, [0.0] * 4))
        assert (weights.factors == 1).all(), "what all share is the learning rate's"
    for _ in range(5000):
        update(weights, weights.method, ALL, *vectors([1.0, 1e-9, 1e9, 1.0], [0.0] * 4))
    low, high = FACTOR_BOUNDS
    assert_close(weights.factors[:4], torch.tensor([low, high, low, low]))
    before = weights.log_variances.clone()
    update(weights, weights.method, ALL, *vectors([1.0, 1e9, 1e9, 1.0], [0.0] * 4))
    assert (weights.log_variances - before).abs().max() < 0.01, "one bad step must not undo thousands"


@settings(max_examples=60, deadline=None)
@given(
    method=st.sampled_from(METHODS),
    rows=st.lists(
        st.lists(
            st.floats(0, 2.0**100, width=32) | st.sampled_from([0.0, math.inf, math.nan]),
            min_size=4,
            max_size=4,
        ),
        min_size=1,
        max_size=12,
    ),
)
def test_factors_stay_within_bounds(method: str, rows: list[list[float]]) -> None:
    weights = AdaptiveWeights(method)
    for row in rows:
        update(weights, weights.method, (True, True, False, True), torch.tensor(row), torch.full((4,), 0.01))
        low, high = FACTOR_BOUNDS
        assert ((weights.factors >= low) & (weights.factors <= high)).all()
        assert weights.factors[2] == 1


@pytest.mark.parametrize("method", ["dwa", "uncertainty"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_step_shows_and_leaves_no_trace(method: str, bad: float) -> None:
    loss = TTSLoss(weighting=method)
    for seed in range(3):
        step(loss, seed)
    before = copy.deepcopy(loss.adaptive.state_dict())
    broken = make_batch([6, 3], [3, 2])
    with torch.no_grad():
        broken["mel_pred"][0, 0, 0] = bad
    out = loss(**broken)
    assert not out.total.isfinite()
    assert not out.mel.isfinite()
    after = loss.adaptive.state_dict()
    assert after.pop("skipped") == before.pop("skipped") + 1
    for name, value in after.items():
        assert torch.equal(value, before[name]), name


def test_inactive_terms_are_left_alone() -> None:
    batch = make_batch([6, 3], [3, 2])
    with torch.no_grad():
        batch["attention"][:] = torch.nan
    loss = TTSLoss(weighting="dwa", attention_weight=0.0)
    for _ in range(3):
        assert loss(**batch).total.isfinite()
    assert loss.adaptive.observations == 3
    assert loss.adaptive.skipped == 0
    assert loss.adaptive.factors[3] == 1


def test_one_update_for_several_micro_batches() -> None:
    together, apart = TTSLoss(weighting="dwa"), TTSLoss(weighting="dwa", update_in_forward=False)
    for seed in range(4):
        batch = make_batch([6, 3], [3, 2], seed=seed)
        together(**batch)
        counts = apart.counts(batch["mel_lengths"])
        outs = []
        for row in (0, 1):
            part = {
                k: tuple(p[row : row + 1] for p in v) if isinstance(v, tuple) else v[row : row + 1]
                for k, v in batch.items()
            }
            outs.append(apart(**part, normalizer=counts))
            assert_close(outs[-1].weight_values, outs[0].weight_values.clone(), rtol=0, atol=0)
        apart.update_weights(sum(o.values for o in outs), sum(o.floor_values for o in outs))
    assert_close(apart.adaptive.factors, together.adaptive.factors, rtol=1e-5)
    assert (apart.adaptive.factors != 1).any()
    assert apart.adaptive.observations == 4


def test_schedule_scales_a_weight() -> None:
    loss = TTSLoss(weighting="fixed")
    loss.schedule_weight("attention", 0.25)
    out = step(loss, 0)
    assert float(out.weights["attention"]) == pytest.approx(0.3 / 4)
    assert_close(out.total.detach(), (out.weight_values * out.values).sum(), rtol=1e-12)
    with pytest.raises(ValueError, match="term must be one of mel, kl, stop, attention"):
        loss.schedule_weight("guide", 1.0)


def test_state_keeps_its_dtype_and_follows_the_device() -> None:
    loss = TTSLoss(weighting="dwa", mel_mean=torch.zeros(5), mel_std=torch.ones(5, dtype=torch.float64))
    step(loss, 0)
    step(loss, 1)
    before = copy.deepcopy(loss.state_dict())
    for convert in (loss.half, loss.double, loss.bfloat16):
        convert()
    for name, value in loss.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert loss.mel_std is not None
    assert loss.mel_std.dtype == torch.float64
    assert all(buffer.is_meta for buffer in loss.to("meta").buffers())
