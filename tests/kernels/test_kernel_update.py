"""The adaptive weights moved on in a launch of their own, against the module in plain torch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernel_cases import DEVICE
from torch import Tensor

from ttsfast.kernels import adaptive
from ttsfast.losses.adaptive import AdaptiveWeights, update
from ttsfast.losses.module import TTSLoss
from ttsfast.terms.state import StepState

ALL = (True, True, True, True)


def figures(steps: int) -> Tensor:
    """(steps, 9): total, values and floors of falling losses, as a training step sums them."""
    generator = torch.Generator().manual_seed(0)
    fall = torch.linspace(1.0, 0.2, steps)[:, None] * torch.tensor([0.7, 30.0, 1e-3, 0.1])
    floors = torch.tensor([0.1, 0.0, 1e-4, 0.0]).expand(steps, 4)
    values = floors + fall * torch.rand(steps, 4, generator=generator).add(0.5)
    return torch.cat([values.sum(1, keepdim=True), values, floors], dim=1).to(DEVICE)


def state_of(weights: AdaptiveWeights) -> StepState:
    buffers = (getattr(weights, name) for name in StepState._fields[1:7])
    return StepState(weights.method, *buffers, torch.ones(4), torch.zeros(()), False)


def assert_alike(ours: Any, truth: Any) -> None:
    for (name, a), (_, b) in zip(ours.named_buffers(), truth.named_buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("active", [ALL, (True, True, False, True), (True, False, False, False)])
@pytest.mark.parametrize("method", ["dwa", "uncertainty"])
def test_a_hundred_updates_are_the_references(method: str, active: tuple[bool, ...]) -> None:
    ours = AdaptiveWeights(method).to(DEVICE)
    truth = copy.deepcopy(ours)
    for row in figures(100):
        values, floors = row[1:5], row[5:9]
        adaptive.update_weights(state_of(ours), active, values, floors)
        update(truth, method, active, values, floors)
        assert_alike(ours, truth)
    assert int(ours.observations) == 100
    moved = (ours.factors[: len(active)][list(active)] != 1).any()
    assert moved == (sum(active) > 1), "one term alone has nothing to be weighed against"


@pytest.mark.parametrize("method", ["dwa", "uncertainty"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_is_skipped_and_counted(method: str, value: float) -> None:
    ours = AdaptiveWeights(method).to(DEVICE)
    truth = copy.deepcopy(ours)
    rows = figures(4)
    rows[1, 1] = value
    # Of a term that takes no part, nothing is looked at.
    rows[2, 3] = value
    for row in rows:
        adaptive.update_weights(state_of(ours), (True, True, False, True), row[1:5], row[5:9])
        update(truth, method, (True, True, False, True), row[1:5], row[5:9])
        assert_alike(ours, truth)
    assert int(ours.skipped) == 1
    assert int(ours.observations) == 3


@pytest.mark.parametrize("change", [lambda t: t, lambda t: t.double(), lambda t: t.repeat_interleave(2)[::2]])
@pytest.mark.parametrize("method", ["fixed", "dwa", "uncertainty"])
def test_the_module_updates_by_the_kernel(
    method: str, change: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = [TTSLoss(weighting=method, backend=backend).to(DEVICE) for backend in ("triton", "torch")]
    launches = []
    kernel = adaptive.update_weights
    monkeypatch.setattr(adaptive, "update_weights", lambda *a: (launches.append(1), kernel(*a)))
    for row in figures(6):
        for loss in losses:
            loss.update_weights(change(row[1:5]), change(row[5:9]))
    assert_alike(*losses)
    assert len(launches) == (6 if method in ("dwa", "uncertainty") else 0)
    before = copy.deepcopy(losses[0].state_dict())
    losses[0].eval().update_weights(row[1:5], row[5:9])
    assert all(torch.equal(value, before[name]) for name, value in losses[0].state_dict().items())


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_who_does_not_ask_for_triton_on_a_cpu_does_not_get_it(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if DEVICE != "cpu":
        pytest.skip("on a GPU the automatic choice is Triton")
    monkeypatch.delattr(adaptive, "update_weights")
    loss = TTSLoss(backend=backend)
    loss.update_weights(torch.ones(4), torch.zeros(4))
    assert int(loss.adaptive.observations) == 1
