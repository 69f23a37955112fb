"""Rows of symbols, one to a lane: neighbours, sums of logarithms, and sums that lose nothing."""

# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl

from ttsfast.kernels.arithmetic import exp, log1p_of_unit


@triton.jit
def from_left(row, first, WIDTH: tl.constexpr):
    """Each lane's left neighbour, and ``first`` in the first lane."""
    lane = tl.arange(0, WIDTH)
    return tl.where(lane == 0, first, tl.gather(row, tl.maximum(lane - 1, 0), 0))


@triton.jit
def from_right(row, last, WIDTH: tl.constexpr):
    """Each lane's right neighbour, and ``last`` in the last lane."""
    lane = tl.arange(0, WIDTH)
    return tl.where(lane == WIDTH - 1, last, tl.gather(row, tl.minimum(lane + 1, WIDTH - 1), 0))


@triton.jit
def log_add(a, b):
    """log(e^a + e^b); where only one is NaN, it must be b."""
    high = tl.where(a > b, a, b)
    # Of two negative infinities the difference is NaN.
    return tl.where(high == float("-inf"), high, high + log1p_of_unit(exp(-tl.abs(a - b))))


@triton.jit
def two_sum(a, b):
    """a + b as it is rounded, and what rounding left off (Knuth); nothing of an infinity."""
    total = a + b
    part = total - a
    return total, tl.where(tl.abs(total) < float("inf"), (a - (total - part)) + (b - part), 0.0)
