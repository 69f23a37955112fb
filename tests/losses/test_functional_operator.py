"""The functionals in compiled graphs and under autocast, and which backend is run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from functional_cases import (
    BACKEND,
    TERMS,
    arriving_at,
    evaluate,
    make_case,
    needs_a_fused_backend,
    reductions,
    terms,
)
from interpreter import INTERPRETED
from loss_checks import assert_close
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from ttsfast.functional import gaussian_kl_loss, guided_attention_loss, mel_huber_loss, stop_bce_loss

pytestmark = needs_a_fused_backend


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("term", "reduction"),
    [("prior", "mean")]
    if INTERPRETED
    else [(term, reduction) for term in TERMS for reduction in ("none", "mean")],
)
def test_one_compiled_graph(term: str, reduction: str) -> None:
    torch._dynamo.reset()
    case = make_case(term, (7, 3), 9, 4, variant=1)
    inputs = case.leaves(torch.float32)
    compiled = torch.compile(
        lambda *given: case.run(given, BACKEND, reduction), fullgraph=True, backend="aot_eager"
    )
    expected, values = case.run(inputs, BACKEND, reduction), compiled(*inputs)
    assert_close(values.detach(), expected.detach(), rtol=1e-6)
    arriving = arriving_at(values).float()
    wanted = inputs[: case.differentiable]
    pairs = (torch.autograd.grad(each, wanted, arriving) for each in (values, expected))
    for a, b in zip(*pairs, strict=True):
        assert_close(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.skipif(INTERPRETED, reason="what is traced for the Triton backend does not look at lengths")
@pytest.mark.parametrize(("backend", "reduction"), [(BACKEND, "sum"), ("torch", "sum"), ("torch", "none")])
def test_one_graph_for_sizes_that_vary(backend: str, reduction: str) -> None:
    def every(frames: int) -> Tensor:
        mel, lengths = torch.ones(2, frames, 4), torch.tensor([frames, 3])
        given: dict[str, Any] = {"reduction": reduction, "backend": backend}
        return torch.stack(
            [
                mel_huber_loss(mel, 0 * mel, lengths, **given).sum(),
                gaussian_kl_loss(mel, mel, lengths, **given).sum(),
                stop_bce_loss(mel[..., 0], lengths, **given).sum(),
                guided_attention_loss(mel, lengths, torch.tensor([4, 2]), **given).sum(),
            ]
        )

    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(every, fullgraph=True, dynamic=True, backend=counter)
    for frames in (9, 7, 12):
        assert_close(compiled(frames), every(frames), rtol=1e-6, atol=0)
    assert counter.frame_count == 1


@reductions
def test_autocast_changes_nothing(reduction: str) -> None:
    case = make_case("mel", (9, 4), 9, 8)
    inputs = case.leaves(torch.bfloat16)
    expected = evaluate(case, inputs, BACKEND, reduction)
    with torch.autocast("cpu", torch.bfloat16):
        result = evaluate(case, inputs, BACKEND, reduction)
    assert result.values.dtype == torch.float32
    assert_close(result.values, expected.values, rtol=0, atol=0)
    assert_close(result.gradients[0], expected.gradients[0], rtol=0, atol=0)


def test_a_fused_backend_is_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from ttsfast.losses import reference

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the reference ran")

    for name in ("mel_elements", "kl_vectors", "stop_elements", "attention_elements"):
        monkeypatch.setattr(reference, name, refuse)
    for term in TERMS:
        case = make_case(term, (5, 3), 8, 4)
        for reduction in ("sum", "mean"):
            case.run(case.leaves(torch.float32), BACKEND, reduction)
            if not INTERPRETED:
                case.run(case.leaves(torch.float32), "auto", reduction)


class Tagged(Tensor):
    pass


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@terms
def test_a_name_never_falls_back(term: str, reduction: str) -> None:
    case = make_case(term, (5, 3), 8, 4)
    inputs = tuple(tensor.detach().as_subclass(Tagged) for tensor in case.leaves(torch.float32))
    with pytest.raises(RuntimeError, match=f"'{BACKEND}' cannot serve this call: it reads plain tensors"):
        case.run(inputs, BACKEND, reduction)
    assert case.run(inputs, "auto", reduction).isfinite().all()


@terms
def test_elements_are_plain_torchs(term: str) -> None:
    case = make_case(term, (5, 3), 8, 4)
    inputs = case.leaves(torch.float32)
    with pytest.raises(RuntimeError, match=f"'{BACKEND}' cannot serve this call: reduction='none' is plain"):
        case.call(*inputs, backend=BACKEND, reduction="none", **case.options)
    values = case.call(*inputs, backend="auto", reduction="none", **case.options)
    assert_close(values, case.run(inputs, "torch", "none"), rtol=0, atol=0)


def test_backend_names() -> None:
    x, n = torch.zeros(1, 3), torch.tensor([2])
    with pytest.raises(ValueError, match="backend must be one of auto, torch, cpp, triton, got 'cuda'"):
        stop_bce_loss(x, n, backend="cuda")
    if not INTERPRETED and not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="'triton' is not available"):
            stop_bce_loss(x, n, backend="triton")
