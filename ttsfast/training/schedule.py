"""The learning rate: a pure function of the step, times what the plateau rule has decided."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ttsfast.config import TrainingConfig


def scheduled_rate(step: int, config: TrainingConfig) -> float:
    """The learning rate of optimiser step ``step`` (0, 1, ...), before any plateau reduction.

    Linear warm-up to the peak; then either constant, or a cosine from the peak down to
    ``min_learning_rate`` over ``restart_period`` steps, restarted with the peak multiplied by
    ``restart_mult`` (SGDR: Loshchilov and Hutter, 2017, with a fixed period). Finite, and within
    [min_learning_rate, learning_rate], at every step.
    """
    floor, peak = config.min_learning_rate, config.learning_rate
    if step < config.warmup_steps:
        return max(floor, peak * (step + 1) / config.warmup_steps)
    if config.scheduler == "constant":
        return peak
    cycle, position = divmod(step - config.warmup_steps, config.restart_period)
    # Never NaN: the peak of a late cycle underflows to 0 and is caught by the floor.
    cycle_peak = max(floor, peak * config.restart_mult**cycle)
    cosine = 0.5 * (1.0 + math.cos(math.pi * position / config.restart_period))
    return floor + (cycle_peak - floor) * cosine


@dataclass
class PlateauReduction:
    """Multiplies the rate by ``factor`` after ``patience`` validations without improvement."""

    factor: float
    patience: int
    min_delta: float
    best: float = math.inf
    stalled: int = 0
    multiplier: float = 1.0

    def update(self, metric: float) -> bool:
        """Take a validation's metric (lower is better); tell whether the rate was just reduced."""
        if metric < self.best - self.min_delta:
            self.best, self.stalled = metric, 0
            return False
        self.stalled += 1
        if self.stalled < self.patience:
            return False
        self.multiplier *= self.factor
        self.stalled = 0
        return True

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {name: getattr(self, name) for name in ("best", "stalled", "multiplier")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        for name, value in state.items():
            setattr(self, name, value)


def learning_rate(step: int, config: TrainingConfig, multiplier: float) -> float:
    """The rate to use: scheduled, reduced by the plateau rule, never below the floor."""
    return max(config.min_learning_rate, scheduled_rate(step, config) * multiplier)
