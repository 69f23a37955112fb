"""The adaptive weights' update: at the end of a loss's launch, or, for several losses summed up, in its own.

A trainer that accumulates gradients, or shares a batch with other ranks, must use the same weights for all of
it: there the forward pass leaves the state alone, and one program moves it on once, by the summed figures.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ttsfast.kernels.arithmetic import exp, expm1
from ttsfast.terms import state as constants
from ttsfast.terms.state import StepState

_FAST_DECAY = tl.constexpr(constants.FAST_DECAY)
_LOG_FAST_DECAY = tl.constexpr(math.log(constants.FAST_DECAY))
_SLOW_DECAY = tl.constexpr(constants.SLOW_DECAY)
_LOG_SLOW_DECAY = tl.constexpr(math.log(constants.SLOW_DECAY))
_COLDNESS = tl.constexpr(1 / constants.DWA_TEMPERATURE)
_LOWEST, _HIGHEST = (tl.constexpr(bound) for bound in constants.FACTOR_BOUNDS)
_MOST = tl.constexpr(constants.LOG_VARIANCE_BOUND)
_STEEPEST = tl.constexpr(constants.STEEPEST)
_RATE = tl.constexpr(constants.UNCERTAINTY_RATE)


def update_weights(state: StepState, active: tuple[bool, ...], values: Tensor, floors: Tensor) -> None:
    """Move ``state`` on by the figures of one optimiser step, in one launch on the current stream.

    Args:
        state: its method is ``"dwa"`` or ``"uncertainty"``; on the device of the figures.
        active: by term, whether it takes part.
        values, floors: (n,) sums over the micro-batches and ranks of the step, of the first n terms.
    """
    bits = sum(1 << i for i, each in enumerate(active) if each)
    with torch.cuda.device_of(values):
        update_adaptive_weights[(1,)](
            values.contiguous(),
            floors.contiguous(),
            tuple(state[1:7]),
            bits,
            METHOD=state.method,
            COUNT=len(values),
            LANES=triton.next_power_of_2(len(values)),
            num_warps=1,
        )


@triton.jit(do_not_specialize=["values", "floors", "active_bits"])
def update_adaptive_weights(
    values, floors, state, active_bits, METHOD: tl.constexpr, COUNT: tl.constexpr, LANES: tl.constexpr
):
    """One program; ``state`` as in :class:`ttsfast.kernels.arguments.Weighting`."""
    i = tl.arange(0, LANES)
    there = i < COUNT
    active = there & (((active_bits >> i) & 1) == 1)
    value = tl.load(values + i, mask=there, other=0.0)
    observe(value, tl.load(floors + i, mask=there, other=0.0), active, state, there, METHOD)


@triton.jit
def observe(values, floors, active, state, there, METHOD: tl.constexpr):
    """One step of ``ttsfast.losses.adaptive.update``, in float32; ``there`` are the lanes of terms, None
    where all are."""
    factors_at, fast_at, slow_at, variances_at, observations_at, skipped_at = state
    i = tl.arange(0, values.shape[0])
    excess = values - floors
    seen = tl.where(excess < 0, 0.0, excess).to(tl.float32)
    finite = tl.abs(seen) < float("inf")
    bad = tl.max(tl.where(active & (finite == 0), 1, 0))
    changed = active & (bad == 0)
    tl.store(skipped_at, tl.load(skipped_at) + bad)
    observations = tl.load(observations_at) + (1 - bad)
    tl.store(observations_at, observations)

    n = tl.maximum(observations, 1)
    fast = _average(tl.load(fast_at + i, mask=there), seen, n, changed, _FAST_DECAY, _LOG_FAST_DECAY)
    slow = _average(tl.load(slow_at + i, mask=there), seen, n, changed, _SLOW_DECAY, _LOG_SLOW_DECAY)
    tl.store(fast_at + i, fast, mask=there)
    tl.store(slow_at + i, slow, mask=there)

    if METHOD == "dwa":
        factors = _shared_out(_ratio(fast, slow), _COLDNESS, active)
    elif METHOD == "uncertainty":
        variances = tl.load(variances_at + i, mask=there)
        slope = tl.maximum(0.5 * (1.0 - exp(-variances) * seen), -_STEEPEST)
        moved = variances - _RATE * slope
        moved = tl.minimum(tl.maximum(moved, -_MOST), _MOST)
        variances = tl.where(changed, moved, variances)
        tl.store(variances_at + i, variances, mask=there)
        factors = _shared_out(-variances, 1.0, active)
    tl.store(factors_at + i, tl.where(changed, factors, tl.load(factors_at + i, mask=there)), mask=there)


@triton.jit
def _shared_out(exponents, COLDNESS: tl.constexpr, active):
    """``exp(exponents * COLDNESS)`` over its mean over the active terms, within the bounds."""
    exponents = tl.where(active, exponents, float("-inf"))
    # Measured from the largest, so that equal ones give exp(0) = 1 and exactly 1 after division.
    raised = tl.where(active, exp((exponents - tl.max(exponents)) * COLDNESS), 0.0)
    count = tl.sum(tl.where(active, 1.0, 0.0))
    return tl.minimum(tl.maximum(raised * tl.div_rn(count, tl.sum(raised)), _LOWEST), _HIGHEST)


@triton.jit
def _average(average, seen, n, changed, DECAY: tl.constexpr, LOG_DECAY: tl.constexpr):
    """Exponential average, bias-corrected: the n-th observation has weight (1 - d) / (1 - d^n)."""
    forgotten = -expm1(n.to(tl.float32) * LOG_DECAY)
    share = tl.where(n == 1, 1.0, (1.0 - DECAY) / forgotten)
    return tl.where(changed, average + share * (seen - average), average)


@triton.jit
def _ratio(above, below):
    """``above / below``, 1 where ``below`` is 0; correctly rounded, so that equal numbers give 1."""
    known = below > 0
    return tl.where(known, tl.div_rn(above, tl.where(known, below, 1.0)), 1.0)
