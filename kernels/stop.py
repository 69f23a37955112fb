"""One program's part of the stop term: read a tile once, write its gradient once, return its sum.

Returns the unweighted sum over its elements, to be scaled by the caller, and writes gradients multiplied by
``scale``. Padded elements are never used, and their gradients are 0.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl
from ttsfast.kernels.arithmetic import logistic
from ttsfast.kernels.memory import load, store


@triton.jit
def stop_steps(
    logits,
    gradient,
    strides,
    gradient_strides,
    utterance,
    length,
    tail,
    truncated,
    size,
    block,
    scale,
    a0,
    b0,
    a1,
    b1,
    TILE: tl.constexpr,
    ACC: tl.constexpr,
):
    """Cross-entropy of TILE steps: ``a * softplus(-x) + b * softplus(x)``, (a, b) by the step's target."""
    t = block * TILE + tl.arange(0, TILE)
    length = length.to(tl.int32)
    inside = t < length + tail.to(tl.int32)
    positive = inside & (t >= length - 1) & (truncated == 0)
    x = load(logits + utterance * strides[0] + t.to(tl.int64) * strides[1], inside, ACC)
    below, above, down, up = logistic(x)
    a = tl.where(positive, a1, a0).to(ACC)
    b = tl.where(positive, b1, b0).to(ACC)
    # A coefficient of 0 removes its half: it must not meet an infinity.
    value = tl.where(a == 0, 0.0, a * below) + tl.where(b == 0, 0.0, b * above)
    if gradient is not None:
        slope = tl.where(inside, b * up - a * down, 0.0)
        at = gradient + utterance * gradient_strides[0] + t.to(tl.int64) * gradient_strides[1]
        store(at, slope * scale, t < size)
    return tl.sum(tl.where(inside, value, 0.0))
