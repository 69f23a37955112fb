"""As many threads as serve, on a CPU that others use too.

Torch shares each operation out among its threads and waits for the last of them. Where a busy neighbour keeps
one from its core the others wait, in a loop that takes processor time: two threads are then slower than one.
So the trainer looks at how long its threads wait for a core, and at cores that nobody uses; it tries another
number, and keeps what was faster.
"""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import torch

TASKS = Path("/proc/self/task")
STAT = Path("/proc/stat")

WINDOW = 1.0
"""Seconds of steps, at least one step, that are judged together."""
WAITING = 0.25
"""Threads that wait for a core, on average, from which on others are said to be there: alone it is a few
hundredths, with one busy neighbour a half or more."""
FREE = 0.5
"""Cores without work, on average, from which on one is said to be free."""
GAIN = 1.1
"""How much faster another number must be to be kept, where threads wait."""
BUDGET = 0.02
"""Of all time, what trials may lose."""
LEAST_REST = 10.0
"""Seconds of steps between a trial that brought nothing and the next."""


@dataclass(frozen=True)
class Window:
    """Steps that were taken with one number of threads."""

    frames: int
    seconds: float
    waiting: float
    """Of the time in which the process's threads wanted to run, the share in which they waited for a core."""
    idle: float = 0.0
    """Cores that nobody used, on average, of those that the process may use."""


@dataclass(frozen=True)
class Change:
    """Another number of threads, and the frames per second of both."""

    before: int
    threads: int
    before_speed: float
    speed: float


class ThreadController:
    """Decides on the number of threads, from what was measured alone.

    A trial takes one window. Fewer threads are tried when threads are kept waiting: as many as the neighbours
    leave cores, as far as that can be told. More are tried when none waits: all there are. After a trial that
    was not faster, the next is half as far away. A trial that lost time is followed by a rest in which that
    loss becomes :data:`BUDGET` of the whole; a core that is free for two windows ends it, as neighbours have
    left then. Where all threads that there may be run undisturbed, none is made.

    Args:
        most: how many threads there may be, which is what a run begins with.
    """

    def __init__(self, most: int) -> None:
        self.most = self.kept = self.threads = most
        self.trials = 0
        # Of the number that is kept, all in the same surroundings.
        self._recent: deque[Window] = deque(maxlen=3)
        self._rest = 0.0
        self._failed: int | None = None

    def observe(self, window: Window) -> Change | None:
        """Take note of steps with :attr:`threads`, which then says how many the next ones are to have.

        Returns:
            What changed, where another number is kept from here on.
        """
        if self.threads != self.kept:
            return self._judge(window)
        if self._recent and self._surroundings(self._recent[-1]) != self._surroundings(window):
            self._recent.clear()
            self._failed = None
        self._recent.append(window)
        self._rest -= window.seconds
        if window.idle > FREE and len(self._recent) == 2:
            self._rest = 0.0
        if self._rest <= 0:
            self.threads = self._candidate(window)
            self.trials += self.threads != self.kept
        return None

    def _judge(self, trial: Window) -> Change | None:
        # All of more threads have a core: there is nothing to be wary of.
        least = 1.0 if self.threads > self.kept and not self._crowded(trial) else GAIN
        tried, self.threads = self.threads, self.kept
        before = sum(w.frames for w in self._recent) / sum(w.seconds for w in self._recent)
        speed = trial.frames / trial.seconds
        if speed > least * before:
            change = Change(self.kept, tried, before, speed)
            self.kept = self.threads = tried
            self._recent.clear()
            self._rest, self._failed = 0.0, None
            return change
        lost = trial.seconds - trial.frames / before
        self._rest, self._failed = max(LEAST_REST, lost / BUDGET), tried
        return None

    def _surroundings(self, window: Window) -> tuple[bool, bool]:
        return self._crowded(window), window.idle > FREE

    def _crowded(self, window: Window) -> bool:
        return self.threads * window.waiting > WAITING

    def _candidate(self, window: Window) -> int:
        """What to try; what is kept, where nothing else can serve."""
        crowded = self._crowded(window)
        if self._failed is not None:
            nearer = self.kept + int((self._failed - self.kept) / 2)
            if nearer != self.kept:
                return nearer
            self._failed = None
        if not crowded:
            return self.most
        # Cores are shared evenly among those who want them: of n threads and k neighbours on c cores each has
        # c / (n + k), and waits for the rest.
        neighbours = self.most / max(1e-3, 1 - window.waiting) - self.kept
        return max(1, min(self.kept - 1, round(self.most - neighbours)))


class Threads:
    """Gives torch, and with it the extension, the number of threads that serves.

    A system that does not tell how long threads wait (Linux does, in ``/proc/self/task/*/schedstat``) leaves
    the number as it is.

    Args:
        adapt: whether it may be another than torch has now.
    """

    def __init__(self, *, adapt: bool) -> None:
        most = torch.get_num_threads()
        self._controller = ThreadController(most) if adapt and most > 1 and _schedule() else None
        self._frames, self._seconds, self._began = 0, 0.0, 0.0
        self._reading: _Reading | None = None

    def begin(self) -> None:
        """A step is about to be taken."""
        if self._controller is not None:
            self._reading = self._reading or _read()
            self._began = time.perf_counter()

    def end(self, frames: int) -> Change | None:
        """The step that began was taken, with ``frames`` frames; tell whether another number is kept now."""
        if self._controller is None or self._reading is None:
            return None
        self._frames += frames
        self._seconds += time.perf_counter() - self._began
        if self._seconds < WINDOW:
            return None
        before, self._reading = self._reading, _read()
        waiting, idle = self._reading.since(before)
        change = self._controller.observe(Window(self._frames, self._seconds, waiting, idle))
        self._frames, self._seconds = 0, 0.0
        if self._controller.threads != torch.get_num_threads():
            torch.set_num_threads(self._controller.threads)
        return change

    def figures(self) -> dict[str, int]:
        """What a log line tells of them: the number that is kept, and how often another was tried so far."""
        if self._controller is None:
            return {"threads": torch.get_num_threads()}
        return {"threads": self._controller.kept, "thread_trials": self._controller.trials}


@dataclass(frozen=True)
class _Reading:
    """What the system tells at one time."""

    seconds: float
    schedule: dict[str, tuple[int, int]]
    idle: float

    def since(self, before: _Reading) -> tuple[float, float]:
        """The share of time that threads waited since then, and the cores that were idle."""
        ran, waited = (
            sum(now[i] - before.schedule.get(task, (0, 0))[i] for task, now in self.schedule.items())
            for i in (0, 1)
        )
        idle = (self.idle - before.idle) / max(1e-9, self.seconds - before.seconds)
        return waited / max(1, ran + waited), idle


def _read() -> _Reading:
    return _Reading(time.perf_counter(), _schedule(), _idle())


def _schedule() -> dict[str, tuple[int, int]]:
    """Nanoseconds that each thread of the process has run, and has waited for a core; nothing where the
    system does not tell."""
    found: dict[str, tuple[int, int]] = {}
    if not TASKS.is_dir():
        return found
    for task in TASKS.iterdir():
        try:
            ran, waited, _ = (task / "schedstat").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        found[task.name] = int(ran), int(waited)
    return found


def _idle() -> float:
    """Seconds that cores which the process may use had nothing to do; 0 where the system does not tell."""
    if not STAT.is_file():
        return 0.0
    own = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    rows = (line.split() for line in STAT.read_text().splitlines() if line.startswith("cpu"))
    # Columns as in the kernel's filesystems/proc.rst: user, nice, system, idle, iowait.
    return sum(int(row[4]) + int(row[5]) for row in rows if row[0] in own) / os.sysconf("SC_CLK_TCK")
