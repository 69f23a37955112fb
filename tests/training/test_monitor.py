from __future__ import annotations

import math

import pytest
import torch

from ttsfast.training.monitor import ConvergenceWindow, EarlyStopping, SpikeGuard, StepRecords

CPU = torch.device("cpu")


def test_a_spike_scales_its_gradient_down_to_the_threshold_and_is_counted() -> None:
    guard = SpikeGuard(0.5, 1.3, CPU)
    assert [float(guard.update(torch.tensor(1.0))) for _ in range(3)] == [1.0, 1.0, 1.0]
    assert float(guard.update(torch.tensor(2.6))) == pytest.approx(0.5)
    assert int(guard.spikes) == 1
    # The spike entered the average at the threshold's height only.
    assert float(guard.average) < 1.3


def test_the_average_is_bias_corrected() -> None:
    guard = SpikeGuard(0.08, 1.3, CPU)
    guard.update(torch.tensor(3.0))
    assert float(guard.average) == pytest.approx(3.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_non_finite_loss_is_not_hidden_and_leaves_the_average(bad: float) -> None:
    guard = SpikeGuard(0.5, 1.3, CPU)
    guard.update(torch.tensor(1.0))
    assert float(guard.update(torch.tensor(bad))) == 1.0
    assert float(guard.average) == 1.0
    assert int(guard.spikes) == 0


def test_the_guard_continues_from_its_state() -> None:
    guard, other = SpikeGuard(0.1, 1.3, CPU), SpikeGuard(0.1, 1.3, CPU)
    for loss in (3.0, 2.0, 9.0):
        guard.update(torch.tensor(loss))
    other.load_state_dict(guard.state_dict())
    for loss in (2.5, 4.0):
        assert torch.equal(guard.update(torch.tensor(loss)), other.update(torch.tensor(loss)))
    assert int(other.spikes) == int(guard.spikes) > 0


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        ([1.0] * 9, "warming"),
        ([1.0] * 5 + [0.9] * 5, "improving"),
        ([1.0] * 10, "plateau"),
        ([1.0, 1.4, 1.0, 1.4, 1.2] * 2, "oscillating"),
        ([1.0] * 5 + [1.2] * 5, "diverging"),
        ([1.0] * 9 + [math.inf], "diverging"),
    ],
)
def test_the_window_judges(losses: list[float], verdict: str) -> None:
    window = ConvergenceWindow(10, 0.95)
    window.losses.extend(losses)
    assert window.verdict() == verdict


def test_early_stopping_counts_validations_without_improvement() -> None:
    early = EarlyStopping(patience=2, min_delta=0.01)
    assert early.update(1.0, 10)
    assert not early.update(0.995, 20)
    assert not early.exhausted
    assert not early.update(1.2, 30)
    assert early.exhausted
    assert (early.best, early.best_step, early.last_step) == (1.0, 10, 30)


def test_records_are_read_together_and_forgotten() -> None:
    records = StepRecords()
    assert records.read() == []
    records.add({"a": torch.tensor(1.0), "b": torch.tensor(2)})
    records.add({"a": torch.tensor(3.0), "b": torch.tensor(4)})
    assert records.read() == [{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0}]
    records.add({"a": torch.tensor(5.0), "b": torch.tensor(6)})
    assert records.read() == [{"a": 5.0, "b": 6.0}]
    assert [row["a"] for row in records.take()] == [1.0, 3.0, 5.0]
    assert records.read() == records.take() == []
