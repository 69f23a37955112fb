from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ttsfast.config import config_from_dict
from ttsfast.training.monitor import Content, Monitor
from ttsfast.training.non_finite import StepInputs
from ttsfast.training.plateau import EarlyStopping
from ttsfast.training.spike_guard import SpikeGuard
from ttsfast.training.step import StepStats

CPU = torch.device("cpu")


def test_a_spike_scales_its_gradient_down_to_the_threshold_and_is_counted() -> None:
    guard = SpikeGuard(0.5, 1.3, CPU)
    assert [float(guard.update(torch.tensor(1.0))) for _ in range(3)] == [1.0, 1.0, 1.0]
    assert float(guard.update(torch.tensor(2.6))) == pytest.approx(2.0)
    assert int(guard.spikes) == 1
    # The spike entered the average at the threshold's height only.
    assert float(guard.average) < 1.3


def test_the_average_is_bias_corrected() -> None:
    guard = SpikeGuard(0.08, 1.3, CPU)
    guard.update(torch.tensor(3.0))
    assert float(guard.average) == pytest.approx(3.0)


@pytest.mark.parametrize("losses", [(0.0, 0.0, 2.0), (-1.0, 5.0, -3.0), (0.0, -0.5)])
def test_nothing_is_above_an_average_that_is_not_positive(losses: tuple[float, ...]) -> None:
    """As a total under the uncertainty weighting may be."""
    guard = SpikeGuard(0.2, 1.3, CPU)
    assert [float(guard.update(torch.tensor(loss))) for loss in losses] == [1.0] * len(losses)
    assert int(guard.spikes) == 0


def test_a_loss_of_nothing_after_others_divides_by_one() -> None:
    guard = SpikeGuard(0.5, 1.3, CPU)
    assert [float(guard.update(torch.tensor(loss))) for loss in (1.0, 0.0, 0.3)] == [1.0] * 3


def test_the_guard_follows_its_definition() -> None:
    """Against numbers: an average of what came, a loss cut at the threshold times the average so far."""
    factor, threshold = 0.1, 1.3
    guard = SpikeGuard(factor, threshold, CPU)
    weighted = weight = 0.0
    spikes = 0
    for loss in np.random.default_rng(3).lognormal(sigma=0.6, size=200):
        ceiling = threshold * weighted / weight if weight else math.inf
        assert float(guard.update(torch.tensor(loss))) == pytest.approx(max(1.0, loss / ceiling), rel=1e-5)
        spikes += loss > ceiling
        weighted = (1 - factor) * weighted + factor * min(loss, ceiling)
        weight = (1 - factor) * weight + factor
        assert float(guard.average) == pytest.approx(weighted / weight, rel=1e-5)
    assert int(guard.spikes) == spikes > 20


def test_the_guard_continues_from_its_state() -> None:
    guard, other = SpikeGuard(0.1, 1.3, CPU), SpikeGuard(0.1, 1.3, CPU)
    for loss in (3.0, 2.0, 9.0):
        guard.update(torch.tensor(loss))
    other.load_state_dict(guard.state_dict())
    for loss in (2.5, 4.0):
        assert torch.equal(guard.update(torch.tensor(loss)), other.update(torch.tensor(loss)))
    assert int(other.spikes) == int(guard.spikes) > 0


def test_early_stopping_counts_validations_without_improvement() -> None:
    early = EarlyStopping("mel_l1", patience=2, min_delta=0.01)
    assert early.update(1.0, 10)
    assert not early.update(0.995, 20)
    assert not early.exhausted
    assert not early.update(1.2, 30)
    assert early.exhausted
    assert (early.best, early.best_step, early.last_step) == (1.0, 10, 30)


def recorded(monitor: Monitor, step: int, mel: float, norm: float = 1.0, clamped: float = 0.0) -> None:
    """A step of which the second term is absent, on a device that clamps lengths."""
    sums = torch.tensor([9.0, mel, 0.0, 2.0, 3.0, 0.1, 0.0, 0.1, 0.0, clamped])
    stats = StepStats(sums, torch.tensor([22.0, 1.8, 1.5, 0.3]), (True, False, True, True))
    inputs = StepInputs(step, [("a", "b"), ("c",)], {})
    monitor.record(inputs, Content(600, 3, 1e-3), stats, torch.tensor(norm))


def test_steps_are_read_together_and_forgotten() -> None:
    monitor = Monitor(config_from_dict({"training": {"gradient_norm_threshold": 2.0}}).training)
    assert monitor.read() is None
    for step, (mel, norm) in enumerate(((0.5, 1.0), (0.25, 3.0), (0.125, 4.0)), start=1):
        recorded(monitor, step, mel, norm)
    assert monitor.take() == []
    assert monitor.read() is None
    rows = monitor.take()
    assert [row["mel"] for row in rows] == [0.5, 0.25, 0.125]
    assert set(rows[0]) == {
        *("total", "mel", "stop", "attention", "gradient_norm"),
        *("excess_mel", "excess_stop", "excess_attention"),
        *("weight_mel", "weight_stop", "weight_attention"),
    }
    assert (monitor.steep_steps, monitor.first_steep) == (2, 4.0)
    assert monitor.read() is None
    assert monitor.first_steep == 0.0
    assert monitor.take() == []


def test_an_excess_is_what_is_above_the_floor() -> None:
    """And what is judged is the mel term's, beside the mean length of the batch and the rate."""
    monitor = Monitor(config_from_dict({}).training)
    recorded(monitor, 1, 0.5)
    assert monitor.read() is None
    (row,) = monitor.take()
    found = {name: row[f"excess_{name}"] for name in ("mel", "stop", "attention")}
    assert found == pytest.approx({"mel": 0.4, "stop": 1.9, "attention": 3.0})
    judged = monitor.state_dict()["convergence"]
    assert judged["steps"] == [[row["excess_mel"], 200.0]]
    assert judged["rate"] == 1e-3


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_first_step_that_is_not_finite_is_returned(bad: float) -> None:
    monitor = Monitor(config_from_dict({}).training)
    recorded(monitor, 1, 0.5)
    recorded(monitor, 2, bad)
    recorded(monitor, 3, 0.5, norm=bad)
    fault = monitor.read()
    assert fault is not None
    assert (fault.inputs.step, fault.not_finite, fault.clamped) == (2, ("mel",), 0)


def test_lengths_that_a_gpu_clamped_are_a_fault_that_names_the_utterances() -> None:
    monitor = Monitor(config_from_dict({}).training)
    recorded(monitor, 1, 0.5)
    recorded(monitor, 2, 0.5, clamped=3.0)
    fault = monitor.read()
    assert fault is not None
    assert (fault.inputs.step, fault.not_finite, fault.clamped) == (2, (), 3)
    message = fault.message([("", fault.inputs.names())], [])
    assert message.startswith(
        "step 2: 3 lengths lie outside their tensors, which a GPU clamps; the batch is a, b, c;"
    )


def test_a_state_replaces_what_was_seen_and_is_no_view_of_it() -> None:
    monitor = Monitor(config_from_dict({}).training)
    recorded(monitor, 1, 0.5)
    monitor.read()
    state = monitor.state_dict()
    recorded(monitor, 2, 0.25)
    monitor.read()
    assert [row["mel"] for row in state["rows"]] == [0.5]
    assert len(state["convergence"]["steps"]) == 1
    monitor.load_state_dict(state)
    recorded(monitor, 2, 0.125)
    monitor.read()
    assert len(monitor.state_dict()["convergence"]["steps"]) == 2
    assert [row["mel"] for row in monitor.take()] == [0.5, 0.125]
    assert len(state["rows"]) == len(state["convergence"]["steps"]) == 1
