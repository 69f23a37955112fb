"""Where a step's time goes, and how full the device is."""

from __future__ import annotations

import resource
import time
from contextlib import suppress

import torch

PHASES = ("data", "forward", "loss", "backward", "optimizer", "trainer")
"""``trainer`` is everything that is none of the others: weights, guards, records, reports. What a recorded
graph does of forward, loss and backward is one phase more, ``replay``."""


class StepClock:
    """Splits the time since :meth:`start` into phases, without making the host wait for the device.

    On a CPU it reads the host's clock at each :meth:`lap`. On CUDA it records an event, and the device's own
    times between them are read with the figures of a log point; ``data`` is then the time the device had
    nothing to do because no batch was there.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self.start()

    def start(self) -> None:
        """Forget what was, as after a validation."""
        self.frames = 0
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._began = self._last = time.perf_counter()
        self._events = [("", self._event())] if self._on_gpu else []

    def lap(self, phase: str) -> None:
        """What happened since the last lap was ``phase``."""
        if self._on_gpu:
            # In a recording an event would stand for every replay; who replays takes the lap.
            if not torch.cuda.is_current_stream_capturing():
                self._events.append((phase, self._event()))
            return
        now = time.perf_counter()
        self._add(phase, now - self._last)
        self._last = now

    def read(self) -> dict[str, float]:
        """Frames per second and each phase's share in percent since the start; then start again."""
        wall = time.perf_counter() - self._began
        if self._on_gpu:
            self._events[-1][1].synchronize()
            for (_, before), (phase, after) in zip(self._events, self._events[1:], strict=False):
                self._add(phase, before.elapsed_time(after) / 1000)
        self.lap("trainer")
        total = max(1e-9, sum(self._seconds.values()))
        shares = {f"percent_{phase}": 100 * seconds / total for phase, seconds in self._seconds.items()}
        figures = {"frames_per_second": self.frames / wall, **shares}
        self.start()
        return figures

    def _add(self, phase: str, seconds: float) -> None:
        self._seconds[phase] = self._seconds.get(phase, 0.0) + seconds

    @staticmethod
    def _event() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def device_load(device: torch.device) -> dict[str, float]:
    """Peak memory in GiB, and how busy a GPU is in percent where NVML tells (package ``nvidia-ml-py``)."""
    if device.type != "cuda":
        return {"memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
    figures = {"memory_gib": torch.cuda.max_memory_allocated(device) / 2**30}
    # Without NVML, or where it does not tell, as of a part of a GPU, the figure is left out of the log.
    with suppress(ModuleNotFoundError, RuntimeError, *_nvml_errors()):
        figures["device_utilisation_percent"] = float(torch.cuda.utilization(device))
    return figures


def _nvml_errors() -> tuple[type[Exception], ...]:
    try:
        from pynvml import NVMLError
    except ModuleNotFoundError:
        return ()
    return (NVMLError,)
