"""What the alignment's benchmark compares: batches, and the ways people align them today.

A search takes scores (B, T, N) and lengths and gives durations (B, N); a loss takes the same and gives a
scalar.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ttsfast.alignment import backends
from ttsfast.functional import forward_sum_loss, monotonic_alignment
from ttsfast.terms.masks import valid_mask

BLANK = -1.0
_NEVER = -1e4
"""Of a log-probability: no chance in float32, and no NaN in the gradient, as of minus infinity."""


@dataclass(frozen=True)
class Case:
    """One size of batch."""

    batch: int
    frames: int
    symbols: int


CASES = (Case(8, 200, 30), Case(16, 400, 80), Case(32, 800, 150), Case(64, 1600, 300))


@dataclass(frozen=True)
class Batch:
    """Scores and how much of them counts."""

    scores: Tensor
    by_symbol: Tensor
    """The same (B, N, T), dense, as the package takes them."""
    mask: Tensor
    """(B, N, T) float32, as the package takes it: 1 where both are valid."""
    text_lengths: Tensor
    mel_lengths: Tensor

    def given(self) -> tuple[Tensor, Tensor, Tensor]:
        """In the order of the functions."""
        return self.scores, self.text_lengths, self.mel_lengths


def make_batch(case: Case, device: torch.device, seed: int = 0) -> Batch:
    """Utterances between half the longest and the longest; scores that rise toward the diagonal, as after
    some training."""
    draw = torch.Generator().manual_seed(seed)
    share = 0.5 + 0.5 * torch.rand(case.batch, generator=draw)
    share[0] = 1.0
    mel, text = ((share * size).ceil().long() for size in (case.frames, case.symbols))
    t, n = torch.arange(case.frames)[None, :, None], torch.arange(case.symbols)[None, None]
    distance = t / mel[:, None, None] - n / text[:, None, None]
    noise = torch.randn(case.batch, case.frames, case.symbols, generator=draw)
    scores = noise - 20 * distance.square()
    mask = valid_mask(text, case.symbols).unsqueeze(2) & valid_mask(mel, case.frames).unsqueeze(1)
    tensors = (scores, scores.transpose(1, 2).contiguous(), mask.float(), text, mel)
    return Batch(*(tensor.to(device) for tensor in tensors))


Search = Callable[[Batch], Tensor]
Loss = Callable[[Batch], Tensor]


def fused(device: torch.device) -> str:
    """The backend that ``"auto"`` takes there."""
    some = make_batch(Case(1, 2, 1), device)
    chosen = backends.choose("auto", *some.given())
    return "torch" if chosen is None else chosen.name


def searches(device: torch.device) -> dict[str, Search]:
    """By name; what is not installed is left out."""
    found: dict[str, Search] = {fused(device): _ours}
    if find_spec("monotonic_alignment_search") is not None:
        found["monotonic-alignment-search"] = _package()
    if find_spec("numba") is not None:
        found["numba"] = _numba()
    return found


def losses(device: torch.device) -> dict[str, Loss]:
    """By name: ours, and CTC for the batch at once and utterance by utterance."""

    def ours(batch: Batch) -> Tensor:
        return forward_sum_loss(*batch.given(), BLANK)

    return {fused(device): ours, "ctc-batched": batched_ctc, "ctc-looped": looped_ctc}


def batched_ctc(batch: Batch) -> Tensor:
    """One call; symbols beyond an utterance's own are masked before they are normalised."""
    scores, text, mel = batch.given()
    valid = valid_mask(text, scores.shape[2]).unsqueeze(1)
    rows = F.pad(scores.masked_fill(~valid, _NEVER), (1, 0), value=BLANK).log_softmax(2)
    targets = torch.arange(1, scores.shape[2] + 1, device=scores.device).expand(len(text), -1)
    return F.ctc_loss(rows.transpose(0, 1), targets, mel, text, zero_infinity=True)


def looped_ctc(batch: Batch) -> Tensor:
    """As RAD-TTS and FastPitch compute it: one call for each utterance."""
    wide = F.pad(batch.scores, (1, 0), value=BLANK)
    parts = []
    for row, symbols, frames in zip(wide, batch.text_lengths, batch.mel_lengths, strict=True):
        n, t = int(symbols), int(frames)
        rows = row[:t, : n + 1].log_softmax(1).unsqueeze(1)
        targets = torch.arange(1, n + 1, device=rows.device).unsqueeze(0)
        parts.append(F.ctc_loss(rows, targets, frames[None], symbols[None], zero_infinity=True))
    return torch.stack(parts).mean()


def _ours(batch: Batch) -> Tensor:
    durations = monotonic_alignment(*batch.given())
    assert isinstance(durations, Tensor)
    return durations


def _package() -> Search:
    from monotonic_alignment_search import maximum_path

    def search(batch: Batch) -> Tensor:
        durations: Tensor = maximum_path(batch.by_symbol, batch.mask).sum(2)
        return durations

    return search


def _numba() -> Search:
    import numba
    import numpy as np

    most = numba.get_num_threads()

    @numba.njit(parallel=True)
    def paths(values: Any, text: Any, mel: Any, durations: Any) -> None:
        for b in numba.prange(values.shape[0]):
            value, frames, symbols = values[b], mel[b], text[b]
            for t in range(1, frames):
                for n in range(max(0, symbols + t - frames), min(symbols, t + 1)):
                    stay = value[t - 1, n] if n < t else np.float32(-np.inf)
                    move = value[t - 1, n - 1] if n > 0 else np.float32(-np.inf)
                    value[t, n] += max(stay, move)
            n = symbols - 1
            for t in range(frames - 1, -1, -1):
                durations[b, n] += 1
                if n > 0 and (n == t or value[t - 1, n] < value[t - 1, n - 1]):
                    n -= 1

    def search(batch: Batch) -> Tensor:
        numba.set_num_threads(min(torch.get_num_threads(), most))
        scores, text, mel = (tensor.cpu().numpy() for tensor in batch.given())
        durations = np.zeros((scores.shape[0], scores.shape[2]), np.int64)
        paths(scores.astype(np.float32), text, mel, durations)
        return torch.from_numpy(durations).to(batch.scores.device)

    return search
