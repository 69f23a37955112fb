"""Tensors far larger than memory, of which only what is touched exists."""

from __future__ import annotations

import mmap

import torch
from torch import Tensor

# Named by Python from 3.13 on.
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)


def sparse(size: int, dtype: torch.dtype) -> Tensor:
    """(size,) zeros."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
    return torch.frombuffer(mmap.mmap(-1, size * dtype.itemsize, flags=flags), dtype=dtype)


def far_apart(tensor: Tensor, axes: int | None = None) -> Tensor:
    """The same values, so that along each of the first axes the last element lies beyond 2^31 elements from
    the first, while each stride is below; the other axes are one run."""
    axes = tensor.dim() if axes is None else axes
    strides = list(tensor.stride())
    for axis in range(axes):
        # No two elements in one place: what is added differs from axis to axis.
        strides[axis] = 2**31 // max(tensor.shape[axis] - 1, 1) + 16 * 7**axis
        assert strides[axis] < 2**31 or tensor.shape[axis] < 3
    last = sum((count - 1) * stride for count, stride in zip(tensor.shape, strides, strict=True))
    spread = sparse(last + 1, tensor.dtype).as_strided(tensor.shape, strides)
    spread.copy_(tensor)
    assert torch.equal(spread.nan_to_num(), tensor.nan_to_num()), "two elements share a place"
    return spread
