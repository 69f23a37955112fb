"""A functional on a fused backend in autograd: the same bits again, kept graphs, only wanted gradients."""

from __future__ import annotations

import pytest
import torch
from functional_cases import (
    BACKEND,
    REDUCTIONS,
    SHAPE,
    arriving_at,
    both,
    evaluate,
    make_case,
    needs_a_fused_backend,
    reductions,
    terms,
)
from interpreter import INTERPRETED
from loss_checks import assert_close

from ttsfast.functional import mel_huber_loss

pytestmark = needs_a_fused_backend
kernels_have_it = pytest.mark.skipif(INTERPRETED, reason="tests/kernels has it, in fewer launches")


@kernels_have_it
@reductions
@terms
def test_what_arrives_may_have_any_strides(term: str, reduction: str) -> None:
    case = make_case(term, (9, 4, 5), 12, 8, variant=1)
    inputs = case.leaves(torch.float32)
    shape = case.run(inputs, "torch", reduction).shape
    dense = torch.randn((*shape, 2), generator=torch.Generator().manual_seed(1))
    for arriving in (dense[..., 0], torch.full((), 3.0).expand(shape)):
        expected, result = (
            evaluate(case, inputs, BACKEND, reduction, given) for given in (arriving.clone(), arriving)
        )
        for a, b in zip(result.gradients, expected.gradients, strict=True):
            assert_close(a, b, rtol=0, atol=0)


@reductions
@terms
@both
def test_the_same_bits_again(term: str, reduction: str, variant: int) -> None:
    case = make_case(term, *SHAPE, variant=variant)
    inputs = case.leaves(torch.float32)
    first, second = (evaluate(case, inputs, BACKEND, reduction) for _ in range(2))
    for a, b in zip((first.values, *first.gradients), (second.values, *second.gradients), strict=True):
        assert torch.equal(a, b)


@reductions
@terms
def test_a_kept_graph_gives_the_same_gradients(term: str, reduction: str) -> None:
    case = make_case(term, (9, 4, 0), 12, 8, variant=1)
    inputs = case.leaves(torch.float32)
    wanted = inputs[: case.differentiable]
    values = case.run(inputs, BACKEND, reduction)
    arriving = arriving_at(values).float()
    first = torch.autograd.grad(values, wanted, arriving, retain_graph=True)
    copies = [gradient.clone() for gradient in first]
    for gradient in first:
        gradient.mul_(7)
    for a, b in zip(torch.autograd.grad(values, wanted, arriving), copies, strict=True):
        assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@terms
def test_double_backward_raises(term: str, reduction: str) -> None:
    case = make_case(term, (9, 4), 12, 8)
    inputs = case.leaves(torch.float32)
    values = case.run(inputs, BACKEND, reduction)
    wanted = inputs[: case.differentiable]
    gradients = torch.autograd.grad(values.square(), wanted, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable once"):
        sum(gradient.square().sum() for gradient in gradients).backward()  # type: ignore[union-attr]


@reductions
@terms
def test_without_gradients(term: str, reduction: str) -> None:
    case = make_case(term, (9, 4, 0), 12, 8)
    inputs = case.leaves(torch.float32)
    expected = case.run(inputs, BACKEND, reduction).detach()
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            values = case.run(inputs, BACKEND, reduction)
        assert not values.requires_grad
        assert_close(values.clone(), expected, rtol=0, atol=0)


@reductions
def test_only_wanted_gradients_are_made(reduction: str) -> None:
    case = make_case("prior", (9, 4), 9, 8)
    every = evaluate(case, case.leaves(torch.float32), BACKEND, reduction).gradients
    inputs = case.leaves(torch.float32)
    for i in (0, 3):
        inputs[i].requires_grad_(False)
    values = case.run(inputs, BACKEND, reduction)
    values.backward(arriving_at(values).float())
    assert inputs[0].grad is None
    assert inputs[3].grad is None
    for i in (1, 2):
        gradient = inputs[i].grad
        assert gradient is not None
        assert_close(gradient, every[i], rtol=0, atol=0)


@kernels_have_it
@reductions
@terms
@both
def test_gradcheck(term: str, reduction: str, variant: int) -> None:
    case = make_case(term, (3, 1, 0), 5, 2, variant=variant, poison=0.5)
    inputs = case.leaves(torch.float64)
    assert torch.autograd.gradcheck(
        lambda *given: case.run((*given, *inputs[case.differentiable :]), BACKEND, reduction),
        inputs[: case.differentiable],
    )


def test_targets_with_gradients() -> None:
    x, y = (torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(i)).requires_grad_() for i in (0, 1))
    for reduction in REDUCTIONS:
        if INTERPRETED:
            with pytest.raises(RuntimeError, match="no gradient to mel_target"):
                mel_huber_loss(x, y, backend=BACKEND, reduction=reduction)
            continue
        if reduction == "none":
            continue
        ours, theirs = (
            mel_huber_loss(x, y, label_smoothing=0.25, backend=name, reduction=reduction)
            for name in (BACKEND, "torch")
        )
        arriving = arriving_at(ours).float()
        for a, b in zip(*(torch.autograd.grad(v, (x, y), arriving) for v in (ours, theirs)), strict=True):
            assert_close(a, b, rtol=1e-5, atol=1e-7)
