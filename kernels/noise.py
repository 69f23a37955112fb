"""Standard normal noise by Philox 4x32-10: the integers of ``ttsfast.losses.philox``, bit for bit."""

# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl

from ttsfast.kernels.arithmetic import cos_sin_of_turn


@triton.jit
def four_normals(quad, frame, utterance, seed, step, ACC: tl.constexpr):
    """Noise of bins 4 * quad .. 4 * quad + 3 as four tensors; arguments as of :func:`four_words`."""
    x0, x1, x2, x3 = four_words(quad, frame, utterance, seed, step)
    a, b = _box_muller(x0, x1, ACC)
    c, d = _box_muller(x2, x3, ACC)
    return a, b, c, d


@triton.jit
def four_words(quad, frame, utterance, seed, step):
    """Random words of a group of four bins, uint32.

    ``quad`` and ``frame`` broadcast to one shape; ``seed`` is 32 bits wide, ``step`` int64.
    """
    counter = quad.to(tl.uint32) + tl.zeros(frame.shape, tl.uint32)
    frame = frame.to(tl.uint32) + tl.zeros(counter.shape, tl.uint32)
    key = (step.to(tl.uint64) << 32) | seed.to(tl.uint32).to(tl.uint64)
    fixed = tl.zeros(counter.shape, tl.uint32)
    return tl.philox(key, counter, frame, fixed + utterance.to(tl.uint32), fixed)


@triton.jit
def interleave_four(a, b, c, d):
    """(..., n, 4) of four (..., n): element 4 i + k of the flattened last two axes is the k-th one's i."""
    return tl.join(tl.join(a, c), tl.join(b, d))


@triton.jit
def _box_muller(x, y, ACC: tl.constexpr):
    unit = 5.9604644775390625e-08
    u = ((x >> 8) + 1).to(ACC) * unit
    v = (y >> 8).to(ACC) * unit
    # log(1) may come out as -0 or a hair above it.
    radius = tl.sqrt(tl.maximum(-2.0 * tl.log(u), 0.0))
    c, s = cos_sin_of_turn(v)
    return radius * c, radius * s
