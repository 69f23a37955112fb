"""Calls of every functional on hostile tensors, and the measure they are held to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from cpp_checks import MISSING, WHY_MISSING
from interpreter import INTERPRETED
from torch import Tensor

from ttsfast.functional import gaussian_kl_loss, guided_attention_loss, mel_huber_loss, stop_bce_loss

BACKEND = "triton" if INTERPRETED else "cpp"
"""The fused backend that this process tests."""
TERMS = ("mel", "kl", "prior", "kl-utterance", "stop", "attention")
TOLERANCES = {torch.float64: 1e-14, torch.float32: 4e-7, torch.bfloat16: 4e-7, torch.float16: 4e-7}
"""Relative to a tensor's largest element, on top of twice torch's own error: a few roundings of float32, in
which half precision is computed."""
if INTERPRETED:
    # The Triton kernels' options are float32, their series a few roundings longer, and the interpreter
    # truncates to bfloat16 (docs/traps.md), twice where the backward pass rescales.
    TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 2 * 2**-7, torch.float16: 1e-6}

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)[: 3 if INTERPRETED else 4]
REDUCTIONS = ("sum", "mean") if INTERPRETED else ("none", "sum", "mean")
"""``"none"`` is plain torch's on every backend, so the interpreter has nothing to add to it."""
# Interpreted, each program takes milliseconds; tests/kernels has the kernel on more than this.
SHAPE = ((9, 4, 0), 12, 8) if INTERPRETED else ((70, 31, 0), 80, 40)

needs_a_fused_backend = pytest.mark.skipif(MISSING and not INTERPRETED, reason=WHY_MISSING)
both = pytest.mark.parametrize("variant", [0, 1])
terms = pytest.mark.parametrize("term", TERMS)
reductions = pytest.mark.parametrize("reduction", REDUCTIONS[1:] if INTERPRETED else REDUCTIONS)


class Case(NamedTuple):
    """One functional with its options; everything beyond the lengths is poison."""

    call: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    """Real tensors, float64."""
    differentiable: int
    """How many of them, from the first on, get gradients."""
    options: dict[str, Any]

    def leaves(
        self, dtype: torch.dtype, change: Callable[[Tensor], Tensor] = lambda t: t
    ) -> tuple[Tensor, ...]:
        """The inputs in another dtype and, by ``change``, in other places of memory."""
        cast = [change(tensor.detach().to(dtype)) for tensor in self.inputs]
        return tuple(t.detach().requires_grad_(i < self.differentiable) for i, t in enumerate(cast))

    def run(self, inputs: tuple[Tensor, ...], backend: str, reduction: str) -> Tensor:
        """On the backend, or on plain torch where that alone has the reduction."""
        backend = "torch" if reduction == "none" else backend
        return self.call(*inputs, backend=backend, reduction=reduction, **self.options)

    def padding(self) -> Tensor:
        """Where the values of ``"none"`` are padding, for cases whose poison is NaN."""
        poisoned = self.inputs[0].isnan()
        return poisoned.all(-1) if self.call.__name__ == "kl" else poisoned


def make_case(
    term: str,
    lengths: tuple[int, ...],
    frames: int,
    width: int,
    *,
    variant: int = 0,
    scale: float = 1.0,
    poison: float = float("nan"),
    seed: int = 0,
) -> Case:
    """``width`` is bins, latents or symbols; ``variant`` 0 or 1 switches the options."""
    draw = torch.Generator().manual_seed(seed)
    n, batch = torch.tensor(lengths, dtype=torch.int64), len(lengths)
    frame = _below(n, frames).unsqueeze(2)

    def real(*shape: int, factor: float = scale) -> Tensor:
        return factor * torch.randn(*shape, generator=draw, dtype=torch.float64)

    def poisoned(values: Tensor, valid: Tensor) -> Tensor:
        return torch.where(valid.expand_as(values), values, poison)

    if term == "mel":
        pair = tuple(poisoned(real(batch, frames, width), frame) for _ in range(2))
        options: dict[str, Any] = {"delta": 0.625, "lengths": n}
        if variant:
            mean = torch.linspace(-1, 1, width, dtype=torch.float32)
            options |= {"label_smoothing": 0.25, "mel_mean": mean}
        return Case(mel_huber_loss, pair, 1, options)
    if term in ("kl", "prior", "kl-utterance"):
        utterance = term == "kl-utterance"
        shape, valid = (
            ((batch, width), (n > 0).unsqueeze(1)) if utterance else ((batch, frames, width), frame)
        )
        latents = tuple(poisoned(real(*shape), valid) for _ in range(4 if term == "prior" else 2))

        def kl(mu: Tensor, logvar: Tensor, *prior: Tensor, **options: Any) -> Tensor:
            return gaussian_kl_loss(mu, logvar, n, prior=prior or None, **options)  # type: ignore[arg-type]

        return Case(kl, latents, len(latents), {"free_bits": 0.75 * width if variant else 0.0})
    if term == "stop":
        truncated = torch.arange(batch) % 3 == 1
        short = (n == 0) | truncated if variant else n == 0
        logits = poisoned(real(batch, frames, factor=4 * scale), _below(torch.where(short, n, n + 3), frames))
        options = {"lengths": n, "tail_frames": 3}
        if variant:
            options |= {"truncated": truncated, "pos_weight": 4.0, "label_smoothing": 0.0625}
        return Case(stop_bce_loss, (logits,), 1, options)
    assert term == "attention"
    symbols = torch.tensor([max(1, width - 5 * i) for i in range(batch)], dtype=torch.int64).clamp(max=width)
    weights = real(*((batch, 2, frames, width) if variant else (batch, frames, width))).softmax(-1)
    valid = frame & _below(symbols, width).unsqueeze(1)
    weights = poisoned(weights, valid.unsqueeze(1) if variant else valid)
    options = {"step_lengths": n, "text_lengths": symbols, "sigma": 0.25 if variant else 0.5}
    return Case(guided_attention_loss, (weights,), 1, options)


def _below(lengths: Tensor, size: int) -> Tensor:
    return torch.arange(size) < lengths.unsqueeze(1)


class Outcome(NamedTuple):
    values: Tensor
    gradients: tuple[Tensor, ...]


def evaluate(
    case: Case, inputs: tuple[Tensor, ...], backend: str, reduction: str, arriving: Tensor | None = None
) -> Outcome:
    """Values, and gradients under an incoming gradient that is never trivially 1."""
    values = case.run(inputs, backend, reduction)
    if arriving is None:
        arriving = arriving_at(values)
    gradients = torch.autograd.grad(values, inputs[: case.differentiable], arriving.to(values.dtype))
    return Outcome(values.detach(), gradients)


def arriving_at(values: Tensor) -> Tensor:
    return torch.randn(values.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64) + 2


def assert_accurate(
    case: Case, dtype: torch.dtype, reduction: str, change: Callable[[Tensor], Tensor] = lambda t: t
) -> None:
    """No further from float64 than twice torch's own error in that precision, plus a few roundings."""
    inputs = case.leaves(dtype, change)
    rounded = case._replace(inputs=case.leaves(dtype))
    truth = evaluate(case, rounded.leaves(torch.float64), "torch", reduction)
    theirs = evaluate(case, rounded.leaves(dtype), "torch", reduction)
    ours = evaluate(case, inputs, BACKEND, reduction)
    assert ours.values.dtype == theirs.values.dtype
    for name, a, b, c in zip(
        ("values", *(f"gradient {i}" for i in range(4))),
        (ours.values, *ours.gradients),
        (theirs.values, *theirs.gradients),
        (truth.values, *truth.gradients),
        strict=False,
    ):
        assert a.shape == c.shape, name
        assert a.dtype == b.dtype, name
        if a.numel() == 0:
            continue
        assert c.isfinite().all(), f"{name}: the expectation is not finite"
        assert a.isfinite().all(), f"{name}: not finite"
        error, usual = ((part.double() - c).abs().max() for part in (a, b))
        if reduction == "none":
            # Both are torch: one rounding of the result.
            usual = torch.finfo(a.dtype).eps / 2 * c.abs().max()
        allowed = 2 * usual + TOLERANCES[dtype] * c.abs().max()
        assert error <= allowed, f"{name}: error {error:.3g}, allowed {allowed:.3g}"
        assert not a[(c == 0) & (b == 0)].any(), f"{name}: not zero where it must be"
