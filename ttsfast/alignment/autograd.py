"""The forward-sum loss of a fused backend as autograd sees it: its gradient is there when the value is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ttsfast.alignment.backends import Backend, scaled
from ttsfast.terms.autograd import FusedFunction, OnceDifferentiable, differentiated_again, graph_is_kept


def written(
    backend: Backend,
    log_probs: Tensor,
    text_lengths: Tensor,
    mel_lengths: Tensor,
    blank_log_prob: float,
    scale: Tensor,
) -> Tensor:
    """(B,) losses times ``scale`` (B,), differentiable once where gradients are enabled."""
    wanted = log_probs.requires_grad and torch.is_grad_enabled()
    data = log_probs.detach()
    losses, gradient = backend.forward_sum(data, text_lengths, mel_lengths, blank_log_prob, scale, wanted)
    if gradient is None:
        return losses
    return _WrittenGradient.apply(log_probs, [losses, gradient])


class _WrittenGradient(FusedFunction):
    """Connects the losses to what their gradient, which is written already, belongs to."""

    @staticmethod
    def forward(ctx: Any, log_probs: Tensor, results: list[Tensor]) -> Tensor:
        losses, ctx.gradient = results
        ctx.dtype = log_probs.dtype
        ctx.save_for_backward(log_probs)
        return losses

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        gradient: Tensor | None = ctx.gradient
        if gradient is None:
            raise differentiated_again()
        kept = graph_is_kept()
        if not kept:
            ctx.gradient = None
        # A look at what arrives, and often no second pass over the gradient; on a device it would be a wait.
        if incoming.is_cpu and bool((incoming == 1).all()):
            given = gradient.clone() if kept else gradient
        else:
            given = scaled(gradient, incoming)
        given = given.to(ctx.dtype)
        if torch.is_grad_enabled():
            given = OnceDifferentiable.apply(given, *ctx.saved_tensors)
        return given, None
