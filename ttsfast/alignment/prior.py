"""The beta-binomial prior, which draws an untrained alignment to the diagonal."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from ttsfast.terms.checks import check_integer, check_lengths, in_range
from ttsfast.terms.masks import valid_mask

_GROWTH = 256
"""Tables grow in steps of this many rows and columns, so that few are made."""


def beta_binomial_prior(
    text_lengths: Tensor,
    mel_lengths: Tensor,
    scale: float = 1.0,
    *,
    frames: int | None = None,
    symbols: int | None = None,
) -> Tensor:
    """Log-probabilities of the symbols at each frame, to be added to an aligner's scores (Shih et al., 2021).

    At frame t of T, symbol n of N follows a beta-binomial distribution of N - 1 trials with
    ``alpha = scale * t`` and ``beta = scale * (T + 1 - t)``, t from 1: its mean goes along the diagonal.
    Computed in float64 on the lengths' device, from a table that is kept.

    Args:
        text_lengths, mel_lengths: (B,) integers.
        scale: the larger, the narrower.
        frames, symbols: T and N of the result; the longest when None, which waits for a device.

    Returns:
        (B, T, N) float32, 0 in padding.

    Raises:
        TypeError, ValueError: arguments that do not fit.
    """
    in_range("scale", scale, 0, math.inf, open_low=True)
    sizes = []
    for name, lengths, size in (
        ("mel_lengths", mel_lengths, frames),
        ("text_lengths", text_lengths, symbols),
    ):
        if not isinstance(lengths, Tensor):
            raise TypeError(f"{name} must be a tensor of integers, not {type(lengths).__name__}")
        if size is None:
            size = int(lengths.max()) if lengths.numel() else 0
        check_integer("frames" if name == "mel_lengths" else "symbols", size)
        sizes.append(size)
    frames, symbols = sizes
    mel_lengths = check_lengths("mel_lengths", mel_lengths, mel_lengths, frames, "axis T")
    text_lengths = check_lengths("text_lengths", text_lengths, mel_lengths, symbols, "axis N")
    long, wide = (lengths.long().unsqueeze(1) for lengths in (mel_lengths, text_lengths))
    long, wide = long.clamp(0, frames), wide.clamp(0, symbols)
    device = mel_lengths.device
    rows, columns = (-(-(size + 1) // _GROWTH) * _GROWTH for size in (frames, symbols))
    # A compiler traces through a cache, and warns of it.
    table = _table if torch.compiler.is_compiling() else _kept_table
    gammas = table(rows, columns, float(scale), device)
    t = torch.arange(1, frames + 1, device=device)
    n = torch.arange(symbols, device=device)
    opposite, rest = (long + 1 - t).clamp(min=0), (wide - 1 - n).clamp(min=0)
    # C(m, n) B(n + alpha, m - n + beta) / B(alpha, beta) with m = N - 1, each part where it varies.
    of_symbol = torch.lgamma(wide.double()) - torch.lgamma(n.double() + 1) - torch.lgamma(rest.double() + 1)
    of_frame = gammas[t, 0] + gammas.flatten()[opposite * columns]
    total = scale * (long.double() + 1)
    of_utterance = torch.lgamma(total) - torch.lgamma(total + wide - 1)
    # In place: on a CPU new memory of that size costs more than the sums, and there would be much of it.
    prior = gammas.flatten()[(opposite * columns).unsqueeze(2) + rest.unsqueeze(1)]
    prior += gammas[1 : frames + 1, :symbols]
    prior += (of_utterance - of_frame).unsqueeze(2)
    prior += of_symbol.unsqueeze(1)
    spoken, read = valid_mask(long.squeeze(1), frames), valid_mask(wide.squeeze(1), symbols)
    return prior.float().masked_fill_(~(spoken.unsqueeze(2) & read.unsqueeze(1)), 0.0)


def _table(rows: int, columns: int, scale: float, device: torch.device) -> Tensor:
    """(rows, columns) float64, log gamma(scale * t + n); its first row, which nothing uses, is 0."""
    t = torch.arange(rows, dtype=torch.float64, device=device).unsqueeze(1)
    n = torch.arange(columns, dtype=torch.float64, device=device)
    return torch.where(t > 0, torch.lgamma(scale * t + n), 0.0)


_kept_table = lru_cache(maxsize=8)(_table)
