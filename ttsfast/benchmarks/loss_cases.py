"""The workloads of the loss benchmark, and everything that is timed on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ttsfast.losses import backend as backends
from ttsfast.losses.module import TTSLoss

MEL_WEIGHT, KL_WEIGHT, STOP_WEIGHT, ATTENTION_WEIGHT = 22.0, 1.8, 1.5, 0.3
DELTA, SMOOTHING, STOP_SMOOTHING, POS_WEIGHT, TAIL, SIGMA = 0.6, 0.025, 0.06, 4.0, 8, 0.2

Inputs = dict[str, Tensor]
Variant = Callable[[Inputs], Tensor]


@dataclass(frozen=True)
class Case:
    """One workload: mel, KL of per-frame latents and stop, and guided attention where there are heads."""

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
    heads: tuple[int, ...] = ()
    """Of each layer of the attention."""
    symbols: int = 128
    """Of the text, where there is attention."""


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
    inputs = {
        "mel_pred": normal(*rows, case.bins).requires_grad_(),
        "mel_target": normal(*rows, case.bins),
        "mel_lengths": lengths.to(device),
        "stop_logits": normal(*rows).requires_grad_(),
        "mu": normal(*rows, case.latents).requires_grad_(),
        "logvar": normal(*rows, case.latents, scale=0.5).requires_grad_(),
    }
    if case.heads:
        # As long a text as its speech, in proportion.
        inputs["text_lengths"] = (lengths * case.symbols // case.frames).clamp(min=1).to(device)
    for layer, heads in enumerate(case.heads):
        shape = (case.batch, heads, case.frames, case.symbols)
        weights = torch.rand(shape, generator=draw) * (2 / case.symbols)
        inputs[f"attention_{layer}"] = weights.to(device, dtype).requires_grad_()
    return inputs


def layers(inputs: Inputs) -> list[Tensor]:
    """The attention, (B, H, T, N) each."""
    return [tensor for name, tensor in inputs.items() if name.startswith("attention_")]


def leaves(inputs: Inputs) -> list[Tensor]:
    """What a model would have produced."""
    return [tensor for tensor in inputs.values() if tensor.requires_grad]


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
    total = MEL_WEIGHT * mel + KL_WEIGHT * kl + STOP_WEIGHT * stop
    attention = layers(inputs)
    if not attention:
        return total
    text_lengths = inputs["text_lengths"]
    n = torch.arange(attention[0].shape[3], device=prediction.device)
    column, row = n / text_lengths.unsqueeze(1), t / lengths.unsqueeze(1)
    away = (column.unsqueeze(1) - row.unsqueeze(2)) / SIGMA
    penalty = (1 - torch.exp(-0.5 * away.square())) * valid * (n < text_lengths.unsqueeze(1)).unsqueeze(1)
    guided = sum((layer * penalty.unsqueeze(1)).sum() for layer in attention)
    heads = sum(layer.shape[1] for layer in attention)
    return total + ATTENTION_WEIGHT * guided / (lengths.sum() * heads)


def backend_variant(name: str, device: torch.device) -> Variant:
    """``TTSLoss`` itself, module call and checks included."""

    def make(attention_weight: float) -> TTSLoss:
        return TTSLoss(
            mel_weight=MEL_WEIGHT,
            kl_weight=KL_WEIGHT,
            stop_weight=STOP_WEIGHT,
            attention_weight=attention_weight,
            huber_delta=DELTA,
            mel_label_smoothing=SMOOTHING,
            stop_label_smoothing=STOP_SMOOTHING,
            stop_pos_weight=POS_WEIGHT,
            stop_tail_frames=TAIL,
            attention_sigma=SIGMA,
            weighting="fixed",
            backend=name,
        ).to(device)

    without, guided = make(0.0), make(ATTENTION_WEIGHT)

    def call(inputs: Inputs) -> Tensor:
        given = inputs["mel_pred"], inputs["mel_target"], inputs["mel_lengths"]
        stop, posterior = inputs["stop_logits"], (inputs["mu"], inputs["logvar"])
        if "text_lengths" not in inputs:
            return without(*given, stop_logits=stop, posterior=posterior).total
        return guided(
            *given,
            stop_logits=stop,
            posterior=posterior,
            attention=layers(inputs),
            text_lengths=inputs["text_lengths"],
        ).total

    return call


class _Floor(torch.autograd.Function):
    """Copies instead of losses: as many bytes, and what autograd itself costs."""

    @staticmethod
    def forward(ctx: Any, *leaves: Tensor) -> Tensor:
        ctx.gradients = [torch.empty_like(leaf).copy_(leaf) for leaf in leaves]
        return leaves[0].new_empty(())

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        return tuple(gradients)


def floor(inputs: Inputs) -> Tensor:
    """No loss at all: every leaf copied to its gradient by torch's own copy, through a bare
    ``autograd.Function``. What this takes is left of the time when the arithmetic costs nothing."""
    result: Tensor = _Floor.apply(*leaves(inputs))
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
