"""How the kernel is cut: a small heuristic in place of an autotuner, which would time kernels in training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor


class Settings(NamedTuple):
    """What differs between makers of GPUs."""

    threads: int
    """Of a program. A tile gives each one or two accesses of 16 bytes to each of its tensors; more would cost
    registers, and with them the occupancy that hides the latency of memory."""
    options: dict[str, Any]
    """Of the compiler."""


NUM_WARPS = 4
NVIDIA = Settings(
    threads=32 * NUM_WARPS,
    # Six programs on a multiprocessor. Left to itself the assembler spills a few registers for one more.
    options={"num_warps": NUM_WARPS, "enable_fp_fusion": True, "maxnreg": 80},
)
AMD = Settings(threads=64 * NUM_WARPS, options={"num_warps": NUM_WARPS, "enable_fp_fusion": True})
SETTINGS = NVIDIA if torch.version.hip is None else AMD

VECTOR_BYTES = 16
"""Widest access of one thread."""
MEL_ELEMENTS = 8
"""Of a mel tile, per thread: one access of bf16, two of float32, to each tensor."""
MEL_STRIDED_BINS = 16
"""Of a tile of a mel with gaps or transposed: 16 divide the usual 80, and leave 32 frames or more, a whole
line where time is contiguous."""
KL_WIDTH = 256
"""Widest latent vector that is one row of a tile."""
STOP_ELEMENTS = 4
"""Of a tile of stop logits, per thread: the logistic function of more would cost too many registers."""
ATTENTION_WIDTH = 64
"""Symbols of an attention tile; it has as many steps as give each thread one 16-byte access."""
MAX_PROGRAMS = 4096
"""Programs of one term: several times what any GPU holds at once, and few enough that the last program
sums their partials in a few microseconds. Larger inputs give each program more tiles."""
BATCH_BLOCK = 128
"""Utterances whose lengths are read at once."""
REDUCE_BLOCK = 512
"""Partials that the last program reads at once."""


def mel_elements(size: int) -> int:
    """Of a tile of utterances that are one run of ``size`` elements each: a power of two, within bounds."""
    return min(MEL_ELEMENTS * SETTINGS.threads, max(128, triton.next_power_of_2(max(size, 1))))


def one_access(tensors: Iterable[Tensor | None]) -> int:
    """Elements of a tile that gives each thread 16 bytes of the narrowest tensor."""
    return SETTINGS.threads * _vector(tensors)


def alignment(tensors: Iterable[Tensor | None], *sizes: int) -> int:
    """Elements of 16 bytes of the narrowest tensor where that divides all sizes, 1 otherwise.

    What lies between would be narrower vectors, at the price of a kernel for each in the midst of training.
    """
    vector = _vector(tensors)
    return vector if all(size % vector == 0 for size in sizes) else 1


def common_alignment(size: int, tensors: Sequence[Tensor | None]) -> int:
    """Of a last axis of ``size`` and all other strides, 1 where that axis has gaps."""
    present = [tensor for tensor in tensors if tensor is not None]
    if any(tensor.stride(-1) != 1 for tensor in present):
        return 1
    strides = [t.stride(axis) for t in present for axis in range(t.dim() - 1) if t.shape[axis] > 1]
    return alignment(present, size, *strides)


def _vector(tensors: Iterable[Tensor | None]) -> int:
    """Elements of 16 bytes of the narrowest tensor."""
    return VECTOR_BYTES // min(t.element_size() for t in tensors if t is not None)


def lanes(symbols: int) -> int:
    """Of a row of so many symbols: a power of two, at least a warp of four each."""
    return max(128, triton.next_power_of_2(symbols))


def options_of_lanes(width: int) -> dict[str, Any]:
    """Of a kernel whose every step waits for the one before: as few warps as hold four symbols a thread,
    since those of one warp hand values to their neighbours without memory."""
    return {"num_warps": min(8, width // 128), "enable_fp_fusion": True}
