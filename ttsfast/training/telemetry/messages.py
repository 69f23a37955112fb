"""What a training run says aloud, one line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from ttsfast.config import Config, TrainingConfig
from ttsfast.devices import Precision
from ttsfast.models.build import built_in
from ttsfast.terms.spec import TERMS
from ttsfast.training.result import TrainingResult
from ttsfast.training.threads import Change

DAY = 24 * 3600.0


def opening(
    model: nn.Module,
    config: TrainingConfig,
    precision: Precision,
    step: int,
    resumed: bool | None,
    lost_steps: int,
) -> Iterator[str]:
    """What trains, in what precision, and where it goes on from.

    Args:
        model: as it is written.
        config: of the run.
        precision: of the model's passes.
        step: the last one taken.
        resumed: whether there was a checkpoint; None where none was looked for.
        lost_steps: logged steps after it.
    """
    yield f"{sum(p.numel() for p in model.parameters()):,} parameters on {precision}"
    if config.compile:
        yield "the model is compiled at its first step, which may take minutes"
    again = f"; {lost_steps} logged steps since then are taken again" if lost_steps else ""
    if resumed:
        yield f"resuming at step {step}{again}"
    elif resumed is not None:
        yield f"{config.run_folder}: no checkpoint to resume, starting at step 0{again}"


def awaiting(step: int) -> str:
    """The first step of a process takes long."""
    return f"step {step} is being made; the first may take longer than all others"


def first_step(step: int, seconds: float, log_step: int) -> str:
    """It was taken."""
    return f"step {step} took {seconds:.1f} s; figures come every {log_step} steps"


def progress(step: int, values: Mapping[str, Any], seconds_left: float | None) -> str:
    """How a run stands.

    Args:
        step: the last one.
        values: of the log line. What is told of a term is what is above its least value.
        seconds_left: of the run; None where nobody knows.
    """
    terms = " ".join(f"{name} {values[key]:.4f}" for name in TERMS if (key := f"excess_{name}") in values)
    left = "" if seconds_left is None else f"{duration(seconds_left)} left, "
    return (
        f"step {step}: excess {terms}, {values['frames_per_second']:,.0f} frames/s, "
        f"loader wait {values['loader_wait_percent']:.1f}%, {left}{values['convergence']}"
    )


def pace(step: int, seconds: float, config: Config, device: torch.device) -> str:
    """How long the rest takes at ``seconds`` a step, and what would help where that is over a day."""
    left = config.training.max_steps - step
    line = (
        f"step {step}: {seconds:.2g} s a step, so the {left:,} left take about {duration(left * seconds)}, "
        "validations not counted"
    )
    if left * seconds <= DAY:
        return line
    help = ["a GPU"] if device.type == "cpu" else []
    if built_in(config.model) and config.model.size != "nano":
        help.append("a smaller model.size, such as nano")
    help.append(f"fewer steps, of which a day holds training.max_steps={step + int(DAY / seconds)}")
    return f"{line}: MORE THAN A DAY; what would help: {'; '.join(help)}"


def duration(seconds: float) -> str:
    """In the two units that matter."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    hours, days = minutes // 60, minutes // (24 * 60)
    if days >= 2:
        return f"{days} days"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


def overflow(step: int, scale: float) -> str:
    """Of fp16 at ``step``; ``scale`` is that of the loss from now on."""
    return (
        f"step {step}: a gradient overflowed float16 at a loss scale of {2 * scale:g}; its batch is left "
        f"out, the scale is {scale:g} now"
    )


def steep(step: int, norm: float, threshold: float) -> str:
    """The first gradient norms above the threshold, ``norm`` the largest of them."""
    return (
        f"step {step}: a gradient norm of {norm:.1f} was above "
        f"training.gradient_norm_threshold={threshold:g}; it was clipped; others are counted"
    )


def threads(step: int, change: Change) -> str:
    """Another number of threads is faster."""
    fewer = change.threads < change.before
    return (
        f"step {step}: {change.threads} thread{'s' if change.threads > 1 else ''} from here, "
        f"{change.speed:,.0f} frames/s in place of {change.before_speed:,.0f} with {change.before}: "
        f"{'other work keeps cores busy' if fewer else 'cores are free again'}"
    )


def plateau(step: int, metric: str, patience: int, multiplier: float) -> str:
    """The learning rate is reduced, after ``patience`` validations without improvement."""
    return (
        f"step {step}: {metric} stalled for {patience} validations, learning rate times {multiplier:.3g} "
        "from here"
    )


def ending(result: TrainingResult, metric: str, steep_steps: int, *, spikes: int, skipped: int) -> str:
    """How a run ended, what was best, and what was out of the ordinary on the way."""
    return (
        f"done at step {result.step} ({result.reason}); {metric} was best, {result.best_metric:.4f}, at step "
        f"{result.best_step}; {steep_steps} gradient norms above the threshold, {spikes} loss spikes damped, "
        f"{skipped} steps left out"
    )
