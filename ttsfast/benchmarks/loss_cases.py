"""The workloads of the loss benchmark, and everything that is timed on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ttsfast import native
from ttsfast.losses import backend as backends
from ttsfast.losses.module import TTSLoss
from ttsfast.losses.sweep import empty_gradient

MEL_WEIGHT, KL_WEIGHT, STOP_WEIGHT = 22.0, 1.8, 1.5
DELTA, SMOOTHING, STOP_SMOOTHING, POS_WEIGHT, TAIL = 0.6, 0.025, 0.06, 4.0, 8
LEAVES = ("mel_pred", "mu", "logvar", "stop_logits")
"""What a model would have produced."""

Inputs = dict[str, Tensor]
Variant = Callable[[Inputs], Tensor]


@dataclass(frozen=True)
class Case:
    """One workload: mel, KL of per-frame latents and stop."""

    name: str
    batch: int
    frames: int
    bins: int = 80
    latents: int = 64
    ragged: bool = True
    """Lengths uniform from 34% to 100% of ``frames``: 67% valid; otherwise all full."""
    sets: int = 1
    """Sets of tensors rotated through."""
    dtype: str = "float32"


CASES = (
    Case("cache", 16, 400),
    Case("cold", 48, 800, sets=6),
)
"""The two that targets are stated for."""

MORE_CASES = (
    Case("short", 16, 200),
    Case("full", 16, 400, ragged=False),
    Case("cold-full", 48, 800, ragged=False, sets=4),
    Case("bins-100", 32, 800, bins=100, sets=4),
    Case("long", 64, 1600, sets=2),
    Case("cache-bf16", 16, 400, dtype="bfloat16"),
    Case("cold-bf16", 48, 800, sets=6, dtype="bfloat16"),
)

TINY = Case("tiny", 2, 4)
"""So little arithmetic that what remains is the cost of calling."""


def make_inputs(case: Case, device: torch.device, seed: int = 0) -> Inputs:
    """Random tensors of one call; the leaves that models would produce require gradients."""
    draw = torch.Generator().manual_seed(seed)
    dtype = getattr(torch, case.dtype)
    shortest = max(1, case.frames * 34 // 100) if case.ragged else case.frames
    lengths = torch.randint(shortest, case.frames + 1, (case.batch,), generator=draw)
    lengths[0] = case.frames

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(*shape, generator=draw) * scale).to(device, dtype)

    rows = (case.batch, case.frames)
    return {
        "mel_pred": normal(*rows, case.bins).requires_grad_(),
        "mel_target": normal(*rows, case.bins),
        "mel_lengths": lengths.to(device),
        "stop_logits": normal(*rows).requires_grad_(),
        "mu": normal(*rows, case.latents).requires_grad_(),
        "logvar": normal(*rows, case.latents, scale=0.5).requires_grad_(),
    }


def eager(inputs: Inputs) -> Tensor:
    """What a careful user of plain torch writes: element losses from ``torch.nn.functional``, one mask each,
    sums over counts, nothing computed twice. It trusts padding to be finite, which saves it a pass."""
    prediction, lengths = inputs["mel_pred"], inputs["mel_lengths"]
    frames, bins = prediction.shape[1:]
    t = torch.arange(frames, device=prediction.device)
    valid = (t < lengths.unsqueeze(1)).unsqueeze(2)
    count = lengths.sum() * bins
    target = (1 - SMOOTHING) * inputs["mel_target"]
    mel = (F.huber_loss(prediction, target, reduction="none", delta=DELTA) * valid).sum() / count
    mu, logvar = inputs["mu"], inputs["logvar"]
    kl = (0.5 * (logvar.exp() + mu.square() - 1 - logvar) * valid).sum() / count
    included = t < (lengths + TAIL).clamp(max=frames).unsqueeze(1)
    positive = included & (t >= lengths.unsqueeze(1) - 1)
    labels = positive.to(prediction.dtype) * (1 - STOP_SMOOTHING) + STOP_SMOOTHING / 2
    weight = torch.full((), POS_WEIGHT, device=prediction.device, dtype=prediction.dtype)
    elements = F.binary_cross_entropy_with_logits(
        inputs["stop_logits"], labels, pos_weight=weight, reduction="none"
    )
    stop = (elements * included).sum() / included.sum()
    return MEL_WEIGHT * mel + KL_WEIGHT * kl + STOP_WEIGHT * stop


def backend_variant(name: str, device: torch.device) -> Variant:
    """``TTSLoss`` itself, module call and checks included."""
    loss = TTSLoss(
        mel_weight=MEL_WEIGHT,
        kl_weight=KL_WEIGHT,
        stop_weight=STOP_WEIGHT,
        attention_weight=0.0,
        huber_delta=DELTA,
        mel_label_smoothing=SMOOTHING,
        stop_label_smoothing=STOP_SMOOTHING,
        stop_pos_weight=POS_WEIGHT,
        stop_tail_frames=TAIL,
        weighting="fixed",
        backend=name,
    ).to(device)

    def call(inputs: Inputs) -> Tensor:
        return loss(
            inputs["mel_pred"],
            inputs["mel_target"],
            inputs["mel_lengths"],
            stop_logits=inputs["stop_logits"],
            posterior=(inputs["mu"], inputs["logvar"]),
        ).total

    return call


class _Floor(torch.autograd.Function):
    """Copies instead of losses: as many bytes, and what autograd itself costs."""

    @staticmethod
    def forward(ctx: Any, *leaves: Tensor) -> Tensor:
        empty = empty_gradient if native.core is not None and not leaves[0].is_cuda else torch.empty_like
        ctx.gradients = [empty(leaf).copy_(leaf) for leaf in leaves]
        return leaves[0].new_empty(())

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        return tuple(gradients)


def floor(inputs: Inputs) -> Tensor:
    """No loss at all: every leaf copied to its gradient by torch's own copy, through a bare
    ``autograd.Function``. What this takes is left of the time when the arithmetic costs nothing."""
    result: Tensor = _Floor.apply(*(inputs[name] for name in LEAVES))
    return result


def variants(device: torch.device, compiled: Sequence[str] = ("default",)) -> dict[str, Variant]:
    """Everything that runs here, by name; ``compiled`` lists modes of ``torch.compile``."""
    found: dict[str, Variant] = {"eager": eager}
    for mode in compiled:
        name = "compile" if mode == "default" else f"compile-{mode}"
        found[name] = torch.compile(eager, mode=None if mode == "default" else mode, dynamic=False)
    for name in ("torch", "cpp", "triton"):
        fits = name != ("cpp" if device.type == "cuda" else "triton")
        if fits and backends.unavailable(name) is None:
            found[name] = backend_variant(name, device)
    return found
