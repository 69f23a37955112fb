"""Where a run's figures go: a JSON-lines log, TensorBoard, perhaps Weights & Biases, and a progress bar."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Group
from rich.live import Live
from rich.text import Text

from ttsfast.config import TrainingConfig
from ttsfast.evaluation.log import LOG_NAME, read_log
from ttsfast.files import atomic_write, naming, output_folder
from ttsfast.progress import console, progress_bar
from ttsfast.training.telemetry import messages
from ttsfast.training.telemetry.tensorboard import RESUME, Board
from ttsfast.training.telemetry.wandb import WandbBoard

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REFRESHES_PER_SECOND = 4
"""Of the progress bar."""
PATIENCE = 5.0
"""Seconds without a first step after which that is said."""


class Telemetry:
    """What is said of a run goes to the console, and nothing is recorded: as outside of ``fit``, or on a rank
    that does not write."""

    lost_steps = 0
    """Logged steps that are taken again."""

    def __enter__(self) -> Telemetry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what is open."""

    def await_step(self, step: int) -> None:
        """The first step of this process is about to be taken; say so if it takes long."""

    def advance(self, step: int) -> None:
        """``step`` steps are taken."""

    def seconds_left(self, step: int) -> float | None:
        """How long the rest of the run takes after ``step``, at the pace so far; None before there is one."""

    def say(self, message: str) -> None:
        """Print a line, above the bar where there is one."""
        console.print(message, markup=False, highlight=False, soft_wrap=True)

    def status(self, text: str) -> None:
        """Show how the run stands."""

    def scalars(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Record numbers and words by name under ``kind``."""

    def figure(self, name: str, figure: Figure, step: int) -> None:
        """Show a matplotlib figure (and close it)."""

    def audio(self, name: str, wave: np.ndarray, sample_rate: int, step: int) -> None:
        """Play a waveform (samples,)."""

    def report(self, step: int, rows: Sequence[Mapping[str, float]], figures: Mapping[str, Any]) -> None:
        """Record the training steps up to ``step``, and show the main figures.

        Args:
            step: the last one.
            rows: the figures of each step, of which the means are told.
            figures: what else there is to tell, by name.
        """
        values: dict[str, Any] = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
        values |= {**figures, "loader_wait_percent": figures["percent_data"]}
        self.scalars("train", step, values)
        self.status(messages.progress(step, values, self.seconds_left(step)))


class RunTelemetry(Telemetry):
    """A context manager that owns the log file, the TensorBoard writer and the progress bar."""

    def __init__(
        self, run_folder: Path, step: int, config: TrainingConfig, *, validated: bool = True
    ) -> None:
        output_folder(run_folder)
        self._wandb = None if config.wandb == "off" else WandbBoard(run_folder, config.wandb)
        path = run_folder / LOG_NAME
        with naming(path, RESUME):
            self.lost_steps = _rewind(path, step, validated)
            self._log = path.open("a", encoding="utf-8")
        self._board = Board(run_folder / "tensorboard", step + 1 if step else None)
        self._bar = progress_bar()
        self._task = self._bar.add_task("training", total=config.max_steps, completed=step)
        self._status = Text()
        self._step, self._moved = step, 0.0
        self._last_step, self._log_step = config.max_steps, config.log_step
        self._awaiting: threading.Timer | None = None
        self._began = 0.0
        self._first = 0
        """The step from whose end on the pace is taken: the first of this process, 0 before it."""
        shown = Group(self._bar, self._status)
        self._live = Live(shown, console=console, refresh_per_second=REFRESHES_PER_SECOND)

    def __enter__(self) -> Telemetry:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_waiting()
        self._bar.update(self._task, completed=self._step)
        self._live.stop()
        if self._wandb is not None:
            self._wandb.close(failed=kind is not None)
        # On a full disk what is buffered still cannot be written; that was raised where it came up.
        with suppress(OSError) if kind is not None else nullcontext():
            try:
                self._board.close()
            finally:
                self._log.close()

    def await_step(self, step: int) -> None:
        """Say that ``step`` is being made when it takes longer than :data:`PATIENCE`."""
        if step > self._last_step:
            return
        self._began = time.monotonic()
        self._awaiting = threading.Timer(PATIENCE, self.status, [messages.awaiting(step)])
        self._awaiting.start()

    def _stop_waiting(self) -> None:
        if self._awaiting is not None:
            self._awaiting.cancel()
            self._awaiting.join()
            self._awaiting = None

    def seconds_left(self, step: int) -> float | None:
        """As the steps since the first of this process took, what came between them included; that one may
        have waited for a compiler."""
        if step <= self._first or not self._first:
            return None
        pace = (time.monotonic() - self._began) / (step - self._first)
        return pace * (self._last_step - step)

    def advance(self, step: int) -> None:
        """Move the bar, where that can be seen: it is not drawn at every step."""
        self._step = step
        now = time.monotonic()
        if self._awaiting is not None:
            self._stop_waiting()
            self.status(messages.first_step(step, now - self._began, self._log_step))
            self._began, self._first = now, step
        if now - self._moved >= 1 / REFRESHES_PER_SECOND:
            self._moved = now
            self._bar.update(self._task, completed=step)

    def status(self, text: str) -> None:
        """Show a line below the bar; where there is no terminal, as in a job's log, print it."""
        if console.is_terminal:
            self._status.plain = text
        else:
            # The console would take longer to lay it out than a step takes to be logged.
            print(text, file=console.file, flush=True)

    def scalars(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Write one line to the log, and its numbers to TensorBoard under ``kind/``."""
        with naming(Path(self._log.name), RESUME):
            self._log.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
            self._log.flush()
        numbers = {
            f"{kind}/{name}": value for name, value in values.items() if isinstance(value, (int, float))
        }
        self._board.scalars(numbers, step)
        if self._wandb is not None:
            self._wandb.log(step, numbers)

    def figure(self, name: str, figure: Figure, step: int) -> None:
        """Show a matplotlib figure (and close it)."""
        if self._wandb is not None:
            self._wandb.figure(step, name, figure)
        self._board.figure(name, figure, step)

    def audio(self, name: str, wave: np.ndarray, sample_rate: int, step: int) -> None:
        """Play a waveform (samples,)."""
        wave = wave / max(1.0, float(np.abs(wave).max(initial=0.0)))
        self._board.audio(name, wave, sample_rate, step)
        if self._wandb is not None:
            self._wandb.audio(step, name, wave, sample_rate)


def _rewind(path: Path, step: int, validated: bool) -> int:
    """Drop log lines after ``step``, and its validation unless that is part of what is resumed.

    Returns:
        How many steps beyond it had been logged.
    """
    rows = read_log(path.parent)
    if path.is_file():
        place = (step, validated)
        kept = [row for row in rows if (row["step"], row.get("kind") == "validation") <= place]
        with atomic_write(path) as handle:
            handle.write("".join(json.dumps(row) + "\n" for row in kept).encode())
    return max([0, *(row["step"] - step for row in rows)])
