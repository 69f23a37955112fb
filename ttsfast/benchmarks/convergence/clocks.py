"""Training time, by the wall and by the processor, that stands still while something else is done."""

from __future__ import annotations

import time

import torch

from ttsfast.benchmarks.machine import synchronize


class Clocks:
    """Seconds between :meth:`start` and :meth:`stop`, over any number of turns.

    Processor time is that of all threads of this process, those that make batches included.
    """

    def __init__(self, device: torch.device, seconds: float = 0.0, processor_seconds: float = 0.0) -> None:
        self._device = device
        self._before = seconds, processor_seconds
        self._began: tuple[float, float] | None = None

    def start(self) -> None:
        self._began = _now()

    def stop(self) -> None:
        """Once the device has done what it was told."""
        synchronize(self._device)
        self._before, self._began = self.read(), None

    def read(self) -> tuple[float, float]:
        """Seconds by the wall and of processor time, up to now where they run."""
        if self._began is None:
            return self._before
        now = _now()
        wall, processor = (b + n - a for b, n, a in zip(self._before, now, self._began, strict=True))
        return wall, processor


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()
