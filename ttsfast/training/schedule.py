"""The learning rate: a pure function of the step, times what the plateau rule has decided."""

from __future__ import annotations

import math

from ttsfast.config import TrainingConfig


def scheduled_rate(step: int, config: TrainingConfig) -> float:
    """The learning rate of optimiser step ``step`` (0, 1, ...), before any plateau reduction.

    Linear warm-up to the peak over ``warmup_steps``; then, by ``scheduler``:

    - ``constant``: the peak.
    - ``cosine_with_restarts``: down to ``min_learning_rate`` over ``restart_period`` steps, again and again;
      each restart multiplies the peak by ``restart_mult`` and the period by ``restart_period_mult`` (SGDR:
      Loshchilov and Hutter, 2017, which keeps the peak).
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
    cycle, share = _cycle(after, config.restart_period, config.restart_period_mult)
    # Never NaN: the peak of a late cycle underflows to 0 and is caught by the floor.
    return _cosine(max(floor, peak * config.restart_mult**cycle), floor, share)


def _cosine(peak: float, floor: float, share: float) -> float:
    return floor + (peak - floor) * 0.5 * (1.0 + math.cos(math.pi * share))


def _cycle(after: int, period: int, growth: float) -> tuple[int, float]:
    """The cycle that lies ``after`` steps behind the first peak, and how much of it is over, in [0, 1)."""
    if growth == 1.0:
        cycle, position = divmod(after, period)
        return cycle, position / period

    # Cycle k starts at the geometric sum period * (growth^k - 1) / (growth - 1), expm1 for a growth near 1;
    # at a whole step, or the restart would fall between two.
    def start(k: int) -> int:
        return math.floor(period * math.expm1(k * math.log(growth)) / (growth - 1) + 0.5)

    cycle = int(math.log1p(after * (growth - 1) / period) / math.log(growth))
    # The logarithm may round to either side of a restart.
    while cycle > 0 and start(cycle) > after:
        cycle -= 1
    while start(cycle + 1) <= after:
        cycle += 1
    return cycle, (after - start(cycle)) / (start(cycle + 1) - start(cycle))


def learning_rate(step: int, config: TrainingConfig, multiplier: float) -> float:
    """The rate to use: scheduled, reduced by the plateau rule, never below the floor."""
    return max(config.min_learning_rate, scheduled_rate(step, config) * multiplier)
