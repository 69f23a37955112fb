"""The learning-rate range test (Smith, 2017): raise the rate, and see where the loss falls fastest."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from ttsfast.config import Config
from ttsfast.errors import InputError
from ttsfast.files import output_folder
from ttsfast.pages.plots import save
from ttsfast.progress import progress_bar
from ttsfast.training.setup import forever
from ttsfast.training.trainer import Trainer

LOWEST, HIGHEST = 1e-7, 1.0
SMOOTHING = 0.9
"""Weight of the past in the moving average that the curve is judged by."""
DIVERGED = 2.0
"""The test ends when the average is this many times its least value."""
LEAST_STEPS = 20


@dataclass
class RangeTest:
    """What the test saw, and what it suggests."""

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggestion: float
    """Where the smoothed loss falls fastest over the logarithm of the rate: a peak rate to try."""
    picture: Path


def find_learning_rate(config: Config, picture: Path, *, steps: int = 200) -> RangeTest:
    """Train ``steps`` steps from scratch with the rate rising from 1e-7 to 1, and draw the loss against it.

    What is drawn is the unweighted mel term. The run folder of ``config`` is neither read nor written. The
    spike guard, the schedule and the adaptive weights are off: they would bend the curve.

    Args:
        config: the run to come.
        picture: a PNG file to write.
        steps: at least 20; fewer are taken when the loss runs away.

    Raises:
        InputError: too few steps, a picture that is no PNG or cannot be written, or a loss that never falls.
        TrainingError: the first step is not finite, or a GPU clamped lengths.
    """
    if steps < LEAST_STEPS:
        raise InputError(f"--find-lr-steps {steps}: a range test needs {LEAST_STEPS} steps or more")
    if picture.suffix.lower() != ".png":
        raise InputError(f"{picture}: the range test draws a PNG; name a file that ends in .png")
    output_folder(picture.parent)
    rates = np.geomspace(LOWEST, HIGHEST, steps).tolist()
    losses: list[float] = []
    smoothed: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        quiet = replace(
            config.training,
            run_folder=folder,
            use_adaptive_loss_weights=False,
            max_loss_spike_threshold=1e30,
            ema_decay=0.0,
            preflight=False,
        )
        with Trainer(replace(config, training=quiet)) as trainer, progress_bar() as bar:
            task = bar.add_task("range test", total=steps)
            batches, micro_batches = forever(trainer.loader), quiet.gradient_accumulation_steps
            average = 0.0
            for number, rate in enumerate(rates):
                # An overflow of fp16 lowers the loss scale; the rate is tried on the next batch.
                while not trainer.train_step(list(islice(batches, micro_batches)), rate=rate):
                    pass
                fault = trainer.monitor.read()
                if fault is not None:
                    # What is wrong at the least rate, or with lengths, no rate is to blame for.
                    if fault.clamped or not losses:
                        raise trainer.error_of(fault)
                    break
                (row,) = trainer.monitor.take()
                average = SMOOTHING * average + (1 - SMOOTHING) * row["mel"]
                losses.append(row["mel"])
                smoothed.append(average / (1 - SMOOTHING ** (number + 1)))
                if smoothed[-1] > DIVERGED * min(smoothed):
                    break
                bar.advance(task)
    tested = rates[: len(losses)]
    suggestion = suggest(tested, smoothed)
    _draw(tested, losses, smoothed, suggestion, picture)
    return RangeTest(tested, losses, smoothed, suggestion, picture)


def suggest(rates: list[float], smoothed: list[float]) -> float:
    """The rate of steepest descent of a smoothed curve, left of its minimum.

    Raises:
        InputError: the loss never fell, or there is no finite one.
    """
    values = np.array(smoothed)
    values = values[np.isfinite(values)]
    # The average lags: what moves in its first steps is the start, not the rate.
    first, last = LEAST_STEPS // 2, int(values.argmin()) if len(values) else 0
    if last <= first + 1:
        raise InputError(
            "the loss never fell in the range test: check the data with `ttsfast verify` and "
            "`ttsfast inspect`, or take more steps (--find-lr-steps)"
        )
    slopes = np.gradient(values, np.log(rates[: len(values)]))
    return float(rates[first + int(slopes[first:last].argmin())])


def _draw(rates: list[float], losses: list[float], smoothed: list[float], best: float, picture: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.semilogx(rates, losses, color="0.8", label="mel loss")
    axes.semilogx(rates, smoothed, label="smoothed")
    axes.axvline(best, color="C1", linestyle="--", label=f"steepest at {best:.2g}")
    axes.set_ylim(0.95 * min(losses), 1.1 * max(smoothed[: len(smoothed) // 2 + 1]))
    axes.set_xlabel("learning rate")
    axes.set_ylabel("unweighted mel loss")
    axes.legend()
    save(figure, picture)
