"""What a step leaves to the next: its buffers, and the constants of the adaptive weights, which every backend
moves on by the same rule. ``ttsfast.losses.adaptive`` says what they do.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

FUSED_METHODS = ("fixed", "dwa", "uncertainty")
"""What a fused backend may be given to move on in its own call; ``"origin"`` is plain torch's alone."""
FAST_DECAY = 0.9
SLOW_DECAY = 0.99
DWA_TEMPERATURE = 2.0
FACTOR_BOUNDS = (0.5, 2.0)
"""Bounds of a factor under ``"dwa"`` and ``"uncertainty"``."""
UNCERTAINTY_RATE = 0.01
"""Step size of the log-variances' own gradient descent."""


class StepState(NamedTuple):
    """The device buffers that a step reads and moves on, for a backend that does both in its own launch.

    The weights of the step are ``factors * schedule * base_weights``; the buffers up to ``skipped`` are
    those of :class:`ttsfast.losses.adaptive.AdaptiveWeights`.
    """

    method: str
    """How to step the factors; ``"fixed"`` where this call must leave them alone."""
    factors: Tensor
    fast: Tensor
    slow: Tensor
    log_variances: Tensor
    observations: Tensor
    skipped: Tensor
    schedule: Tensor
    """(4,) float32"""
    noise_step: Tensor
    """() int64"""
    advance: bool
    """Whether ``noise_step`` moves on by 1 after this call."""
