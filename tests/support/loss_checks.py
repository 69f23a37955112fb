"""Comparisons that cannot pass by accident, and batches to compare on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ttsfast.losses.module import TTSLoss


def assert_close(actual: Tensor, expected: Tensor | float, rtol: float = 1e-10, atol: float = 1e-12) -> None:
    """Equal within tolerance; NaN, two all-zero tensors and a tensor against itself are failures."""
    expected = torch.as_tensor(expected, device=actual.device)
    assert actual.shape == expected.shape, f"{tuple(actual.shape)} against {tuple(expected.shape)}"
    assert actual.numel() > 0, "nothing to compare"
    assert actual.data_ptr() != expected.data_ptr(), "a tensor compared with itself"
    assert not actual.isnan().any(), "NaN in the result"
    assert not expected.isnan().any(), "NaN in the expectation"
    assert actual.count_nonzero() or expected.count_nonzero(), "both are all zero: nothing is shown"
    torch.testing.assert_close(actual.double(), expected.double(), rtol=rtol, atol=atol)


def make_batch(
    lengths: list[int],
    text_lengths: list[int],
    *,
    frames: int | None = None,
    symbols: int | None = None,
    bins: int = 5,
    latents: int = 3,
    heads: int | None = None,
    per_frame: bool = False,
    pair: bool = False,
    prior: bool = False,
    reduction: int = 1,
    tail: int = 8,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> dict[str, Any]:
    """Keyword arguments of one loss call; every real tensor but the target requires gradients."""
    draw = torch.Generator().manual_seed(seed)
    batch = len(lengths)
    frames = max(lengths) + tail * reduction if frames is None else frames
    symbols = max(text_lengths) if symbols is None else symbols
    steps = -(-frames // reduction)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()

    def latent() -> tuple[Tensor, Tensor]:
        shape = (batch, frames, latents) if per_frame else (batch, latents)
        return normal(*shape), normal(*shape)

    weights = (batch, steps, symbols) if heads is None else (batch, heads, steps, symbols)
    arguments: dict[str, Any] = {
        "mel_pred": (normal(batch, frames, bins), normal(batch, frames, bins))
        if pair
        else normal(batch, frames, bins),
        "mel_target": normal(batch, frames, bins).detach(),
        "mel_lengths": torch.tensor(lengths),
        "stop_logits": normal(batch, steps),
        "posterior": latent(),
        "attention": torch.rand(*weights, generator=draw, dtype=torch.float64).to(dtype).requires_grad_(),
        "text_lengths": torch.tensor(text_lengths),
    }
    if prior:
        arguments["prior"] = latent()
    if reduction > 1:
        arguments["step_lengths"] = torch.tensor([-(-n // reduction) for n in lengths])
    return arguments


def leaves(arguments: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a call that require gradients, by name."""
    found: dict[str, Tensor] = {}
    for name, value in arguments.items():
        for i, part in enumerate(value if isinstance(value, (tuple, list)) else (value,)):
            if isinstance(part, Tensor) and part.requires_grad:
                found[f"{name}.{i}"] = part
    return found


def gradients(loss: TTSLoss, arguments: dict[str, Any], **more: Any) -> dict[str, Tensor]:
    """Gradient of the total with respect to every leaf; zeros where none flows."""
    inputs = leaves(arguments)
    total = loss(**arguments, **more).total
    grads = torch.autograd.grad(total, list(inputs.values()), allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if grad is None else grad
        for (name, leaf), grad in zip(inputs.items(), grads, strict=True)
    }


def make_loss(**options: Any) -> TTSLoss:
    """A loss with fixed weights unless asked otherwise."""
    return TTSLoss(**{"weighting": "fixed", **options})
