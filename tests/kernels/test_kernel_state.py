"""Adaptive weights and the noise step, moved on inside the launch, against the module in plain torch."""

from __future__ import annotations

import copy

import pytest
import torch
from kernel_cases import BACKEND, DEVICE, make_inputs, make_spec, only

from ttsfast.losses import reference
from ttsfast.losses.adaptive import AdaptiveWeights, update
from ttsfast.losses.module import TTSLoss
from ttsfast.terms.spec import LossSpec
from ttsfast.terms.state import FixedWeights, StepState


class Both:
    """The same state twice: one moved on by the kernel, one in plain torch."""

    def __init__(self, method: str, spec: LossSpec) -> None:
        self.spec = spec
        self.ours = AdaptiveWeights(method).to(DEVICE)
        self.theirs = copy.deepcopy(self.ours)
        self.schedule = torch.tensor([1.0, 1.0, 1.0, 0.5], device=DEVICE)
        self.noise_step = torch.zeros((), dtype=torch.int64, device=DEVICE)
        self.steps = 0

    def state(self, advance: bool) -> StepState:
        return StepState(
            self.ours.method if advance else "fixed",
            self.ours.factors,
            self.ours.fast,
            self.ours.slow,
            self.ours.log_variances,
            self.ours.observations,
            self.ours.skipped,
            self.schedule,
            self.noise_step,
            advance,
        )

    def step(self, seed: int, scale: float = 1.0, advance: bool = True) -> None:
        inputs = only(make_inputs(lengths=(5, 3), frames=6, bins=4, seed=seed), "kl", "stop", "attention")
        inputs = inputs._replace(mel=(inputs.mel[0] * scale,))
        if self.spec.base_weights[2] == 0:
            inputs = only(inputs, "kl", "attention")
        base = torch.tensor(self.spec.base_weights, device=DEVICE)
        weights = self.theirs.factors[: len(base)] * self.schedule * base
        step = torch.full((), self.steps, device=DEVICE)
        truth = reference.run(self.spec, inputs, FixedWeights(weights, step), None)
        ours = BACKEND.call(self.spec, inputs, self.state(advance), None, None)
        if advance:
            update(self.theirs, self.theirs.method, self.spec.active, truth.values, truth.floor_values)
            self.steps += 1
        torch.testing.assert_close(ours.weight_values, weights, rtol=1e-5, atol=0)
        torch.testing.assert_close(ours.total, truth.total, rtol=1e-5, atol=0, equal_nan=True)
        assert int(self.noise_step) == self.steps
        for a, b in zip(self.ours.buffers(), self.theirs.buffers(), strict=True):
            torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("method", ["dwa", "uncertainty"])
def test_state_follows_the_module(method: str) -> None:
    both = Both(method, make_spec(mel_smoothing="noise", mel_floor=0.125))
    for seed in range(5):
        both.step(seed, scale=1.0 + seed)
    assert (both.ours.factors != 1).any()
    # A step that is not finite changes nothing but the count of them.
    before = both.ours.factors.clone()
    both.step(0, scale=float("inf"))
    assert int(both.ours.skipped) == 1
    assert torch.equal(before, both.ours.factors)
    both.step(7)


@pytest.mark.parametrize("method", ["fixed", "dwa", "uncertainty"])
def test_frozen(method: str) -> None:
    both = Both(method, make_spec(mel_smoothing="none"))
    both.step(0, advance=False)
    assert int(both.ours.observations) == 0
    assert (both.ours.factors == 1).all()


def test_the_first_factors_are_exactly_neutral() -> None:
    """One observation: every fast average equals its slow one."""
    both = Both("dwa", make_spec())
    both.step(0)
    assert (both.ours.factors == 1).all()
    assert (both.ours.fast == both.ours.slow).all()


def test_an_absent_term_takes_no_part() -> None:
    both = Both("dwa", make_spec(base_weights=(22.0, 1.75, 0.0, 0.25)))
    for seed in range(3):
        both.step(seed, scale=1.0 + seed)
    assert both.ours.factors[2] == 1
    assert both.ours.slow[2] == 0


def test_a_term_without_excess_is_neutral() -> None:
    """Free bits hold the KL term at its floor: its averages are 0, its ratio counts as 1."""
    both = Both("dwa", make_spec(kl_free_bits=1e4, mel_smoothing="none"))
    for seed in range(2):
        both.step(seed)
    assert both.ours.slow[1] == 0


def test_gradients_carry_the_factors_of_the_step() -> None:
    spec = make_spec()
    both = Both("dwa", spec)
    both.ours.factors[:4].copy_(torch.tensor([2.0, 0.5, 1.5, 1.0], device=DEVICE))
    inputs = make_inputs(lengths=(5, 3), frames=6, bins=4)
    inputs.mel[0].requires_grad_()
    total = BACKEND.call(spec, inputs, both.state(False), None, None).total
    weights = torch.tensor([44.0, 0.875, 2.25, 0.125], device=DEVICE)
    truth = reference.run(spec, inputs, FixedWeights(weights, both.noise_step), None).total
    ours, wanted = (torch.autograd.grad(each, inputs.mel[0])[0] for each in (total, truth))
    torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weighting", ["fixed", "dwa", "uncertainty"])
def test_the_module_steps_as_with_plain_torch(weighting: str) -> None:
    losses = [
        TTSLoss(weighting=weighting, mel_smoothing="noise", backend=backend).to(DEVICE)
        for backend in ("triton", "torch")
    ]
    losses[0].schedule_weight("attention", 0.5)
    losses[1].schedule_weight("attention", 0.5)
    for step in range(4):
        inputs = make_inputs(lengths=(5, 3), frames=6, bins=8, seed=step)
        training = step != 2
        outs = [
            loss.train(training)(
                inputs.mel[0],
                inputs.target,
                inputs.mel_lengths,
                stop_logits=inputs.stop_logits,
                posterior=inputs.posterior,
                attention=inputs.attention,
                text_lengths=inputs.text_lengths,
            )
            for loss in losses
        ]
        torch.testing.assert_close(outs[0].total, outs[1].total, rtol=1e-5, atol=0)
        torch.testing.assert_close(outs[0].weight_values, outs[1].weight_values, rtol=1e-5, atol=0)
    for a, b in zip(losses[0].buffers(), losses[1].buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-6)
    assert int(losses[0].noise_step) == 3
