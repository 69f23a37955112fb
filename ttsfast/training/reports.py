"""What a run says and logs of its steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ttsfast.terms.spec import TERMS
from ttsfast.training.telemetry.timing import device_load

if TYPE_CHECKING:
    from ttsfast.training.trainer import Trainer


def greet(trainer: Trainer) -> None:
    """What trains, in what precision, and where it goes on from."""
    say = trainer.telemetry.say
    parameters = sum(p.numel() for p in trainer.model.parameters())
    precision = f"{str(trainer.precision.dtype).removeprefix('torch.')} ({trainer.precision.reason})"
    say(f"{parameters:,} parameters on {trainer.device.type}, {precision}")
    if trainer.config.training.compile:
        say("the model is compiled at its first step, which may take minutes")
    if not trainer.resume:
        return
    lost = trainer.telemetry.lost_steps
    again = f"; {lost} logged steps since then are taken again" if lost else ""
    if trainer.resumed:
        say(f"resuming at step {trainer.step}{again}")
    else:
        say(f"{trainer.run_folder}: no checkpoint to resume, starting at step 0{again}")


def report(trainer: Trainer, rows: list[dict[str, float]]) -> None:
    """One log line on the steps since the last: means of what each recorded, and the state of the guards."""
    values: dict[str, Any] = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
    values |= {
        "learning_rate": trainer.rate,
        "smoothed_loss": float(trainer.watch.guard.average),
        "spikes": int(trainer.watch.guard.spikes),
        "steep_steps": trainer.watch.steep_steps,
        "skipped_updates": trainer.scaler.skipped,
        "loss_scale": trainer.scaler.scale,
        "convergence": trainer.watch.window.verdict(),
        **trainer.passes.counters(),
        **trainer.clock.read(),
        **device_load(trainer.device),
    }
    values["loader_wait_percent"] = values["percent_data"]
    if trainer.ratio_figures:
        figures = torch.stack(list(trainer.ratio_figures.values())).tolist()
        values |= dict(zip(trainer.ratio_figures, figures, strict=True))
        trainer.ratio_figures = {}
    trainer.telemetry.scalars("train", trainer.step, values)
    terms = " ".join(f"{name} {values[name]:.4f}" for name in TERMS if name in values)
    trainer.telemetry.status(
        f"step {trainer.step}: {terms}, {values['frames_per_second']:,.0f} frames/s, "
        f"loader wait {values['loader_wait_percent']:.1f}%, {values['convergence']}"
    )


def farewell(trainer: Trainer, reason: str) -> None:
    """How a run ended."""
    trainer.telemetry.say(
        f"done at step {trainer.step} ({reason}); {trainer.config.training.monitor} was best, "
        f"{trainer.early.best:.4f}, at step {trainer.early.best_step}; {trainer.watch.steep_steps} gradient "
        f"norms above the threshold, {int(trainer.watch.guard.spikes)} loss spikes damped, "
        f"{trainer.scaler.skipped} steps left out"
    )
