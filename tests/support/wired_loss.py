"""A small model with every input of the loss, and calls of ``TTSLoss`` on a fused backend."""

from __future__ import annotations

from typing import Any

import torch
from functional_cases import BACKEND
from torch import Tensor, nn

from ttsfast import TTSLoss

LENGTHS, TEXT, FRAMES, BINS, LATENTS = torch.tensor([7, 3, 5, 6]), torch.tensor([4, 2, 3, 4]), 9, 8, 3


class Model(nn.Module):
    """Every input of the loss from one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(5, 2 * BINS + 1 + 2 * LATENTS + 4)

    def forward(self, x: Tensor) -> dict[str, Any]:
        before, after, stop, mu, logvar, attention = self.layer(x).split(
            [BINS, BINS, 1, LATENTS, LATENTS, 4], dim=-1
        )
        return {
            "mel_pred": (before, before + after),
            "stop_logits": stop.squeeze(-1),
            "posterior": (mu, logvar),
            "attention": attention.softmax(-1),
        }


def data(step: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(step)
    return torch.randn(4, FRAMES, 5, generator=draw), torch.randn(4, FRAMES, BINS, generator=draw)


def make(backend: str = BACKEND, **options: Any) -> TTSLoss:
    return TTSLoss(backend=backend, mel_smoothing="noise", kl_free_bits=0.25, **options)


def call(
    loss: TTSLoss, model: nn.Module, x: Tensor, y: Tensor, rows: slice = slice(None), **more: Any
) -> Any:
    outputs = model(x[rows])
    return loss(**outputs, mel_target=y[rows], mel_lengths=LENGTHS[rows], text_lengths=TEXT[rows], **more)
