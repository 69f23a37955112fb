"""TensorBoard, which writes in a thread of its own: what fails there is raised here, by its name."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from ttsfast.files import naming

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESUME = "make room there, or let it be written to, and --resume from the last checkpoint"


class Board:
    """Figures of a run in ``folder``; events from ``purge_step`` on are about to be written again.

    Every method raises OSError where the folder cannot be written, now or at the call before.
    """

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        self._folder = folder
        self._thread_hook = threading.excepthook
        threading.excepthook = self._of_a_thread
        try:
            with naming(folder, RESUME):
                self._writer = SummaryWriter(str(folder), purge_step=purge_step)
        except BaseException:
            threading.excepthook = self._thread_hook
            raise

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Numbers by name, in one event: one by one they take ten times as long."""
        entries = [Summary.Value(tag=name, simple_value=float(value)) for name, value in values.items()]
        with naming(self._folder, RESUME):
            self._writer._get_file_writer().add_summary(Summary(value=entries), step)

    def figure(self, name: str, figure: Figure, step: int) -> None:
        """A matplotlib figure, which is closed."""
        with naming(self._folder, RESUME):
            self._writer.add_figure(name, figure, step)

    def audio(self, name: str, wave: np.ndarray, sample_rate: int, step: int) -> None:
        """A waveform (samples,) within -1 and 1."""
        with naming(self._folder, RESUME):
            self._writer.add_audio(name, wave[None, :], step, sample_rate=sample_rate)

    def close(self) -> None:
        """Write what is left."""
        try:
            with naming(self._folder, RESUME):
                self._writer.close()
        finally:
            threading.excepthook = self._thread_hook

    def _of_a_thread(self, args: Any) -> None:
        # The writer keeps this error and raises it at its next call; its traceback says no more.
        if not (
            isinstance(args.exc_value, OSError) and type(args.thread).__module__.startswith("tensorboard.")
        ):
            self._thread_hook(args)
