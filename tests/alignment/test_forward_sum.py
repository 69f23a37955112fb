"""The forward-sum loss: torch's own CTC, value and gradient, and what CTC leaves open."""

from __future__ import annotations

import math

import pytest
import torch
from alignment_cases import (
    BACKENDS,
    CASES,
    LAYOUTS,
    MIXED,
    WIDE,
    Batch,
    backends,
    cases,
    make_batch,
    needs_cpp,
)
from interpreter import INTERPRETED
from loss_checks import assert_close
from torch import Tensor
from torch.nn import functional as F

from ttsfast import native
from ttsfast.functional import forward_sum_loss, monotonic_alignment

NOWHERE = float("-inf")


def ctc(batch: Batch, log_probs: Tensor, blank: float = -1.0) -> Tensor:
    """(B,) as its papers have it: a blank before the symbols, all normalised, targets 1..N; in a loop."""
    losses = []
    for row, symbols, frames in zip(log_probs, *(x.tolist() for x in batch.lengths()), strict=True):
        if frames == 0:
            losses.append(row.new_zeros(1) * row.nan_to_num(0.0).sum())
            continue
        rows = F.pad(row[:frames, :symbols], (1, 0), value=blank).log_softmax(1).unsqueeze(1)
        given = torch.arange(1, symbols + 1)[None], torch.tensor([frames]), torch.tensor([symbols])
        losses.append(F.ctc_loss(rows, *given, reduction="none", zero_infinity=True))
    return torch.cat(losses)


def both(batch: Batch, log_probs: Tensor, backend: str, **options: float | str) -> tuple[Tensor, Tensor]:
    """Losses (B,), and the gradient where each weighs differently."""
    leaf = log_probs.detach().requires_grad_()
    losses = forward_sum_loss(leaf, *batch.lengths(), reduction="none", backend=backend, **options)  # type: ignore[arg-type]
    weights = torch.linspace(1, 2, len(losses), dtype=losses.dtype)
    return losses.detach(), torch.autograd.grad(losses, leaf, weights)[0]


def expected(batch: Batch, blank: float = -1.0) -> tuple[Tensor, Tensor]:
    leaf = batch.scores.nan_to_num(0.0).requires_grad_()
    losses = ctc(batch, leaf, blank)
    weights = torch.linspace(1, 2, len(losses), dtype=losses.dtype)
    return losses.detach(), torch.autograd.grad(losses, leaf, weights)[0]


@backends
@cases
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_it_is_ctc(name: str, dtype: torch.dtype, backend: str) -> None:
    batch = CASES[name]
    for blank in (-1.0,) if INTERPRETED else (-1.0, 2.5):
        losses, gradient = both(batch, batch.scores.to(dtype), backend, blank_log_prob=blank)
        wanted, slope = expected(batch, blank)
        tolerance = 1e-10 if dtype == torch.float64 else 1e-5
        assert losses.dtype == gradient.dtype == dtype
        assert_close(losses, wanted, rtol=tolerance, atol=tolerance)
        assert_close(gradient, slope, rtol=2 * tolerance, atol=2 * tolerance)
        assert not gradient[~batch.valid()].any()


@backends
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout(layout: str, backend: str) -> None:
    losses, gradient = both(MIXED, LAYOUTS[layout](MIXED.scores), backend)
    wanted, slope = expected(MIXED)
    assert_close(losses, wanted)
    assert_close(gradient, slope)


@backends
def test_reductions(backend: str) -> None:
    """As ``ctc_loss`` has them."""
    each = ctc(MIXED, MIXED.scores.nan_to_num(0.0))
    call = MIXED.scores, *MIXED.lengths()
    assert_close(forward_sum_loss(*call, reduction="sum", backend=backend), each.sum())
    mean = (each / MIXED.text_lengths.clamp(min=1)).mean()
    assert_close(forward_sum_loss(*call, backend=backend), mean)
    leaf = MIXED.scores.clone().requires_grad_()
    (slope,) = torch.autograd.grad(forward_sum_loss(leaf, *MIXED.lengths(), backend=backend) * 3, leaf)
    _, unreduced = expected(MIXED)
    weights = torch.linspace(1, 2, 8, dtype=torch.float64) * MIXED.text_lengths.clamp(min=1) * 8 / 3
    assert_close(slope, unreduced / weights[:, None, None])


@backends
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype, backend: str) -> None:
    scores = MIXED.scores.to(dtype)
    losses, gradient = both(MIXED, scores, backend)
    assert losses.dtype == torch.float32
    assert gradient.dtype == dtype
    wanted, slope = expected(MIXED._replace(scores=scores.double()))
    assert_close(losses, wanted, rtol=1e-5, atol=1e-5)
    assert_close(gradient, slope, rtol=torch.finfo(dtype).eps, atol=1e-5)


def test_the_reference_is_differentiable_twice() -> None:
    batch = make_batch([4, 3, 2], [2, 3, 3], frames=4, symbols=3, poison=0.0)
    leaf = batch.scores.clone().requires_grad_()

    def losses(log_probs: Tensor) -> Tensor:
        return forward_sum_loss(log_probs, *batch.lengths(), reduction="none", backend="torch")

    assert torch.autograd.gradcheck(losses, leaf)
    assert torch.autograd.gradgradcheck(losses, leaf)


def test_the_closed_form() -> None:
    """Of docs/derivation.md: what fused kernels write."""
    batch = make_batch([9], [4])
    x = batch.scores[0]
    frames, symbols = x.shape
    norm = torch.logaddexp(x.logsumexp(1), torch.full((frames,), -1.0, dtype=torch.float64))
    p, q = x - norm[:, None], -1.0 - norm

    def add(*parts: float) -> float:
        high = max(parts)
        return high if high == NOWHERE else high + math.log(sum(math.exp(part - high) for part in parts))

    label = [[NOWHERE] * symbols for _ in range(frames)]
    passed = [0.0] + [NOWHERE] * symbols
    for t in range(frames):
        before = label[t - 1] if t else [NOWHERE] * symbols
        label[t] = [float(p[t, n]) + add(before[n], passed[n]) for n in range(symbols)]
        passed = [float(q[t]) + c for c in passed]
        passed[1:] = [add(a, b) for a, b in zip(label[t], passed[1:], strict=True)]
    total = passed[-1]
    after = [NOWHERE] * (symbols - 1) + [0.0]
    ended = list(after)
    slope = torch.zeros_like(x)
    for t in reversed(range(frames)):
        for n in range(symbols):
            slope[t, n] = math.exp(p[t, n]) - math.exp(label[t][n] + after[n] - total)
        following = [float(p[t, n]) + after[n] for n in range(symbols)] + [NOWHERE]
        ended = [add(following[n + 1], float(q[t]) + ended[n]) for n in range(symbols)]
        after = [add(following[n], ended[n]) for n in range(symbols)]
    losses, gradient = both(batch, batch.scores, "torch")
    assert_close(losses, torch.tensor([-total], dtype=torch.float64))
    assert_close(gradient[0], slope)


@needs_cpp
def test_long_utterances_lose_no_precision() -> None:
    """No more than torch's own CTC in the same precision loses, which has thousands of nats at a frame."""
    batch = make_batch([700, 650], [150, 9], seed=2)
    batch = batch._replace(scores=batch.scores.float())
    wanted, slope = expected(batch._replace(scores=batch.scores.double()))
    _, usual = expected(batch)
    losses, gradient = both(batch, batch.scores, "cpp")
    assert_close(losses, wanted, rtol=1e-6, atol=0)
    assert (gradient - slope).abs().max() <= (usual - slope).abs().max()


@needs_cpp
@pytest.mark.parametrize(("symbols", "most"), [(10, 8e-4), (100, 4e-3)])
def test_what_rounding_adds_up_to(symbols: int, most: float) -> None:
    """Far more frames than symbols: docs/derivation.md has the figures."""
    scores = torch.randn(2, 4000, symbols, generator=torch.Generator().manual_seed(0))
    batch = Batch(scores, torch.tensor([symbols] * 2), torch.tensor([4000, 3990]))
    losses, gradient = both(batch, scores, "cpp")
    wanted, slope = both(batch, scores.double(), "cpp")
    assert_close(losses, wanted, rtol=2e-7, atol=0)
    assert (gradient - slope).abs().max() <= most * slope.abs().max()


@backends
def test_probabilities_of_zero(backend: str) -> None:
    scores = MIXED.scores.clone()
    scores[0, 5] = NOWHERE
    scores[2, 3, 1:4] = NOWHERE
    batch = MIXED._replace(scores=scores)
    losses, gradient = both(batch, scores, backend)
    wanted, slope = both(batch, scores, "torch")
    assert wanted.isfinite().all()
    assert slope[batch.valid()].isfinite().all()
    assert torch.allclose(losses, wanted, rtol=1e-10)
    assert torch.allclose(gradient, slope, rtol=1e-10, atol=1e-12)
    assert not gradient[scores == NOWHERE].any()


@backends
def test_where_no_path_is_possible_the_loss_is_infinite(backend: str) -> None:
    scores = MIXED.scores.clone()
    scores[0, :, 4] = NOWHERE
    losses, gradient = both(MIXED, scores, backend)
    assert losses[0] == math.inf
    assert losses[1:].isfinite().all()
    assert gradient[0][MIXED.valid()[0]].isnan().all()
    assert gradient[1:].isfinite().all()
    assert not gradient[~MIXED.valid()].any()


@backends
def test_not_a_number_is_passed_on(backend: str) -> None:
    scores = MIXED.scores.clone()
    scores[0, 3, 2] = math.nan
    losses, gradient = both(MIXED, scores, backend)
    assert losses[0].isnan()
    assert losses[1:].isfinite().all()
    assert gradient[0].isnan().any()
    assert gradient[1:].isfinite().all()
    assert not gradient[~MIXED.valid()].any()


@backends
def test_too_few_frames_send_nothing_whatever_arrives(backend: str) -> None:
    batch = Batch(torch.full((2, 3, 4), math.nan), torch.tensor([4, 2]), torch.tensor([3, 1]))
    leaf = batch.scores.requires_grad_()
    losses = forward_sum_loss(leaf, *batch.lengths(), reduction="none", backend=backend)
    assert not losses.any()
    (slope,) = torch.autograd.grad(losses, leaf, torch.tensor([math.nan, math.inf]))
    assert not slope.any()


@pytest.mark.skipif(BACKENDS[0] == "torch", reason="of fused backends")
def test_a_gradient_once_handed_over_is_gone() -> None:
    leaf = MIXED.scores.clone().requires_grad_()
    total = forward_sum_loss(leaf, *MIXED.lengths(), reduction="sum", backend=BACKENDS[0])
    (first,) = torch.autograd.grad(total, leaf, retain_graph=True)
    first.zero_()
    (second,) = torch.autograd.grad(total, leaf)
    assert second.any()
    with pytest.raises(RuntimeError, match=r"second time|retain_graph|already been freed"):
        torch.autograd.grad(total, leaf)


@pytest.mark.skipif(BACKENDS[0] == "torch", reason="of fused backends")
def test_fused_backends_are_differentiable_once() -> None:
    leaf = MIXED.scores.clone().requires_grad_()
    total = forward_sum_loss(leaf, *MIXED.lengths(), backend=BACKENDS[0])
    (slope,) = torch.autograd.grad(total, leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(slope.square().sum(), leaf)


@needs_cpp
@cases
def test_any_threads_and_instructions_agree(name: str) -> None:
    batch, core = CASES[name], native.with_torch()
    scores = batch.scores.float()
    scale = torch.ones(len(scores))
    wanted, slope = expected(batch._replace(scores=scores.double()))
    weights = torch.linspace(1, 2, len(scores), dtype=torch.float64)[:, None, None]
    for isa, supported in (("baseline", 1), ("avx2", 2), ("avx512", 3)):
        if not core.loss_supports(supported):
            continue
        found = []
        for threads in (1, 2):
            losses, gradient = torch.full_like(scale, math.nan), torch.full_like(scores, math.nan)
            core.forward_sum(scores, *batch.lengths(), -1.0, scale, losses, gradient, threads, isa)
            found.append((losses, gradient))
            alone = torch.full_like(scale, math.nan)
            core.forward_sum(scores, *batch.lengths(), -1.0, scale, alone, None, threads, isa)
            assert torch.equal(alone, losses)
        assert all(map(torch.equal, *found))
        losses, gradient = found[0]
        assert_close(losses, wanted, rtol=1e-5, atol=1e-5)
        assert_close(gradient, slope / weights, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(BACKENDS[0] == "torch", reason="of fused backends")
@pytest.mark.filterwarnings("ignore")
def test_one_compiled_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced around, not into: of 13 frames the reference would make thousands of operations."""
    # The compiler does not follow poisoned memory.
    monkeypatch.undo()

    def step(scores: Tensor) -> tuple[Tensor, Tensor]:
        loss = forward_sum_loss(scores * 2, *WIDE.lengths(), backend=BACKENDS[0])
        durations = monotonic_alignment(scores, *WIDE.lengths(), backend=BACKENDS[0])
        assert isinstance(durations, Tensor)
        return loss, durations

    results = []
    for call in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        leaf = WIDE.scores.clone().requires_grad_()
        loss, durations = call(leaf)
        results.append((loss.detach(), durations, *torch.autograd.grad(loss * 3, leaf)))
    for plain, compiled in zip(*results, strict=True):
        assert_close(compiled, plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduction": "average"}, "reduction must be one of none, sum, mean"),
        ({"blank_log_prob": math.inf}, "blank_log_prob must be at least"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        forward_sum_loss(MIXED.scores, *MIXED.lengths(), **options)  # type: ignore[arg-type]
