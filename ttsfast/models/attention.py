"""Dot-product attention from decoder steps to text, with positions in common units of text symbols."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

SHORTEST_WAVE = 12.0
LONGEST_WAVE = 1000.0
"""Wavelengths of the positional code, in text symbols: where in the sentence a step is, to within a word
or so. Which symbol of the word it speaks is for the content to say, else a voice that speeds up or pauses
would be read at the wrong place."""

PACE_GAIN = 4.0
"""Adam moves every parameter by about the learning rate at each step, whatever its scale; the pace has to
arrive within the first hundred steps, so that its unit is made small."""


class PositionalCode(nn.Module):
    """Sines and cosines of a position (Vaswani et al., 2017), scaled by a learned factor."""

    frequencies: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < 4 or channels % 2:
            raise ValueError(f"a positional code needs an even number of channels from 4 up, not {channels}")
        steps = torch.arange(channels // 2) / (channels // 2 - 1)
        waves = SHORTEST_WAVE * (LONGEST_WAVE / SHORTEST_WAVE) ** steps
        self.register_buffer("frequencies", 2 * math.pi / waves, persistent=False)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, positions: Tensor) -> Tensor:
        """(..., T) positions in symbols -> (..., T, D)"""
        angles = positions[..., None] * self.frequencies
        return self.scale * torch.cat([angles.sin(), angles.cos()], dim=-1)


class TextAttention(nn.Module):
    """One head of scaled dot-product attention whose keys and queries both carry their position.

    A key's position is its symbol's number. A query's is its step's number times the speaker's pace, in
    symbols per step, a learned parameter (after Deep Voice 3, Ping et al., 2018, section 3.5): the code's
    inner product is largest where both agree, so that attention is near the diagonal before anything is
    learnt.
    """

    def __init__(self, channels: int, symbols_per_step: float, n_speakers: int) -> None:
        super().__init__()
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.query = nn.Linear(channels, channels)
        self.position = PositionalCode(channels)
        self.log_pace = nn.Parameter(torch.full((n_speakers,), math.log(symbols_per_step) / PACE_GAIN))

    def read(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Encoded text (B, N, D) -> keys and values, each (B, N, D)."""
        numbers = torch.arange(text.shape[1], device=text.device)
        return self.key(text) + self.position(numbers), self.value(text)

    def forward(
        self,
        steps: Tensor,
        first_step: int | Tensor,
        keys: Tensor,
        values: Tensor,
        allowed: Tensor,
        speaker: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Attend from a run of decoder steps.

        Args:
            steps: (B, S, D) encoded mel.
            first_step: the number of the first of them, counted from the utterance's start; () if a tensor.
            keys, values: (B, N, D) from :meth:`read`.
            allowed: (B, 1 or S, N) bool, True at one symbol at least in each row.
            speaker: (B,) int64

        Returns:
            (B, S, D) what was read, and (B, S, N) the weights; each row sums to 1 over ``allowed``, in
            float32 or wider.
        """
        numbers = first_step + torch.arange(steps.shape[1], device=steps.device)
        pace = torch.exp(PACE_GAIN * self.log_pace)[speaker]
        queries = self.query(steps) + self.position(pace[:, None] * numbers)
        scores = queries @ keys.transpose(1, 2) * steps.shape[-1] ** -0.5
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        weights = scores.masked_fill(~allowed, -torch.inf).softmax(dim=-1)
        return weights.to(values.dtype) @ values, weights
