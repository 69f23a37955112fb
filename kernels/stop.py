"""One program's part of the stop term: read a tile once, write its gradient once, return its sum.

Returns the unweighted sum over its elements, to be scaled by the caller, and writes gradients multiplied by
``scale``. Padded elements are never used, and their gradients are 0.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl

from ttsfast.kernels.arithmetic import logistic
from ttsfast.kernels.memory import load, rounded_up, store


@triton.jit
def stop_steps(stop, utterance, length, tail, truncated, size, block, scale, numbers, OPT: tl.constexpr):
    """Cross-entropy of one tile's steps: ``a * softplus(-x) + b * softplus(x)``, (a, b) by the target."""
    TILE: tl.constexpr = OPT.STOP_TILE
    ALIGN: tl.constexpr = OPT.STOP_ALIGN
    t = block * TILE + tl.arange(0, TILE)
    length = length.to(tl.int32)
    end = length + tail.to(tl.int32)
    inside = t < end
    positive = inside & (t >= length - 1) & (truncated == 0)
    row = tl.multiple_of(utterance * stop.strides[0][0], ALIGN)
    at = stop.logits + row + t.to(tl.int64) * stop.strides[0][1]
    x = tl.where(inside, load(at, t < rounded_up(end, ALIGN), OPT.ACC), 0.0)
    below, above, down, up = logistic(x)
    a = tl.where(positive, numbers.stop_positive[0], numbers.stop_negative[0]).to(OPT.ACC)
    b = tl.where(positive, numbers.stop_positive[1], numbers.stop_negative[1]).to(OPT.ACC)
    # A coefficient of 0 removes its half: it must not meet an infinity.
    value = tl.where(a == 0, 0.0, a * below) + tl.where(b == 0, 0.0, b * above)
    if stop.gradient is not None:
        slope = tl.where(inside, (b * up - a * down) * scale, 0.0)
        row = tl.multiple_of(utterance * stop.strides[1][0], ALIGN)
        at = stop.gradient + row + t.to(tl.int64) * stop.strides[1][1]
        store(at, slope, t < rounded_up(size, ALIGN))
    return tl.sum(tl.where(inside, value, 0.0))
