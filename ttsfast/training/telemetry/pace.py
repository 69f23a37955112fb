"""How long a run will take, from its first steps."""

from __future__ import annotations

from time import perf_counter

import torch

FIRST, LAST = 2, 10
"""The steps between which time is taken: the first ones pay for what is set up once."""


class Pace:
    """Times the first steps that it is told of; a GPU is waited for twice."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._steps, self._began = 0, 0.0

    def step_taken(self) -> float | None:
        """Seconds a step, at the tenth; None at the others."""
        self._steps += 1
        if self._steps not in (FIRST, LAST):
            return None
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = perf_counter()
        if self._steps == LAST:
            return (now - self._began) / (LAST - FIRST)
        self._began = now
        return None
