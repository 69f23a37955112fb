"""Philox 4x32-10 (Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3") in exact integers.

Counter-based: element (b, t, c) of step s has the same noise on every backend, under every padding and
in every order of evaluation. The layout that all backends share:

1. key = (seed mod 2^32, step mod 2^32); counter = (c // 4, t, b, 0); ten rounds give x0..x3.
2. u = ((x >> 8) + 1) * 2^-24 for x0 and x2, in (0, 1]; v = (x >> 8) * 2^-24 for x1 and x3, in [0, 1).
   Both are exact in float32.
3. Box-Muller: bins c = 4k..4k+3 receive sqrt(-2 ln u0) cos(2 pi v1), sqrt(-2 ln u0) sin(2 pi v1),
   sqrt(-2 ln u2) cos(2 pi v3), sqrt(-2 ln u2) sin(2 pi v3).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
_MASK = 0xFFFFFFFF


def philox4x32(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four 32-bit random words per counter.

    Every tensor is int64 and holds values in 0..2^32-1; shapes broadcast. int64 because torch's
    arithmetic on uint32 is partial.
    """
    x0, x1, x2, x3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        high0, low0 = _multiply(MULTIPLIERS[0], x0)
        high1, low1 = _multiply(MULTIPLIERS[1], x2)
        x0, x1, x2, x3 = high1 ^ x1 ^ k0, low1, high0 ^ x3 ^ k1, low0
        k0, k1 = (k0 + WEYL[0]) & _MASK, (k1 + WEYL[1]) & _MASK
    return x0, x1, x2, x3


def standard_normal(shape: tuple[int, int, int], seed: int, step: Tensor, dtype: torch.dtype) -> Tensor:
    """Standard normal noise (B, T, C) of one step, on the device of ``step`` (a () int64 tensor)."""
    batch, frames, bins = shape
    device = step.device
    b = torch.arange(batch, device=device).view(-1, 1, 1)
    t = torch.arange(frames, device=device).view(1, -1, 1)
    block = torch.arange(-(-bins // 4), device=device).view(1, 1, -1)
    zero = torch.zeros_like(step)
    words = philox4x32((block, t, b, zero), (zero + (seed & _MASK), step & _MASK))
    x0, x1, x2, x3 = ((word >> 8).to(dtype) for word in words)
    unit = 2.0**-24
    pairs = []
    for x, y in ((x0, x1), (x2, x3)):
        radius = torch.sqrt(-2.0 * torch.log((x + 1) * unit))
        angle = (2.0 * math.pi) * (y * unit)
        pairs += [radius * torch.cos(angle), radius * torch.sin(angle)]
    return torch.stack(pairs, dim=-1).flatten(2)[:, :, :bins]


def _multiply(constant: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """High and low words of a 32 x 32 bit product, in 16-bit limbs so that int64 never overflows."""
    low = constant * (x & 0xFFFF)
    high = constant * (x >> 16) + (low >> 16)
    return high >> 16, ((high & 0xFFFF) << 16) | (low & 0xFFFF)
