"""What is watched at every step: that all is finite, how steep it is, and where it is going.

Everything a step records stays a device tensor; the host reads them together at log points, so that a
step never waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ttsfast.config import TrainingConfig
from ttsfast.terms.spec import TERMS
from ttsfast.training.convergence import Convergence
from ttsfast.training.non_finite import Fault, StepInputs
from ttsfast.training.step import StepStats


class Content(NamedTuple):
    """What the host knows of a step, all ranks and micro-batches together."""

    frames: int
    utterances: int
    rate: float
    """The learning rate."""


class Monitor:
    """Keeps what steps record, and judges them when :meth:`read` brings them to the host."""

    def __init__(self, config: TrainingConfig) -> None:
        self.threshold = config.gradient_norm_threshold
        self.convergence = Convergence(config.convergence_window, config.convergence_threshold)
        self.rows: list[dict[str, float]] = []
        """Steps that were read and not yet reported."""
        self.steep_steps = 0
        """Steps whose gradient norm was above the threshold."""
        self.first_steep = 0.0
        """The largest of those norms, where the last :meth:`read` found the first ones; 0 elsewhere."""
        self._unread: list[tuple[StepInputs, Content, Sequence[str | None], Tensor]] = []

    def record(self, inputs: StepInputs, content: Content, stats: StepStats, norm: Tensor) -> None:
        """Keep a step's figures on the device, what its batches held, and what it takes to take it again."""
        values = torch.cat((stats.sums, norm[None], stats.weights)).float()
        self._unread.append((inputs, content, _columns(stats.present, len(stats.sums)), values))

    def read(self) -> Fault | None:
        """Read all figures in one transfer, the one synchronisation of many steps; return the first step that
        must end the run."""
        self.first_steep = 0.0
        if not self._unread:
            return None
        unread, self._unread = self._unread, []
        read, contents = [], []
        for (inputs, content, names, _), values in zip(
            unread, torch.stack([values for *_, values in unread]).tolist(), strict=True
        ):
            row = {name: value for name, value in zip(names, values, strict=True) if name is not None}
            clamped = int(row.pop("clamped", 0))
            bad = tuple(
                name for name in (*TERMS, "total", "gradient_norm") if not math.isfinite(row.get(name, 0.0))
            )
            if bad or clamped:
                return Fault(inputs, bad, clamped)
            row |= {f"excess_{name}": row[name] - row.pop(f"floor_{name}") for name in TERMS if name in row}
            read.append(row)
            contents.append(content)
        self.rows += read
        for row, content in zip(read, contents, strict=True):
            self.convergence.add(row["excess_mel"], content.frames / content.utterances, content.rate)
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
        return {"steep_steps": self.steep_steps, "convergence": self.convergence.verdict()}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, once all is read."""
        return {
            "convergence": self.convergence.state_dict(),
            "rows": list(self.rows),
            "steep_steps": self.steep_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.convergence.load_state_dict(state["convergence"])
        self.rows = list(state["rows"])
        self.steep_steps = state["steep_steps"]


@cache
def _columns(present: tuple[bool, ...], sums: int) -> tuple[str | None, ...]:
    """What a log line calls a step's ``sums``, gradient norm and weights."""
    terms = [TERMS[i] if there else None for i, there in enumerate(present)]
    floors, weights = (
        [None if name is None else f"{kind}_{name}" for name in terms] for kind in ("floor", "weight")
    )
    unalignable = ["unalignable"] if "alignment" in terms else []
    clamped = ["clamped"] * (sums - 1 - 2 * len(terms) - len(unalignable))
    return "total", *terms, *floors, *unalignable, *clamped, "gradient_norm", *weights
