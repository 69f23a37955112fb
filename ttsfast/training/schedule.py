"""The learning rate: a pure function of the step, times what the plateau rule has decided."""

from __future__ import annotations

import math

from ttsfast.config import TrainingConfig


def scheduled_rate(step: int, config: TrainingConfig) -> float:
    """The learning rate of optimiser step ``step`` (0, 1, ...), before any plateau reduction.

    Linear warm-up to the peak over ``warmup_steps``; then, by ``scheduler``:

    - ``constant``: the peak.
    - ``cosine_with_restarts``: down to ``min_learning_rate`` over ``restart_period`` steps, again and again;
      each restart multiplies the peak by ``restart_mult`` (SGDR: Loshchilov and Hutter, 2017, which keeps
      the peak).
    - ``one_cycle``: one cosine, down to ``min_learning_rate`` at ``max_steps`` (Smith and Topin, 2018,
      without its cycling of the momentum).
    - ``noam``: ``peak * sqrt(warmup_steps / step)`` (Vaswani et al., 2017), scaled so that the peak is
      ``learning_rate`` for every model size.

    Finite, and within [min_learning_rate, learning_rate], at every step.
    """
    floor, peak = config.min_learning_rate, config.learning_rate
    if step < config.warmup_steps:
        return max(floor, peak * (step + 1) / config.warmup_steps)
    after = step - config.warmup_steps
    if config.scheduler == "constant":
        return peak
    if config.scheduler == "noam":
        return max(floor, peak * math.sqrt(max(1, config.warmup_steps) / (step + 1)))
    if config.scheduler == "one_cycle":
        share = after / max(1, config.max_steps - config.warmup_steps)
        return _cosine(peak, floor, min(1.0, share))
    cycle, position = divmod(after, config.restart_period)
    # Never NaN: the peak of a late cycle underflows to 0 and is caught by the floor.
    return _cosine(max(floor, peak * config.restart_mult**cycle), floor, position / config.restart_period)


def _cosine(peak: float, floor: float, share: float) -> float:
    return floor + (peak - floor) * 0.5 * (1.0 + math.cos(math.pi * share))


def learning_rate(step: int, config: TrainingConfig, multiplier: float) -> float:
    """The rate to use: scheduled, reduced by the plateau rule, never below the floor."""
    return max(config.min_learning_rate, scheduled_rate(step, config) * multiplier)
