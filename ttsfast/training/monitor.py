"""What is watched while training: spikes, norms, convergence, early stopping.

Everything a step records stays a device tensor; the host reads them together at log points, so that a
step never waits for the device.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


class SpikeGuard:
    """Scales down the gradient of a step whose loss leaps above its moving average.

    The average is exponential with weight ``factor`` on the newest loss, bias-corrected, and takes in a
    spike only at the threshold's height, so that one outlier neither trains the model nor lifts the bar.
    A non-finite loss leaves the average alone and the gradient as it is: others must see it.
    """

    def __init__(self, factor: float, threshold: float, device: torch.device) -> None:
        self.factor, self.threshold = factor, threshold
        self.sum = torch.zeros((), device=device)
        self.weight = torch.zeros((), device=device)
        self.spikes = torch.zeros((), dtype=torch.int64, device=device)

    def update(self, loss: Tensor) -> Tensor:
        """Take one step's loss, a scalar tensor; return the factor (0, 1] for its gradient."""
        loss = loss.detach().float()
        average = torch.where(self.weight > 0, self.sum / self.weight.clamp(min=1e-12), loss)
        ceiling = self.threshold * average
        spiked = (loss > ceiling) & torch.isfinite(loss) & (average > 0)
        scale = torch.where(spiked, ceiling / loss, torch.ones_like(loss))
        known = torch.isfinite(loss)
        taken = torch.where(spiked, ceiling, loss)
        # In place: a recorded step finds them where they were.
        self.sum.copy_(torch.where(known, (1 - self.factor) * self.sum + self.factor * taken, self.sum))
        self.weight.copy_(torch.where(known, (1 - self.factor) * self.weight + self.factor, self.weight))
        self.spikes.add_(spiked)
        return scale

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
        values = list(self.losses)
        older = statistics.fmean(values[: self.size // 2])
        newer = statistics.fmean(values[self.size // 2 :])
        if not math.isfinite(newer) or newer * self.threshold > older:
            return "diverging"
        if newer < self.threshold * older:
            return "improving"
        spread = statistics.pstdev(values)
        return "oscillating" if spread > (1 - self.threshold) * abs(newer) else "plateau"


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
        self._unread: list[dict[str, Tensor]] = []
        self.rows: list[dict[str, float]] = []
        """Steps that were read and not yet reported; what a checkpoint keeps."""

    def add(self, row: dict[str, Tensor]) -> None:
        """Keep one step's scalars; every row has the same names."""
        self._unread.append({name: value.detach().float() for name, value in row.items()})

    def read(self) -> list[dict[str, float]]:
        """Read the rows added since the last call: the one synchronisation of a log point."""
        if not self._unread:
            return []
        names = list(self._unread[0])
        table = torch.stack([torch.stack([row[name] for name in names]) for row in self._unread]).tolist()
        self._unread.clear()
        read = [dict(zip(names, row, strict=True)) for row in table]
        self.rows += read
        return read

    def take(self) -> list[dict[str, float]]:
        """All rows for a report, which are forgotten then."""
        rows, self.rows = self.rows, []
        return rows
