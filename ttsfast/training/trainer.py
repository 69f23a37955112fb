"""The trainer: the story of a run, from an open store to a saved voice."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ttsfast.config import Config
from ttsfast.data.batch import Batch
from ttsfast.data.device_loader import DeviceLoader
from ttsfast.data.loader import MelLoader
from ttsfast.errors import InputError, TrainingError
from ttsfast.files import output_folder
from ttsfast.losses.counts import Counts, sum_counts
from ttsfast.losses.output import LossOutput
from ttsfast.losses.spec import TERMS
from ttsfast.models.build import build_model
from ttsfast.models.check import check_model
from ttsfast.models.interface import AcousticOutput
from ttsfast.models.voice import VoiceInfo
from ttsfast.training.checkpoint import (
    best_checkpoint,
    checkpoint_folder,
    checkpoints,
    load_checkpoint,
    record_best,
)
from ttsfast.training.monitor import ConvergenceWindow, EarlyStopping, SpikeGuard, StepRecords
from ttsfast.training.precision import choose_precision
from ttsfast.training.schedule import PlateauReduction, learning_rate
from ttsfast.training.setup import build_loss, build_optimizer, open_loaders, open_store
from ttsfast.training.state import restore_run, save_run
from ttsfast.training.telemetry import Telemetry
from ttsfast.training.validation import validate_run


@dataclass
class TrainingResult:
    """How a run ended."""

    run_folder: Path
    step: int
    reason: str
    """``max_steps`` or ``early_stopping``"""
    checkpoint: Path
    """The weights to use: the best where they are asked for, else the last."""
    best_step: int
    best_metric: float
    """The watched metric's least value on held-out data."""


class Trainer:
    """Trains one acoustic model on one device.

    Args:
        config: see :mod:`ttsfast.config`.
        model: any module with the signature of :mod:`ttsfast.models.interface`; ConvTTS when None.
        resume: continue from the run folder's last checkpoint, where there is one.

    Raises:
        InputError: the store, the run folder or a value does not fit; nothing has been written then.
    """

    def __init__(self, config: Config, *, model: nn.Module | None = None, resume: bool = False) -> None:
        self.config = config
        training = config.training
        self.run_folder = Path(training.run_folder)
        self.resume = resume
        if checkpoints(self.run_folder) and not resume:
            raise InputError(
                f"{self.run_folder}: holds a run already; add --resume to continue it, "
                "or set another training.run_folder"
            )
        torch.manual_seed(training.seed)
        self.precision = choose_precision(config)
        self.device = self.precision.device
        self.store = open_store(config)
        self.voice = VoiceInfo.of_store(self.store)
        self.model = (model or build_model(config.model, self.voice)).to(self.device)
        check_model(self.model, self.voice, config)
        self.reduction_factor = int(getattr(self.model, "reduction_factor", 1))
        self.loss = build_loss(config, self.reduction_factor).to(self.device)
        self.optimizer = build_optimizer(config, self.model)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision.scales_loss)
        self.loader, self.validation_loader = open_loaders(
            config, self.store, self.device, self.reduction_factor
        )
        self.guard = SpikeGuard(
            training.loss_smoothing_factor, training.max_loss_spike_threshold, self.device
        )
        self.window = ConvergenceWindow(training.convergence_window, training.convergence_threshold)
        self.early = EarlyStopping(training.early_stopping_patience, training.early_stopping_min_delta)
        self.plateau = PlateauReduction(
            training.lr_reduction_factor, training.lr_reduction_patience, training.early_stopping_min_delta
        )
        self.records = StepRecords()
        self.step = 0
        self.steep_steps = 0
        self._start_clock()
        self.resumed = restore_run(self) if resume else False
        self._recent_ids: list[tuple[str, ...]] = []

    def fit(self) -> TrainingResult:
        """Train to the end and leave a checkpoint there.

        Raises:
            TrainingError: a loss or gradient stopped being finite.
        """
        training = self.config.training
        output_folder(self.run_folder)
        batches = _forever(self.loader)
        with Telemetry(self.run_folder, self.step, training.max_steps) as self.telemetry:
            self._greet()
            self._start_clock()
            while self.step < training.max_steps and not self._out_of_patience:
                self.train_step(list(islice(batches, training.gradient_accumulation_steps)))
                self.telemetry.advance(self.step)
                if self.step % training.log_step == 0:
                    self.log()
                if self.step % training.val_step == 0:
                    self.validate()
                if self.step % training.save_step == 0:
                    self.save()
            return self._finish()

    def train_step(self, batches: list[Batch]) -> None:
        """One optimiser step on one or more micro-batches, which together count as one batch."""
        rate = learning_rate(self.step, self.config.training, self.plateau.multiplier)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.loss.schedule_weight("attention", self._attention_schedule())
        batches = [batch.to(self.device) for batch in batches]
        normalizer = sum_counts([self._count(batch) for batch in batches])
        self.model.train()
        self.loss.train()
        outputs = []
        for batch in batches:
            out = self._forward(batch, normalizer)
            self.scaler.scale(out.total).backward()
            outputs.append(out)
        total = torch.stack([out.total.detach() for out in outputs]).sum()
        values = torch.stack([out.values for out in outputs]).sum(dim=0)
        self.loss.update_weights(values, torch.stack([out.floor_values for out in outputs]).sum(dim=0))
        norm = self._clip_gradients(self.guard.update(total))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._record(batches, outputs[-1], total, values, norm)

    def _forward(self, batch: Batch, normalizer: Counts) -> LossOutput:
        with self.precision.autocast():
            output = AcousticOutput.of(
                self.model(
                    batch.text, batch.text_lengths, batch.mel, batch.mel_lengths, speaker=batch.speaker
                )
            )
        self._check_steps(output, batch)
        out = self.loss(
            output.mel,
            batch.mel,
            batch.mel_lengths,
            stop_logits=output.stop_logits,
            step_lengths=output.step_lengths,
            posterior=output.posterior,
            attention=output.attention,
            text_lengths=batch.text_lengths,
            truncated=batch.truncated,
            normalizer=normalizer,
        )
        if output.auxiliary is not None:
            out.total = out.total + output.auxiliary / normalizer.frames
        return out

    def _check_steps(self, output: AcousticOutput, batch: Batch) -> None:
        """A wrong reduction factor would divide the stop and attention terms by a wrong count in silence."""
        expected = -(-batch.mel.shape[1] // self.reduction_factor)
        for name, found in (("stop_logits", output.stop_logits), ("attention", output.attention)):
            axis = 1 if name == "stop_logits" else -2
            if found is not None and found.shape[axis] != expected:
                raise TypeError(
                    f"the model's {name} has {found.shape[axis]} decoder steps for {batch.mel.shape[1]} "
                    f"frames, and its reduction_factor says {self.reduction_factor} frames per step: "
                    "give the model an attribute reduction_factor that holds"
                )

    def _count(self, batch: Batch) -> Counts:
        steps = (batch.mel_lengths + self.reduction_factor - 1) // self.reduction_factor
        return self.loss.counts(batch.mel_lengths, steps, batch.truncated)

    def _clip_gradients(self, spike_scale: Tensor) -> Tensor:
        """Unscale, measure the norm once, then clip and damp in one multiplication; return the norm."""
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        clip = (self.config.training.gradient_clip_norm / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(gradients, clip * spike_scale)
        return norm

    def _attention_schedule(self) -> float:
        fade = self.config.training.attention_fade_steps
        return max(0.0, 1.0 - self.step / fade) if fade else 1.0

    def _record(
        self, batches: list[Batch], last: LossOutput, total: Tensor, values: Tensor, norm: Tensor
    ) -> None:
        row = {"total": total, "gradient_norm": norm}
        for index, name in enumerate(TERMS):
            if last.present[index]:
                row |= {name: values[index], f"weight_{name}": last.weight_values[index]}
        self.records.add(row)
        self._recent_ids.append(tuple(name for batch in batches for name in batch.ids))
        self._frames += sum(batch.frames for batch in batches)

    def log(self) -> None:
        """Read the steps since the last log point (the one synchronisation), judge and report them."""
        rows = self.records.drain()
        if not rows:
            return
        self._check_finite(rows)
        self.window.losses.extend(row["mel"] for row in rows)
        norms = [row["gradient_norm"] for row in rows]
        threshold = self.config.training.gradient_norm_threshold
        steep = sum(norm > threshold for norm in norms)
        self.steep_steps += steep
        values: dict[str, Any] = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
        values |= {
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "smoothed_loss": float(self.guard.average),
            "spikes": int(self.guard.spikes),
            "steep_steps": self.steep_steps,
            "skipped_updates": sum(not math.isfinite(norm) for norm in norms),
            "convergence": self.window.verdict(),
            **self._speed(),
        }
        self.telemetry.scalars("train", self.step, values)
        terms = " ".join(f"{name} {values[name]:.4f}" for name in TERMS if name in values)
        self.telemetry.status(
            f"step {self.step}: {terms}, {values['frames_per_second']:,.0f} frames/s, "
            f"loader wait {values['loader_wait_percent']:.1f}%, {values['convergence']}"
        )
        if steep and steep == self.steep_steps:
            self.telemetry.say(
                f"step {self.step}: a gradient norm of {max(norms):.1f} was above "
                f"training.gradient_norm_threshold={threshold:g}; it was clipped; further ones are counted"
            )

    def _check_finite(self, rows: list[dict[str, float]]) -> None:
        """A NaN is never trained on in silence. fp16's overflowing gradients are the scaler's to skip."""
        watched = [*TERMS, "total", *([] if self.precision.scales_loss else ["gradient_norm"])]
        first = self.step - len(rows) + 1
        for offset, (row, ids) in enumerate(zip(rows, self._recent_ids, strict=True)):
            bad = [name for name in watched if name in row and not math.isfinite(row[name])]
            if bad:
                kept = checkpoints(self.run_folder)
                remedy = f"resume from {kept[-1]}" if kept else "start again"
                raise TrainingError(
                    f"step {first + offset}: {', '.join(bad)} is not finite, with utterances "
                    f"{', '.join(ids[:8])}{', ...' if len(ids) > 8 else ''}; check them with "
                    f"`ttsfast verify`, then {remedy} with a lower training.learning_rate or "
                    "data.mixed_precision=false"
                )
        self._recent_ids.clear()

    def validate(self) -> None:
        """Measure on held-out data, both ways; reduce the rate, keep the best, count patience."""
        self.log()
        metrics, threshold = validate_run(self)
        self.voice = replace(self.voice, stop_threshold=threshold)
        training = self.config.training
        watched = metrics[training.monitor]
        if training.auto_lr_reduction and self.plateau.update(watched):
            self.telemetry.say(
                f"step {self.step}: {training.monitor} stalled for {training.lr_reduction_patience} "
                f"validations, learning rate times {self.plateau.multiplier:.3g} from here"
            )
        if self.early.update(watched, self.step):
            self.save()
            record_best(self.run_folder, self.step, training.monitor, watched)
        self._start_clock()

    def save(self) -> None:
        """Write a checkpoint of this step, once everything up to it is known to be finite."""
        if checkpoint_folder(self.run_folder, self.step).is_dir():
            return  # as the best of a validation at this very step
        self.log()
        save_run(self)

    @property
    def _out_of_patience(self) -> bool:
        return self.config.training.early_stopping and self.early.exhausted

    def _finish(self) -> TrainingResult:
        if self.early.last_step != self.step:
            self.validate()
        self.save()
        last = checkpoint_folder(self.run_folder, self.step)
        best = best_checkpoint(self.run_folder)
        chosen = last
        if best is not None and self.config.training.early_stopping_restore_best_weights:
            chosen = best
            self.model.load_state_dict(load_checkpoint(best).weights)
        reason = "early_stopping" if self._out_of_patience else "max_steps"
        self.telemetry.say(
            f"done at step {self.step} ({reason}); {self.config.training.monitor} was best, "
            f"{self.early.best:.4f}, at step {self.early.best_step}; {self.steep_steps} gradient norms above "
            f"the threshold, {int(self.guard.spikes)} loss spikes damped"
        )
        return TrainingResult(
            run_folder=self.run_folder,
            step=self.step,
            reason=reason,
            checkpoint=chosen,
            best_step=self.early.best_step,
            best_metric=self.early.best,
        )

    def close(self) -> None:
        """Stop the batcher threads."""
        self.loader.close()
        self.validation_loader.close()

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _greet(self) -> None:
        parameters = sum(p.numel() for p in self.model.parameters())
        precision = f"{str(self.precision.dtype).removeprefix('torch.')} ({self.precision.reason})"
        self.telemetry.say(f"{parameters:,} parameters on {self.device.type}, {precision}")
        if self.resume and not self.resumed:
            self.telemetry.say(
                f"{self.run_folder}: no checkpoint to resume, starting at step 0; "
                f"{self.telemetry.lost_steps} logged steps are taken again"
            )
        if self.resumed:
            self.telemetry.say(
                f"resuming at step {self.step}; {self.telemetry.lost_steps} logged steps after that "
                "checkpoint are taken again"
            )

    def _start_clock(self) -> None:
        self._frames = 0
        self._clock = time.perf_counter()
        self._waited = self.loader.wait_seconds

    def _speed(self) -> dict[str, float]:
        seconds = time.perf_counter() - self._clock
        speed = {
            "frames_per_second": self._frames / seconds,
            "loader_wait_percent": 100.0 * (self.loader.wait_seconds - self._waited) / seconds,
        }
        self._start_clock()
        return speed


def _forever(loader: MelLoader | DeviceLoader) -> Iterator[Batch]:
    while True:
        yield from loader
