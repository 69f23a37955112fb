"""What a step leaves to the next: its buffers, and the constants of the adaptive weights, which every backend
moves on by the same rule. :mod:`ttsfast.losses.adaptive` says what they do.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ttsfast.terms.spec import LossSpec

METHODS = ("fixed", "dwa", "uncertainty")
FAST_DECAY = 0.9
SLOW_DECAY = 0.99
DWA_TEMPERATURE = 2.0
FACTOR_BOUNDS = (0.5, 2.0)
"""Bounds of a factor under ``"dwa"`` and ``"uncertainty"``."""
UNCERTAINTY_RATE = 0.01
"""Step size of the log-variances' own gradient descent."""
STEEPEST = 0.5
"""Bound of that descent's slope on both sides: one step of a high excess must not undo thousands."""
LOG_VARIANCE_BOUND = 10.0


class StepState(NamedTuple):
    """The device buffers that a step reads and moves on.

    The weights of the step are ``factors * schedule * base_weights``; the buffers up to ``skipped`` are
    those of :class:`ttsfast.losses.adaptive.AdaptiveWeights`.
    """

    method: str
    """How to step the factors, of :data:`METHODS`; ``"fixed"`` where this call must leave them alone."""
    factors: Tensor
    fast: Tensor
    slow: Tensor
    log_variances: Tensor
    observations: Tensor
    skipped: Tensor
    schedule: Tensor
    """(6,) float32, as all vectors here"""
    noise_step: Tensor
    """() int64"""
    advance: bool
    """Whether ``noise_step`` moves on by 1 after this call."""


class FixedWeights(NamedTuple):
    """In the place of a :class:`StepState`, for a call that moves nothing on."""

    weights: Tensor
    """(6,) in the dtype computed in."""
    noise_step: Tensor
    """() int64"""


def fixed_weights(spec: LossSpec, state: StepState | FixedWeights, dtype: torch.dtype) -> FixedWeights:
    """What ``state`` gives to this step, of the dtype computed in."""
    if isinstance(state, FixedWeights):
        return state
    # One by one, so that a double total is weighted by exactly the numbers given.
    factors = (state.factors * state.schedule).to(dtype).unbind()
    weights = [factor * base for factor, base in zip(factors, spec.base_weights, strict=True)]
    return FixedWeights(torch.stack(weights), state.noise_step)
