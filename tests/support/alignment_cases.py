"""Ragged batches to align, with NaN in their padding, and the backends that align them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from cpp_checks import MISSING
from interpreter import INTERPRETED
from strided import sliced, spread, transposed
from torch import Tensor

BACKENDS = ["triton"] if INTERPRETED else ["torch"] if MISSING else ["cpp", "torch"]
backends = pytest.mark.parametrize("backend", BACKENDS)
needs_cpp = pytest.mark.skipif(MISSING or INTERPRETED, reason="of the C++ extension")
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {"dense": lambda tensor: tensor, "transposed": transposed}
if not INTERPRETED:
    LAYOUTS |= {"sliced": sliced, "spread": spread}


class Batch(NamedTuple):
    scores: Tensor
    """(B, T, N) float64, NaN beyond the lengths."""
    text_lengths: Tensor
    mel_lengths: Tensor

    def valid(self) -> Tensor:
        _, frames, symbols = self.scores.shape
        t, n = torch.arange(frames)[None, :, None], torch.arange(symbols)[None, None]
        return (t < self.mel_lengths[:, None, None]) & (n < self.text_lengths[:, None, None])

    def lengths(self) -> tuple[Tensor, Tensor]:
        return self.text_lengths, self.mel_lengths


def make_batch(
    mel_lengths: list[int],
    text_lengths: list[int],
    frames: int | None = None,
    symbols: int | None = None,
    *,
    seed: int = 0,
    ties: bool = False,
    poison: float = float("nan"),
) -> Batch:
    """``ties``: scores of few values, so that many paths are equally good."""
    draw = torch.Generator().manual_seed(seed)
    frames = max(mel_lengths, default=0) if frames is None else frames
    symbols = max(text_lengths, default=0) if symbols is None else symbols
    shape = (len(mel_lengths), frames, symbols)
    scores = torch.randn(shape, generator=draw, dtype=torch.float64) * 3
    batch = Batch(
        scores.round().clamp(-1, 1) if ties else scores,
        torch.tensor(text_lengths, dtype=torch.int64),
        torch.tensor(mel_lengths, dtype=torch.int64),
    )
    return batch._replace(scores=torch.where(batch.valid(), batch.scores, poison))


MIXED = make_batch([12, 12, 7, 9, 2, 0, 5, 1], [9, 1, 5, 9, 3, 2, 0, 1], frames=13, symbols=10)
"""N = 1, T = N, T < N, length 0, no text, one cell."""
WIDE = make_batch([35], [3]) if INTERPRETED else make_batch([45, 41, 33, 40], [37, 33, 16, 17], seed=1)
"""Beyond one vector of symbols and one word of frames; in the interpreter, which is slow, of frames."""
CASES = {"mixed": MIXED, "wide": WIDE}
cases = pytest.mark.parametrize("name", CASES)
