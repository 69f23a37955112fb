"""What is watched while training: spikes, norms, convergence, early stopping.

Everything a step records stays a device tensor; the host reads them together at log points, so that a
step never waits for the device.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor


class SpikeGuard:
    """Scales down the gradient of a step whose loss leaps above its moving average.

    The average is exponential with weight ``factor`` on the newest loss, bias-corrected, and takes in a
    spike only at the threshold's height, so that one outlier neither trains the model nor lifts the bar.
    Where the average is not positive, nothing is above it. A loss that is not finite ends the run, whatever
    is made of it here.

    Every operation counts, since a small model's step is short: hence the comparisons that NaN decides.
    """

    def __init__(self, factor: float, threshold: float, device: torch.device) -> None:
        self.factor, self.threshold = factor, threshold
        self.sum = torch.zeros((), device=device)
        self.weight = torch.zeros((), device=device)
        self.spikes = torch.zeros((), dtype=torch.int64, device=device)
        self._one = torch.ones((), device=device)

    def update(self, loss: Tensor) -> Tensor:
        """Take one step's loss, a scalar tensor; return how many times too high it is, 1 or more: what to
        divide its gradient by."""
        loss = loss.detach().float()
        # NaN before the first loss.
        ceiling = torch.threshold(self.sum / self.weight * self.threshold, 0.0, math.inf)
        taken = torch.fmin(loss, ceiling)
        # In place: a recorded step finds them where they were.
        self.sum.lerp_(taken, self.factor)
        self.weight.lerp_(self._one, self.factor)
        self.spikes.add_(loss > taken)
        # NaN for a loss of 0.
        return torch.fmax(loss / taken, self._one)

    @property
    def average(self) -> Tensor:
        """The smoothed loss, for reports."""
        return self.sum / self.weight.clamp(min=1e-12)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"sum": self.sum, "weight": self.weight, "spikes": self.spikes}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from :meth:`state_dict`."""
        for name, value in self.state_dict().items():
            value.copy_(state[name])


@dataclass
class ConvergenceWindow:
    """Judges the last ``size`` losses.

    With ``ratio`` = mean of the newer half over mean of the older half: ``improving`` below
    ``threshold``; ``diverging`` above 1 / threshold; in between ``oscillating`` when the standard
    deviation exceeds (1 - threshold) of the mean, else ``plateau``. ``warming`` until the window is full.
    """

    size: int
    threshold: float
    losses: deque[float] = field(init=False)

    def __post_init__(self) -> None:
        self.losses = deque(maxlen=self.size)

    def verdict(self) -> str:
        """One word on the window."""
        if len(self.losses) < self.size:
            return "warming"
        values = np.array(self.losses)
        older, newer = values[: self.size // 2].mean(), values[self.size // 2 :].mean()
        if not math.isfinite(newer) or newer * self.threshold > older:
            return "diverging"
        if newer < self.threshold * older:
            return "improving"
        return "oscillating" if values.std() > (1 - self.threshold) * abs(newer) else "plateau"


@dataclass
class EarlyStopping:
    """Stops after ``patience`` validations without the watched metric falling by ``min_delta``.

    It watches an unweighted held-out metric: a weighted total moves with the weights, so its minimum
    says nothing about the model.
    """

    patience: int
    min_delta: float
    best: float = math.inf
    best_step: int = -1
    last_step: int = -1
    stalled: int = 0

    def update(self, metric: float, step: int) -> bool:
        """Take a validation's metric (lower is better); tell whether it is the best so far."""
        self.last_step = step
        if metric < self.best - self.min_delta:
            self.best, self.best_step, self.stalled = metric, step, 0
            return True
        self.stalled += 1
        return False

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return self.stalled >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {name: getattr(self, name) for name in ("best", "best_step", "last_step", "stalled")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        for name, value in state.items():
            setattr(self, name, value)


class StepRecords:
    """What the steps since the last log point recorded: device scalars, read by the host in one transfer."""

    def __init__(self) -> None:
        self._unread: list[tuple[Sequence[str | None], Tensor]] = []
        self.rows: list[dict[str, float]] = []
        """Steps that were read and not yet reported; what a checkpoint keeps."""

    def add(self, names: Sequence[str | None], values: Tensor) -> None:
        """Keep one step's scalars, (N,) as the N ``names``; those named None are not looked at."""
        self._unread.append((names, values))

    def read(self) -> list[dict[str, float]]:
        """Read the rows added since the last call: the one synchronisation of a log point."""
        if not self._unread:
            return []
        table = torch.stack([values for _, values in self._unread]).tolist()
        read = [
            {name: value for name, value in zip(names, row, strict=True) if name is not None}
            for (names, _), row in zip(self._unread, table, strict=True)
        ]
        self._unread.clear()
        self.rows += read
        return read

    def take(self) -> list[dict[str, float]]:
        """All rows for a report, which are forgotten then."""
        rows, self.rows = self.rows, []
        return rows
