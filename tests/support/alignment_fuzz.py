"""Random ragged batches through a backend, held against the reference: durations equal, the rest close."""

from __future__ import annotations

import random

import torch
from alignment_cases import LAYOUTS, Batch, make_batch
from torch import Tensor

from ttsfast.functional import forward_sum_loss, monotonic_alignment

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
POISON = (float("nan"), float("inf"), float("-inf"), 0.0)


def random_batch(seed: int, frames: int, symbols: int) -> tuple[Batch, random.Random]:
    """With N = 1, T = N, T < N and lengths of 0 more often than by chance."""
    draw = random.Random(seed)
    size = draw.randint(1, 4)
    mel = [draw.randint(0, frames) for _ in range(size)]
    text = [
        min(symbols, draw.choice((1, t, t + 1, draw.randint(0, symbols), draw.randint(0, max(t, 1)))))
        for t in mel
    ]
    spare = draw.randint(0, 3)
    batch = make_batch(
        mel,
        text,
        max(mel) + spare,
        max(text) + draw.randint(0, 3),
        seed=seed,
        ties=draw.random() < 0.3,
        poison=draw.choice(POISON),
    )
    return batch, draw


def difference(seed: int, backend: str, frames: int, symbols: int) -> str | None:
    """What the backend computes otherwise than the reference for the batch of that number, or None."""
    batch, draw = random_batch(seed, frames, symbols)
    dtype = draw.choice(DTYPES)
    scores = batch.scores.to(dtype)
    if draw.random() < 0.3:
        holes = torch.rand(scores.shape, generator=torch.Generator().manual_seed(seed)) < 0.05
        scores = scores.masked_fill(holes & batch.valid(), -torch.inf)
    name = draw.choice(list(LAYOUTS))
    about = f"batch {seed} ({dtype}, {name}, {batch.mel_lengths.tolist()}, {batch.text_lengths.tolist()})"
    given = LAYOUTS[name](scores)
    wide = scores if dtype == torch.float64 else scores.float()
    found, expected = (
        monotonic_alignment(x, *batch.lengths(), backend=b) for x, b in ((given, backend), (wide, "torch"))
    )
    assert isinstance(found, Tensor)
    assert isinstance(expected, Tensor)
    if not torch.equal(found, expected):
        return f"{about}: durations {found.tolist()}, not {expected.tolist()}"
    blank = draw.choice((-1.0, 0.0, -5.0, 3.5))
    ours, theirs = (_both(batch, x, b, blank) for x, b in ((given, backend), (scores.double(), "torch")))
    tolerance = 1e-10 if dtype == torch.float64 else 2e-5
    stored = 5 * tolerance + torch.finfo(dtype).eps
    for what, a, b, close in (
        ("loss", ours[0], theirs[0], tolerance),
        ("gradient", ours[1], theirs[1], stored),
    ):
        # Where no path is possible the gradient is NaN.
        if not torch.allclose(a.double(), b, rtol=close, atol=close, equal_nan=True):
            return f"{about}: {what} off by {float((a.double() - b).abs().nan_to_num(0).max()):.3g}"
    if ours[1][~batch.valid()].any():
        return f"{about}: a gradient in padding"
    return None


def _both(batch: Batch, scores: Tensor, backend: str, blank: float) -> tuple[Tensor, Tensor]:
    leaf = scores.detach().requires_grad_()
    losses = forward_sum_loss(leaf, *batch.lengths(), blank, "none", backend=backend)
    weights = torch.linspace(1, 2, len(losses), dtype=losses.dtype)
    return losses.detach(), torch.autograd.grad(losses, leaf, weights)[0]
