"""Elementary functions with the accuracy of a maths library, in float32 or float64, without local memory.

``tl.exp`` is a bare ``ex2.approx`` whose relative error grows with its argument, and ``expm1``, ``log1p``,
``sin`` and ``cos`` exist only as library calls, some of which need a stack. Each function here says its
error; all of them pass NaN on.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl

_LOG2_E = tl.constexpr(1.4426950408889634)
_LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def exp(x):
    """e^x within 2 units in the last place of float32, up to overflow.

    The rounding error of ``x * log2(e)`` is recovered with a fused multiply-add and applied to first order.
    """
    # Of log2(e): what float32, or float64, leaves off.
    rest = 1.925963033500893e-8 if x.dtype == tl.float32 else 2.0355273740931033e-17
    t = x * _LOG2_E
    error = tl.fma(x, tl.full(x.shape, _LOG2_E, x.dtype), -t) + x * rest
    e = tl.exp2(t)
    # At 0 and infinity there is nothing to correct, and inf - inf is NaN.
    return tl.where((e > 0) & (e < float("inf")), e + e * (error * _LN_2), e)


@triton.jit
def expm1(x):
    """e^x - 1 within 3 units in the last place."""
    return tl.where(tl.abs(x) < 0.5, x * _expm1_series(x), exp(x) - 1.0)


@triton.jit
def one_minus_exp(x):
    """1 - e^-x for x >= 0, within 3 units in the last place; the plain exponential will do far from 0."""
    return tl.where(x < 0.5, x * _expm1_series(-x), 1.0 - tl.exp(-x))


@triton.jit
def _expm1_series(x):
    """(e^x - 1) / x for |x| < 0.5 by Horner's form of 1 + x/2 (1 + x/3 (1 + ...))."""
    terms: tl.constexpr = 10 if x.dtype == tl.float32 else 17
    series = tl.full(x.shape, 1.0, x.dtype)
    for i in tl.static_range(terms - 1):
        series = 1.0 + x * (1.0 / (terms - i)) * series
    return series


@triton.jit
def log1p_of_unit(e):
    """log(1 + e) for e in 0..1, within 3 units in the last place: ``2 artanh(e / (2 + e))``."""
    terms: tl.constexpr = 9 if e.dtype == tl.float32 else 18
    s = e / (2.0 + e)
    square = s * s
    series = tl.full(e.shape, 1.0 / (2 * terms - 1), e.dtype)
    for i in tl.static_range(terms - 1):
        series = 1.0 / (2 * (terms - 2 - i) + 1) + square * series
    return 2.0 * s * series


@triton.jit
def cos_sin_of_turn(v):
    """(cos, sin) of ``2 pi v`` for v in 0..1, absolute error under 2e-7 in float32.

    The nearest quarter turn is taken off exactly, in units of turns.
    """
    terms: tl.constexpr = 6 if v.dtype == tl.float32 else 10
    quarter = tl.floor(4.0 * v + 0.5)
    angle = (v - 0.25 * quarter) * 6.283185307179586
    square = angle * angle
    cosine = tl.full(v.shape, 1.0, v.dtype)
    sine = tl.full(v.shape, 1.0, v.dtype)
    for i in tl.static_range(terms - 1):
        # 1 - a^2/(1*2) (1 - a^2/(3*4) (...)) and 1 - a^2/(2*3) (1 - a^2/(4*5) (...)).
        # Spelled out: the interpreter turns a named constant into a tensor, and its inverse to float32.
        cosine = 1.0 - square * (1.0 / ((2 * (terms - i) - 3) * (2 * (terms - i) - 2))) * cosine
        sine = 1.0 - square * (1.0 / ((2 * (terms - i) - 2) * (2 * (terms - i) - 1))) * sine
    sine *= angle
    swapped = (quarter == 1.0) | (quarter == 3.0)
    c = tl.where(swapped, sine, cosine)
    s = tl.where(swapped, cosine, sine)
    return (
        tl.where((quarter == 1.0) | (quarter == 2.0), -c, c),
        tl.where((quarter == 2.0) | (quarter == 3.0), -s, s),
    )


@triton.jit
def logistic(x):
    """(softplus(-x), softplus(x), sigmoid(-x), sigmoid(x)), none of which overflows."""
    e = exp(-tl.abs(x))
    tail = log1p_of_unit(e)
    larger = 1.0 / (1.0 + e)
    smaller = e * larger
    # Written with comparisons, not maxima: a maximum drops NaN.
    below = tl.where(x < 0, -x, tl.where(x == x, 0.0, x)) + tail
    above = tl.where(x > 0, x, tl.where(x == x, 0.0, x)) + tail
    return below, above, tl.where(x > 0, smaller, larger), tl.where(x > 0, larger, smaller)
