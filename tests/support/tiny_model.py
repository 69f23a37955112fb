"""A model that trains in no time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ttsfast.config import ModelConfig
from ttsfast.functional import beta_binomial_prior, monotonic_alignment
from ttsfast.models.interface import AcousticOutput, FreeRunning
from ttsfast.models.voice_info import VoiceInfo


class TinyModel(nn.Module):
    """All outputs of an acoustic model from a few linear layers; r = 2."""

    reduction_factor = 2
    aligns = False
    """Whether it gives the outputs of an aligner, too."""

    def __init__(self, symbols: int, bins: int = 80, width: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, width)
        self.dropout = nn.Dropout(0.1)
        self.read = nn.Linear(bins, width)
        self.write = nn.Linear(width, bins * 2)
        self.stop = nn.Linear(width, 1)
        self.latent = nn.Linear(width, 4)

    def forward(
        self,
        text: Tensor,
        text_lengths: Tensor,
        mel: Tensor,
        mel_lengths: Tensor,
        speaker: Tensor | None = None,
    ) -> AcousticOutput:
        batch, frames, bins = mel.shape
        steps = frames // 2
        valid = torch.arange(frames) < mel_lengths[:, None]
        before = torch.roll(torch.where(valid[..., None], mel, 0.0)[:, 1::2], 1, dims=1)
        hidden = self.dropout(torch.tanh(self.read(before)))
        keys = self.embed(text)
        mask = torch.arange(text.shape[1]) < text_lengths[:, None]
        scores = hidden @ keys.mT
        attention = scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1)
        hidden = hidden + attention @ keys
        mean = torch.where(valid[:, 1::2, None], hidden, 0.0).sum(dim=1) / (mel_lengths[:, None] // 2)
        mu, logvar = self.latent(mean).chunk(2, dim=-1)
        return AcousticOutput(
            mel=self.write(hidden).reshape(batch, steps * 2, bins),
            stop_logits=self.stop(hidden)[..., 0],
            step_lengths=(mel_lengths + 1) // 2,
            attention=attention,
            posterior=(mu, logvar),
            **(self.align(scores, text_lengths, (mel_lengths + 1) // 2) if self.aligns else {}),
        )

    def align(self, scores: Tensor, text_lengths: Tensor, steps: Tensor) -> dict[str, Any]:
        _, size, symbols = scores.shape
        prior = beta_binomial_prior(text_lengths, steps, frames=size, symbols=symbols)
        path = monotonic_alignment(scores.detach() + prior, text_lengths, steps)
        return {"alignment_log_probs": scores, "alignment_prior": prior, "alignment_path": path}

    def synthesize(
        self,
        text: Tensor,
        text_lengths: Tensor,
        speaker: Tensor | None = None,
        *,
        max_frames: int,
        stop_threshold: float = 0.5,
    ) -> FreeRunning:
        batch, symbols = text.shape
        frames = 2 * max(2, int(10 * float(self.stop.bias.detach().sigmoid())))
        return FreeRunning(
            mel=self.write(self.embed(text).mean(1, keepdim=True))
            .reshape(batch, 2, -1)
            .repeat(1, frames // 2, 1),
            mel_lengths=torch.full((batch,), frames),
            attention=torch.full((batch, frames // 2, symbols), 1.0 / symbols),
            stopped=torch.ones(batch, dtype=torch.bool),
        )


def tiny(info: VoiceInfo, config: ModelConfig) -> TinyModel:
    """As ``model.architecture=tiny_model:tiny`` names it."""
    return TinyModel(len(info.symbols), info.contract.n_mels)


def traced_only(compile: Callable[..., Any]) -> Callable[..., Any]:
    """``torch.compile`` as far as Python's trace: to make code of it takes seconds."""

    def stand_in(model: nn.Module, *, dynamic: bool, options: Any) -> Any:
        return compile(model, dynamic=dynamic, backend="eager")

    return stand_in
