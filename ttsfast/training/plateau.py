"""What validations without improvement lead to: a lower learning rate, and in the end a stop."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, ClassVar

from ttsfast.config import TrainingConfig


@dataclass
class _BestMetric:
    """The least value so far of an unweighted held-out metric; a weighted total moves with the weights, so
    its minimum says nothing about the model.

    The state of another metric is not continued from: best value and patience start anew.
    """

    metric: str
    min_delta: float
    """What counts as improvement."""
    patience: int
    best: float = math.inf
    stalled: int = 0
    """Validations since the best one."""

    kept: ClassVar[tuple[str, ...]] = ("metric", "best", "stalled")

    def improved(self, value: float) -> bool:
        """Take a validation's value (lower is better); tell whether it is the best so far."""
        if value < self.best - self.min_delta:
            self.best, self.stalled = value, 0
            return True
        self.stalled += 1
        return False

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return self.stalled >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {name: getattr(self, name) for name in self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        if state["metric"] == self.metric:
            for name in self.kept:
                setattr(self, name, state[name])


@dataclass
class EarlyStopping(_BestMetric):
    """Is :attr:`exhausted` after ``patience`` validations without improvement."""

    best_step: int = -1
    last_step: int = -1
    """Of the last validation."""

    kept: ClassVar[tuple[str, ...]] = (*_BestMetric.kept, "best_step", "last_step")

    @classmethod
    def of(cls, config: TrainingConfig) -> EarlyStopping:
        """As a run's configuration says."""
        patience = config.early_stopping_patience if config.early_stopping else sys.maxsize
        return cls(config.monitor, config.early_stopping_min_delta, patience)

    def update(self, value: float, step: int) -> bool:
        """Take a validation's value; tell whether it is the best so far."""
        self.last_step = step
        if not self.improved(value):
            return False
        self.best_step = step
        return True


@dataclass
class PlateauReduction(_BestMetric):
    """Multiplies the rate by ``factor`` after ``patience`` validations without improvement."""

    factor: float = 1.0
    multiplier: float = 1.0

    kept: ClassVar[tuple[str, ...]] = (*_BestMetric.kept, "multiplier")

    @classmethod
    def of(cls, config: TrainingConfig) -> PlateauReduction:
        """As a run's configuration says."""
        least, patience = config.early_stopping_min_delta, config.lr_reduction_patience
        return cls(config.monitor, least, patience, factor=config.lr_reduction_factor)

    def update(self, value: float) -> bool:
        """Take a validation's value; tell whether the rate was just reduced."""
        if self.improved(value) or not self.exhausted:
            return False
        self.multiplier *= self.factor
        self.stalled = 0
        return True
