"""A loss that leaps above its average: how much of its gradient to take."""

from __future__ import annotations

import math

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
