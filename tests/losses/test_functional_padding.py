"""A functional on a fused backend looks at what the lengths say, whatever else its tensors hold."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from functional_cases import (
    BACKEND,
    arriving_at,
    assert_accurate,
    both,
    evaluate,
    make_case,
    needs_a_fused_backend,
    reductions,
    terms,
)
from interpreter import INTERPRETED
from loss_checks import assert_close
from torch import Tensor

from ttsfast.functional import gaussian_kl_loss, guided_attention_loss, mel_huber_loss, stop_bce_loss
from ttsfast.terms import checks

pytestmark = needs_a_fused_backend


@pytest.mark.skipif(INTERPRETED, reason="elements are plain torch's")
@terms
@both
def test_what_arrives_in_padding_is_not_used(term: str, variant: int) -> None:
    case = make_case(term, (9, 4, 0), 12, 8, variant=variant)
    inputs = case.leaves(torch.float32)
    clean = arriving_at(case.run(inputs, "torch", "none"))
    padding = case.padding()
    assert padding.any()
    dirty = clean.masked_fill(padding, float("nan"))
    expected, result = (evaluate(case, inputs, BACKEND, "none", arriving) for arriving in (clean, dirty))
    assert not result.values[padding].any()
    for gradient, wanted in zip(result.gradients, expected.gradients, strict=True):
        assert_close(gradient, wanted, rtol=0, atol=0)
        assert not gradient[padding].any()


@pytest.mark.parametrize(
    "poison", [float("inf"), 1e30] if INTERPRETED else [float("inf"), float("-inf"), 1e30]
)
@reductions
@terms
def test_padding_may_hold_anything(term: str, reduction: str, poison: float) -> None:
    assert_accurate(make_case(term, (9, 4, 0), 14, 8, poison=poison, variant=1), torch.float32, reduction)


@reductions
@terms
def test_nan_in_is_nan_out(term: str, reduction: str) -> None:
    case = make_case(term, (5, 2), 12, 4)
    inputs = case.leaves(torch.float32)
    with torch.no_grad():
        inputs[0].view(-1)[0] = float("nan")
    outcome = evaluate(case, inputs, BACKEND, reduction)
    assert outcome.values.view(-1)[0].isnan()
    assert outcome.values.isnan().sum() == 1
    if term != "attention":
        # The attention term is linear: its gradient does not look at the weights.
        assert outcome.gradients[0].view(-1)[0].isnan()


@reductions
def test_infinite_logits_that_are_right_cost_nothing(reduction: str) -> None:
    logits = torch.tensor([[float("-inf"), float("-inf"), float("inf"), float("inf")]], requires_grad=True)
    backend = "torch" if reduction == "none" else BACKEND
    values = stop_bce_loss(logits, torch.tensor([3]), reduction=reduction, backend=backend)
    assert values.flatten().tolist() == [0.0] * (4 if reduction == "none" else 1)
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    assert gradient.tolist() == [[0.0, 0.0, 0.0, 0.0]]


@reductions
def test_a_prior_of_infinite_precision_at_equal_means(reduction: str) -> None:
    mu, logvar = torch.ones(1, 3, 4), torch.full((1, 3, 4), -200.0)
    inputs = [part.clone().requires_grad_() for part in (mu, logvar, mu, logvar)]
    backend = "torch" if reduction == "none" else BACKEND
    prior = inputs[2], inputs[3]
    nats = gaussian_kl_loss(inputs[0], inputs[1], prior=prior, reduction=reduction, backend=backend)
    assert not nats.any()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(nats.sum(), inputs))


@pytest.mark.parametrize(("backend", "reduction"), [(BACKEND, "sum"), ("torch", "sum"), ("torch", "none")])
@pytest.mark.parametrize("logvar", [-300.0, 0.0, 180.0, 200.0, 300.0, 3000.0])
def test_infinitely_distant_means(logvar: float, backend: str, reduction: str) -> None:
    """Infinitely many nats under any prior of finite variance, though its precision may underflow."""
    values = (math.inf, min(logvar, 0.5), 0.0, logvar)
    for dtype in (torch.float32,) if backend == "triton" else (torch.float32, torch.float64):
        inputs = [torch.full((1, 1, 1), value, dtype=dtype).requires_grad_() for value in values]
        mu, own, *prior = inputs
        nats = gaussian_kl_loss(mu, own, prior=(prior[0], prior[1]), reduction=reduction, backend=backend)
        assert nats.item() == math.inf
        slopes = [slope.item() for slope in torch.autograd.grad(nats.sum(), inputs)]
        assert slopes[0] == math.inf
        assert slopes[2] == -math.inf
        assert slopes[3] == -math.inf


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32, torch.int64])
@reductions
@terms
def test_lengths_of_any_type_and_stride(term: str, reduction: str, dtype: torch.dtype) -> None:
    case = make_case(term, (9, 4, 0), 12, 8, variant=1)
    if "kl" in term or term == "prior":
        pytest.skip("the case holds its lengths itself")
    expected = evaluate(case, case.leaves(torch.float32), BACKEND, reduction)

    def scattered(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.is_floating_point():
            return value
        room = torch.full((2 * len(value),), 77).to(value.dtype)
        room[::2] = value
        return room[::2] if value.dtype == torch.bool else room.to(dtype)[::2]

    other = case._replace(options={name: scattered(value) for name, value in case.options.items()})
    result = evaluate(other, case.leaves(torch.float32), BACKEND, reduction)
    assert_close(result.values, expected.values, rtol=0, atol=0)
    assert_close(result.gradients[0], expected.gradients[0], rtol=0, atol=0)


@reductions
def test_lengths_nobody_looked_at_are_clamped(reduction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are in compiled graphs and on GPUs."""
    monkeypatch.setattr(checks, "check_values", lambda *_: None)
    draw = torch.Generator().manual_seed(0)
    wild, within, symbols = torch.tensor([99, -5, 2]), torch.tensor([5, 0, 2]), torch.tensor([4, 0, 2])
    x, y = (torch.rand(3, 5, 4, generator=draw) for _ in range(2))
    given: dict[str, Any] = {
        "reduction": reduction,
        "backend": "torch" if reduction == "none" else BACKEND,
    }

    def every(lengths: Tensor, text_lengths: Tensor) -> list[Tensor]:
        return [
            mel_huber_loss(x, y, lengths, **given),
            gaussian_kl_loss(x, y, lengths, **given),
            stop_bce_loss(x[..., 0], lengths, tail_frames=2, **given),
            guided_attention_loss(x, lengths, text_lengths, **given),
        ]

    for result, expected in zip(every(wild, wild), every(within, symbols), strict=True):
        assert_close(result, expected, rtol=0, atol=0)


@reductions
@terms
def test_without_lengths(term: str, reduction: str) -> None:
    if term in ("stop", "attention"):
        pytest.skip("lengths are required")
    case = make_case(term, (7, 7), 7, 5)
    whole = case._replace(options={**case.options, "lengths": None}) if term == "mel" else case
    expected = evaluate(case, case.leaves(torch.float32), "torch", reduction).values
    assert_close(whole.run(whole.leaves(torch.float32), BACKEND, reduction).detach(), expected, rtol=1e-6)
