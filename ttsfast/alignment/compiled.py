"""The fused backends as torch operators, for compiled graphs: torch traces around them, not into them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ttsfast.alignment.backends import BACKENDS, scaled

_library = torch.library.Library("ttsfast", "FRAGMENT")
_library.define(
    "monotonic_alignment(Tensor scores, Tensor text_lengths, Tensor mel_lengths, str backend) -> Tensor"
)
_library.define(
    "forward_sum(Tensor log_probs, Tensor text_lengths, Tensor mel_lengths, float blank_log_prob,"
    " Tensor scale, bool wanted, str backend) -> (Tensor, Tensor)"
)


def search(scores: Tensor, text_lengths: Tensor, mel_lengths: Tensor, backend: str) -> Tensor:
    """As :meth:`ttsfast.alignment.backends.Backend.search`, traceable."""
    durations: Tensor = torch.ops.ttsfast.monotonic_alignment(scores, text_lengths, mel_lengths, backend)
    return durations


def forward_sum(
    log_probs: Tensor,
    text_lengths: Tensor,
    mel_lengths: Tensor,
    blank_log_prob: float,
    scale: Tensor,
    backend: str,
) -> Tensor:
    """(B,) losses times ``scale``, traceable and differentiable once."""
    wanted = log_probs.requires_grad and torch.is_grad_enabled()
    losses, _ = torch.ops.ttsfast.forward_sum(
        log_probs, text_lengths, mel_lengths, blank_log_prob, scale, wanted, backend
    )
    return losses


def _search(scores: Tensor, text_lengths: Tensor, mel_lengths: Tensor, backend: str) -> Tensor:
    return BACKENDS[backend].search(scores, text_lengths, mel_lengths)


def _search_like(scores: Tensor, text_lengths: Tensor, mel_lengths: Tensor, backend: str) -> Tensor:
    return scores.new_empty((scores.shape[0], scores.shape[2]), dtype=torch.int64)


def _sum(log_probs: Tensor, text_lengths: Tensor, mel_lengths: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    *options, backend = rest
    losses, gradient = BACKENDS[backend].forward_sum(log_probs, text_lengths, mel_lengths, *options)
    return losses, losses.new_empty(0) if gradient is None else gradient


def _sum_like(
    log_probs: Tensor, text_lengths: Tensor, mel_lengths: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    _, scale, wanted, _ = rest
    return torch.empty_like(scale), scale.new_empty(log_probs.shape if wanted else (0,))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.dtype = inputs[0].dtype
    ctx.save_for_backward(output[1])


def _backward(ctx: Any, incoming: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    if torch.is_grad_enabled():
        raise RuntimeError("the fused loss is differentiable once; use backend='torch' to go further")
    (gradient,) = ctx.saved_tensors
    return (scaled(gradient, incoming).to(ctx.dtype), *[None] * 6)


for _device in ("CPU", "CUDA"):
    _library.impl("monotonic_alignment", _search, _device)
    _library.impl("forward_sum", _sum, _device)
torch.library.register_fake("ttsfast::monotonic_alignment", _search_like, lib=_library)
torch.library.register_fake("ttsfast::forward_sum", _sum_like, lib=_library)
torch.library.register_autograd("ttsfast::forward_sum", _backward, setup_context=_keep, lib=_library)
