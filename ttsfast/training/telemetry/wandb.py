"""Weights & Biases beside TensorBoard, for those who ask for it (the extra ``wandb``)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ttsfast.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class WandbBoard:
    """One W&B run per process; those of one run folder share a group, so a resumed run is seen as one.

    Args:
        run_folder: its name becomes the group, its files go to ``run_folder/wandb``.
        mode: ``offline`` (``wandb sync`` uploads it later) or ``online``.

    Raises:
        InputError: the package is missing.
    """

    def __init__(self, run_folder: Path, mode: str) -> None:
        try:
            import wandb
        except ImportError as error:
            raise InputError(
                f"training.wandb={mode} needs a package: pip install 'ttsfast[wandb]'"
            ) from error
        self._wandb = wandb
        self._run: Any = wandb.init(
            project="ttsfast", group=run_folder.resolve().name, dir=str(run_folder), mode=mode
        )
        # Steps are taken again after a resume, which W&B's own counter forbids.
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, values: dict[str, Any]) -> None:
        """Scalars, or anything that W&B shows."""
        self._run.log({"step": step, **values})

    def figure(self, step: int, name: str, figure: Figure) -> None:
        """A matplotlib figure as a picture."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        # Drawn here: W&B's own drawing of figures needs pyplot, which nothing else here imports.
        self.log(step, {name: self._wandb.Image(np.asarray(canvas.buffer_rgba())[..., :3])})

    def audio(self, step: int, name: str, wave: np.ndarray, sample_rate: int) -> None:
        """A waveform (samples,) within [-1, 1]."""
        self.log(step, {name: self._wandb.Audio(wave, sample_rate=sample_rate)})

    def close(self, *, failed: bool) -> None:
        """Flush and end the run."""
        self._run.finish(exit_code=int(failed))
