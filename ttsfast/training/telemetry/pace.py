"""How long a run will take, from its first steps."""

from __future__ import annotations

from time import perf_counter

import torch

FIRST, LAST = 2, 10
"""Time is taken of the steps after the one up to the other: the first pay for what is set up once."""


class Pace:
    """Times the first steps that it is told of, and not what lies between them; a GPU is waited for twice."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._steps, self._began, self._seconds = 0, 0.0, 0.0

    def step_begins(self) -> None:
        """Its batch is fetched next."""
        self._began = perf_counter()

    def step_taken(self) -> float | None:
        """Seconds a step, at the tenth; None at the others."""
        self._steps += 1
        if self._steps in (FIRST, LAST) and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        if FIRST < self._steps <= LAST:
            self._seconds += perf_counter() - self._began
        return self._seconds / (LAST - FIRST) if self._steps == LAST else None
