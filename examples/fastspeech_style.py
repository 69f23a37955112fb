"""A FastSpeech-style model: no recurrence, no stop token, every symbol told how long it lasts.

After FastSpeech (Ren et al., 2019): feed-forward transformer blocks over the text, a duration predictor, the
encoded text repeated for as many frames as each symbol lasts, and blocks over the frames. The durations to
learn from are found on the way, by a small aligner after Badlani et al. (2022): a soft alignment from the
distances between encoded symbols and encoded frames, trained by the likelihood of all monotonic paths; the
likeliest path gives the durations.

    ttsfast train examples/fastspeech_style.yaml
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsfast.config import ModelConfig
from ttsfast.models.interface import AcousticOutput, FreeRunning
from ttsfast.models.voice_info import VoiceInfo
from ttsfast.terms.masks import valid_mask

DURATION_WEIGHT, ALIGNER_WEIGHT = 1.0, 1.0
PRIOR_WIDTH = 0.2
"""of the diagonal that the aligner starts from, in shares of the utterance"""


def build(voice: VoiceInfo, options: ModelConfig) -> FastSpeechStyle:
    """What ``model.architecture: examples.fastspeech_style:build`` calls."""
    return FastSpeechStyle(
        n_symbols=len(voice.symbols),
        n_mels=voice.contract.n_mels,
        n_speakers=len(voice.speakers),
        dropout=options.dropout,
    )


class Conv(nn.Conv1d):
    """A convolution that keeps the length, on (B, T, D); padding must be zero when it comes in."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mT).mT


class Block(nn.Module):
    """Self-attention and two convolutions, each with LayerNorm before and a residual around it."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.widen, self.narrow = Conv(width, 2 * width, 5), Conv(2 * width, width, 1)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """(B, T, D), valid (B, T) -> (B, T, D)"""
        q, k, v = self.qkv(self.norms[0](x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=valid[:, None, None])
        x = x + F.dropout(self.out(read.transpose(1, 2).flatten(2)), self.dropout, self.training)
        h = self.norms[1](x) * valid[..., None]
        h = self.narrow(F.gelu(self.widen(h)))
        return x + F.dropout(h, self.dropout, self.training)


class Stack(nn.Module):
    """Blocks over a sequence whose positions are added as sines and cosines."""

    def __init__(self, width: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """(B, T, D), valid (B, T) -> (B, T, D)"""
        half = x.shape[-1] // 2
        rates = torch.exp(torch.arange(half, device=x.device) * (-math.log(1e4) / half))
        angles = torch.arange(x.shape[1], device=x.device)[:, None] * rates
        x = x + torch.cat([angles.sin(), angles.cos()], dim=-1)
        for block in self.blocks:
            x = block(x, valid)
        return self.norm(x)


class Aligner(nn.Module):
    """Which symbol each frame belongs to, as log-probabilities."""

    def __init__(self, n_mels: int, width: int) -> None:
        super().__init__()
        self.keys = nn.Sequential(Conv(width, width, 3), nn.ReLU(), Conv(width, 64, 1))
        self.queries = nn.Sequential(Conv(n_mels, width, 3), nn.ReLU(), Conv(width, 64, 1))

    def forward(self, text: Tensor, mel: Tensor, text_lengths: Tensor, mel_lengths: Tensor) -> Tensor:
        """Text (B, N, D), mel (B, T, C), both zero in the padding -> (B, T, N)"""
        distance = torch.cdist(self.queries(mel).float(), self.keys(text).float())
        n = torch.arange(text.shape[1], device=text.device) / text_lengths[:, None]
        t = torch.arange(mel.shape[1], device=text.device) / mel_lengths[:, None]
        prior = -((n[:, None] - t[..., None]) ** 2) / (2 * PRIOR_WIDTH**2)
        scores = (prior - distance).masked_fill(~valid_mask(text_lengths, text.shape[1])[:, None], -torch.inf)
        return scores.log_softmax(-1)


def forward_sum(alignment: Tensor, text_lengths: Tensor, mel_lengths: Tensor) -> Tensor:
    """Minus the log-likelihood of all monotonic paths through (B, T, N), summed over the batch.

    It is CTC whose target is every symbol in turn and whose blank is all but impossible.
    """
    symbols = torch.arange(1, alignment.shape[2] + 1, device=alignment.device).expand(len(alignment), -1)
    scores = F.pad(alignment.clamp(min=-1e4), (1, 0), value=-1e4).transpose(0, 1)
    return F.ctc_loss(scores, symbols, mel_lengths, text_lengths, reduction="sum", zero_infinity=True)


@torch.no_grad()
def best_path(alignment: Tensor, text_lengths: Tensor, mel_lengths: Tensor) -> Tensor:
    """Frames of each symbol (B, N) on the likeliest monotonic path through (B, T, N), each at least 1."""
    scores = alignment.cpu().numpy()
    durations = np.zeros((scores.shape[0], scores.shape[2]), dtype=np.int64)
    for row, (n, t) in enumerate(zip(text_lengths.tolist(), mel_lengths.tolist(), strict=True)):
        best = np.full((t, n), -np.inf)
        best[0, 0] = scores[row, 0, 0]
        for frame in range(1, t):
            moved = np.concatenate(([-np.inf], best[frame - 1, :-1]))
            best[frame] = np.maximum(best[frame - 1], moved) + scores[row, frame, :n]
        # With fewer frames than symbols the last symbols are never reached, and last no frame.
        symbol = min(n, t) - 1
        for frame in range(t - 1, -1, -1):
            durations[row, symbol] += 1
            if frame and symbol and best[frame - 1, symbol - 1] >= best[frame - 1, symbol]:
                symbol -= 1
    return torch.from_numpy(durations).to(alignment.device)


def symbol_of_frame(durations: Tensor, frames: int) -> Tensor:
    """(B, N) -> (B, frames): the symbol that each frame belongs to; the last one after the end."""
    ends = durations.cumsum(1)
    t = torch.arange(frames, device=durations.device).expand(len(durations), -1).contiguous()
    return torch.searchsorted(ends, t, right=True).clamp(max=durations.shape[1] - 1)


class FastSpeechStyle(nn.Module):
    """See the module's docstring; one frame per step, so ``reduction_factor`` is 1."""

    reduction_factor = 1

    def __init__(
        self,
        n_symbols: int,
        n_mels: int,
        n_speakers: int = 1,
        width: int = 128,
        layers: int = 2,
        heads: int = 2,
        dropout: float = 0.05,
    ) -> None:
        super().__init__()
        self.symbols = nn.Embedding(n_symbols, width)
        self.speakers = nn.Embedding(n_speakers, width) if n_speakers > 1 else None
        self.encoder = Stack(width, layers, heads, dropout)
        self.decoder = Stack(width, layers, heads, dropout)
        self.aligner = Aligner(n_mels, width)
        self.duration = nn.Sequential(
            Conv(width, width, 3), nn.ReLU(), nn.LayerNorm(width), nn.Linear(width, 1)
        )
        self.output = nn.Linear(width, n_mels)

    def forward(
        self,
        text: Tensor,
        text_lengths: Tensor,
        mel: Tensor,
        mel_lengths: Tensor,
        speaker: Tensor | None = None,
    ) -> AcousticOutput:
        """Mels from the text and the durations that the aligner finds in the recording."""
        embedded, encoded, read = self._encode(text, text_lengths, speaker)
        frames = valid_mask(mel_lengths, mel.shape[1])
        heard = torch.where(frames[..., None], mel, 0.0)
        alignment = self.aligner(embedded, heard, text_lengths, mel_lengths)
        durations = best_path(alignment, text_lengths, mel_lengths)
        error = (self._log_durations(encoded, read) - torch.log1p(durations.float())) * read
        return AcousticOutput(
            mel=self._decode(encoded, durations, frames),
            attention=alignment.exp(),
            auxiliary=DURATION_WEIGHT * error.square().sum()
            + ALIGNER_WEIGHT * forward_sum(alignment, text_lengths, mel_lengths),
        )

    @torch.no_grad()
    def synthesize(
        self,
        text: Tensor,
        text_lengths: Tensor,
        speaker: Tensor | None = None,
        *,
        max_frames: int,
        stop_threshold: float = 0.5,
    ) -> FreeRunning:
        """Mels from the text and the predicted durations; there is no stop token to have a threshold."""
        _, encoded, read = self._encode(text, text_lengths, speaker)
        durations = torch.expm1(self._log_durations(encoded, read)).round().clamp(min=1, max=max_frames)
        durations = (durations * read).long()
        total = durations.sum(1)
        lengths = total.clamp(max=max_frames)
        longest = int(lengths.max())
        mel = self._decode(encoded, durations, valid_mask(lengths, longest))
        attention = F.one_hot(symbol_of_frame(durations, longest), text.shape[1]).float()
        return FreeRunning(mel=mel, mel_lengths=lengths, attention=attention, stopped=total <= max_frames)

    def _encode(
        self, text: Tensor, text_lengths: Tensor, speaker: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        read = valid_mask(text_lengths, text.shape[1])
        embedded = self.symbols(torch.where(read, text, 0))
        if self.speakers is not None and speaker is not None:
            embedded = embedded + self.speakers(speaker)[:, None]
        embedded = embedded * read[..., None]
        return embedded, self.encoder(embedded, read), read

    def _log_durations(self, encoded: Tensor, read: Tensor) -> Tensor:
        return self.duration(encoded * read[..., None])[..., 0].float()

    def _decode(self, encoded: Tensor, durations: Tensor, frames: Tensor) -> Tensor:
        index = symbol_of_frame(durations, frames.shape[1])
        spread = encoded.gather(1, index[..., None].expand(-1, -1, encoded.shape[-1]))
        return self.output(self.decoder(spread, frames))
