"""Tensors of the same values elsewhere in memory, with NaN wherever they leave gaps."""

from __future__ import annotations

import torch
from torch import Tensor


def transposed(tensor: Tensor) -> Tensor:
    """(B, T, C) as a view of (B, C, T)."""
    return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)


def sliced(tensor: Tensor) -> Tensor:
    """A part of something larger on every side."""
    outer = torch.full([size + 3 for size in tensor.shape], float("nan"), dtype=tensor.dtype)
    inner = outer[tuple(slice(1, 1 + size) for size in tensor.shape)]
    return inner.copy_(tensor)


def spread(tensor: Tensor) -> Tensor:
    """Every other element of the last axis."""
    outer = torch.full((*tensor.shape[:-1], 2 * tensor.shape[-1]), float("nan"), dtype=tensor.dtype)
    return outer[..., ::2].copy_(tensor)
