"""What is watched at every step: that all is finite, how steep it is, and where it is going.

Everything a step records stays a device tensor; the host reads them together at log points, so that a
step never waits for the device.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ttsfast.config import TrainingConfig
from ttsfast.terms.spec import TERMS
from ttsfast.training.non_finite import Fault, StepInputs
from ttsfast.training.step import StepStats


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


class Monitor:
    """Keeps what steps record, and judges them when :meth:`read` brings them to the host."""

    def __init__(self, config: TrainingConfig) -> None:
        self.threshold = config.gradient_norm_threshold
        self.window = ConvergenceWindow(config.convergence_window, config.convergence_threshold)
        self.rows: list[dict[str, float]] = []
        """Steps that were read and not yet reported."""
        self.steep_steps = 0
        """Steps whose gradient norm was above the threshold."""
        self.first_steep = 0.0
        """The largest of those norms, where the last :meth:`read` found the first ones; 0 elsewhere."""
        self._unread: list[tuple[StepInputs, Sequence[str | None], Tensor]] = []

    def record(self, inputs: StepInputs, stats: StepStats, norm: Tensor) -> None:
        """Keep a step's figures on the device, and what it takes to take it again."""
        values = torch.cat((stats.sums, norm[None], stats.weights)).float()
        self._unread.append((inputs, _columns(stats.present, len(stats.sums)), values))

    def read(self) -> Fault | None:
        """Read all figures in one transfer, the one synchronisation of many steps; return the first step that
        must end the run."""
        self.first_steep = 0.0
        if not self._unread:
            return None
        unread, self._unread = self._unread, []
        read = []
        for (inputs, names, _), values in zip(
            unread, torch.stack([values for *_, values in unread]).tolist(), strict=True
        ):
            row = {name: value for name, value in zip(names, values, strict=True) if name is not None}
            clamped = int(row.pop("clamped", 0))
            bad = tuple(
                name for name in (*TERMS, "total", "gradient_norm") if not math.isfinite(row.get(name, 0.0))
            )
            if bad or clamped:
                return Fault(inputs, bad, clamped)
            read.append(row)
        self.rows += read
        self.window.losses.extend(row["mel"] for row in read)
        steep = [row["gradient_norm"] for row in read if row["gradient_norm"] > self.threshold]
        if not self.steep_steps:
            self.first_steep = max(steep, default=0.0)
        self.steep_steps += len(steep)
        return None

    def take(self) -> list[dict[str, float]]:
        """All rows for a report, which are forgotten then."""
        rows, self.rows = self.rows, []
        return rows

    def figures(self) -> dict[str, Any]:
        """What a log line tells of them."""
        return {"steep_steps": self.steep_steps, "convergence": self.window.verdict()}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, once all is read."""
        return {
            "losses": list(self.window.losses),
            "rows": list(self.rows),
            "steep_steps": self.steep_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.window.losses = deque(state["losses"], maxlen=self.window.size)
        self.rows = list(state["rows"])
        self.steep_steps = state["steep_steps"]


@cache
def _columns(present: tuple[bool, ...], sums: int) -> tuple[str | None, ...]:
    """What a log line calls a step's ``sums`` (total, values, floors, clamped), gradient norm and weights."""
    terms = [name if there else None for name, there in zip(TERMS, present, strict=True)]
    weights = [None if name is None else f"weight_{name}" for name in terms]
    clamped = ["clamped"] * (sums - 1 - 2 * len(TERMS))
    return "total", *terms, *(None for _ in TERMS), *clamped, "gradient_norm", *weights
